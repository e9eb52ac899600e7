"""Which rationale words and patches a triple drew on."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import ViTImageProcessorPil

from modeling_lrsa.explanation_lrsa import attention_flow, patch_grid
from modeling_lrsa.fusion_lrsa import LRSADualCrossAttention


KINDS = {
    "inside": {"text": "bert", "image": "vit"},
    "inside, encoder-decoder": {"text": "bart", "image": "resnet"},
    "before, queries": {"image": "vit", "fusion_position": "before", "image_rationale_reader": "queries"},
    "after, regions": {"text": "roberta", "image": "regions", "fusion_position": "after"},
    "text alone": {"rationale_encoder": "shared"},
    "brackets": {"text": "bart", "image": "regions", "image_bracket_token_ids": [5, 6]},
    "one direction, no gate": {"image": "vit", "fusion_directions": "content", "fusion_gate": False},
    "memory": {"text": "bart", "image": "regions", "rationale_memory": True},
    "memory, queries": {"image": "vit", "rationale_memory": True, "image_rationale_reader": "queries"},
    "no fusion": {"image": "vit", "num_fusion_layers": 0},
}


@pytest.fixture(scope="module")
def models(tiny):
    return {name: tiny.model(**{"num_fusion_layers": 2, "seed": 3} | fields) for name, fields in KINDS.items()}


def generate(model, inputs):
    return model.generate(**inputs, max_new_tokens=10)


def flows(model, inputs, sequences=None):
    return attention_flow(model, inputs, generate(model, inputs) if sequences is None else sequences)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 50))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_flows_through_what_is_not_there(tiny, models, kind, seed):
    model = models[kind]
    inputs = tiny.batch(tiny.mixed_posts(model, seed))
    sequences = generate(model, inputs)
    flow = flows(model, inputs, sequences)
    steps = sequences.shape[1] - 1
    for name in ("text_rationale", "image_rationale"):
        mask = inputs.get(f"{name}_attention_mask")
        assert (name in flow) == (mask is not None)
        if mask is not None:
            weights = flow[name]
            assert weights.shape == (8, steps, mask.shape[1]) and weights.min() >= 0
            assert (weights.masked_select(~mask.bool().unsqueeze(1)) == 0).all()
    # The text reads its rationale in every row that has one, and with this reader that of the picture too.
    if model.config.num_fusion_layers:
        assert (flow.text_rationale.sum(-1) > 0).all(-1).tolist() == [bool(bits & 4) for bits in range(8)]
        slots = model.config.image_rationale_reader == "queries"
        wanted = [bool(bits & 2) for bits in range(8)]
        assert (flow.image_rationale.sum(-1) > 0).all(-1).tolist() == wanted or slots
    if model.config.has_images:
        there = torch.tensor([bits & 1 for bits in range(8)]).bool()
        assert flow.image.shape == (8, steps, model.config.num_image_tokens) and flow.image.min() >= 0
        assert ((flow.image > 0).all((1, 2)) == there).all() and (flow.image[~there] == 0).all()
        assert (flow.image_share[there] > 0).all() and (flow.image_share <= 1).all()
        assert (flow.image.sum(-1) >= flow.image_share - 1e-6).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text alone"])
def test_what_is_masked_may_be_anything(tiny, models, kind):
    model = models[kind]
    inputs = tiny.batch(tiny.mixed_posts(model))
    sequences = generate(model, inputs)
    changed = {name: value.clone() for name, value in inputs.items()}
    pictures = "pixel_values" if "pixel_values" in inputs else "image_features"
    changed[pictures][inputs["image_attention_mask"] == 0] = 7.0
    changed["input_ids"][inputs["attention_mask"] == 0] = 9
    for name in ("text_rationale", "image_rationale"):
        if f"{name}_input_ids" in inputs:
            changed[f"{name}_input_ids"][inputs[f"{name}_attention_mask"] == 0] = 9
    for before, after in zip(flows(model, inputs, sequences).values(), flows(model, changed, sequences).values()):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_post_alone_is_as_in_a_batch(tiny, models, kind):
    model = models[kind]
    posts = tiny.mixed_posts(model, 5)
    inputs = tiny.batch(posts)
    sequences = generate(model, inputs)
    together = flows(model, inputs, sequences)
    for row, post in enumerate(posts):
        alone = flows(model, tiny.batch([post]), sequences[row : row + 1])
        for name, weights in alone.items():
            width = weights.shape[-1] if weights.dim() == 3 else None
            batched = together[name][row : row + 1]
            torch.testing.assert_close(weights, batched[..., :width] if width else batched, rtol=0, atol=1e-5)


def test_the_definition_written_out(tiny, models):
    """One post with everything, followed position by position."""
    model = models["inside"]
    inputs = tiny.batch([tiny.mixed_posts(model)[7]])
    sequences = generate(model, inputs)
    flow = flows(model, inputs, sequences)
    model = tiny.model(**KINDS["inside"], num_fusion_layers=2, seed=3, attn_implementation="eager")
    with torch.no_grad():
        outputs = model(
            **inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True, output_fusion_attentions=True
        )
    crossing = [layer[0].tolist() for layer in outputs.cross_attentions]
    recorded = [weights[0].tolist() for weights in outputs.fusion_attentions]
    slots, columns = 5, inputs["input_ids"].shape[1]
    of_text = inputs["text_rationale_input_ids"].shape[1]
    of_image = inputs["image_rationale_input_ids"].shape[1]

    def mean(heads, *place):
        return sum(head[place[0]][place[1]] for head in heads) / len(heads)

    step = 2
    attention = [
        sum(mean(layer, step, position) for layer in crossing) / len(crossing) for position in range(slots + columns)
    ]
    text, image, patches = [0.0] * of_text, [0.0] * of_image, attention[:slots]
    for layer, (seen, shown, _, told) in zip(model.get_encoder().fusion, (recorded[:4], recorded[4:])):
        gates = abs(layer.image.gate.item()), abs(layer.text.gate.item())
        for token in range(of_image):
            through = sum(attention[slot] * gates[0] * mean(shown, slot, token) for slot in range(slots))
            image[token] += through
            for slot in range(slots):
                patches[slot] += through * mean(seen, token, slot)
        for token in range(of_text + of_image):
            through = sum(attention[slots + c] * gates[1] * mean(told, c, token) for c in range(columns))
            (text if token < of_text else image)[token - (0 if token < of_text else of_text)] += through
    assert flow.text_rationale[0, step].tolist() == pytest.approx(text, abs=1e-6)
    assert flow.image_rationale[0, step].tolist() == pytest.approx(image, abs=1e-6)
    assert flow.image[0, step].tolist() == pytest.approx(patches, abs=1e-6)
    assert flow.image_share[0, step].item() == pytest.approx(sum(attention[:slots]), abs=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_implementation_is_as_it_was(tiny, implementation):
    model = tiny.model("bart", "vit", attn_implementation=implementation)
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    inputs = tiny.batch(tiny.mixed_posts(model))
    before = [config._attn_implementation for config in configs]
    wanted = model(**inputs).logits
    flows(model, inputs)
    assert [config._attn_implementation for config in configs] == before and set(before) == {implementation}
    assert torch.equal(model(**inputs).logits, wanted)


@pytest.fixture(scope="module")
def whole(tiny):
    model = tiny.model("bert", "vit", seed=5, num_fusion_layers=2)
    return model, tiny.processor(model, ViTImageProcessorPil(size={"height": 8, "width": 8}))


def explained(model, processor, text="awful phones at riverbend", picture=True, **rationales):
    inputs = processor(text, images=Image.linear_gradient("L") if picture else None, return_tensors="pt", **rationales)
    sequences = generate(model, inputs)
    triples = model.explain(processor, inputs, sequences)
    assert [len(row) for row in triples] == [len(row) for row in processor.post_process_mabsa(sequences, inputs)]
    assert triples[0]
    return triples[0]


@pytest.mark.parametrize("picture", [True, False])
@pytest.mark.parametrize("kinds", [(), ("text",), ("image",), ("text", "image")])
def test_words_and_patches(whole, picture, kinds):
    texts = {"text": "so great, the  phones!", "image": "Riverbend in a hall ."}
    given = {f"{kind}_rationales": texts[kind] for kind in kinds}
    for triple in explained(*whole, picture=picture, **given):
        words = []
        for kind, text in texts.items():
            found = triple[f"{kind}_rationale"]
            assert (found is not None) == (kind in kinds)
            for word in found or []:
                assert text[word["start"] : word["end"]] == word["word"] and not set(word["word"]) & set(" ,!") - {
                    word["word"]
                }
            words += found or []
        if kinds:
            assert sum(word["weight"] for word in words) == pytest.approx(1)
            assert min(word["weight"] for word in words) > 0
        assert (triple["patches"] is not None) == picture == (triple["image_share"] > 0)
        if picture:
            assert [len(row) for row in triple["patches"]] == [2, 2]
            assert sum(map(sum, triple["patches"])) == pytest.approx(1)
            assert min(map(min, triple["patches"])) >= 0


def test_a_word_has_the_weight_of_its_tokens(whole):
    model, processor = whole
    words, word_of_token = processor.rationale_words("so riverbend phones")
    assert [word["word"] for word in words] == ["so", "riverbend", "phones"]
    assert word_of_token == [-1, 0, 1, 1, 2, 2, -1]
    inputs = processor("i love it", text_rationales="so riverbend phones", return_tensors="pt")
    assert len(word_of_token) == inputs["text_rationale_input_ids"].shape[1]


def test_words_behind_the_cut_have_no_weight(whole):
    (triple, *_) = explained(*whole, text_rationales="so " * 30)
    weights = [word["weight"] for word in triple["text_rationale"]]
    assert len(weights) == 30
    assert min(weights[:14]) > 0 and set(weights[14:]) == {0.0}  # 16 tokens, two of them special


def test_closed_gates_let_nothing_through(tiny):
    model = tiny.model("bert", "vit", seed=5, gates=False)
    for module in model.modules():
        if isinstance(module, LRSADualCrossAttention):
            assert module.gate.item() == 0
    processor = tiny.processor(model, ViTImageProcessorPil(size={"height": 8, "width": 8}))
    for triple in explained(model, processor, text_rationales="so great", image_rationales="a hall"):
        assert triple["text_rationale"] is None and triple["image_rationale"] is None
        assert sum(map(sum, triple["patches"])) == pytest.approx(1)


def test_memory_is_drawn_on_directly(tiny):
    """With closed gates a rationale's token has what the decoder itself pays to it, behind [image block ; text]."""
    fields = {"image": "regions", "num_fusion_layers": 1, "rationale_memory": True, "seed": 3, "gates": False}
    model = tiny.model(**fields, attn_implementation="eager")
    inputs = tiny.batch([tiny.mixed_posts(model)[7]])
    sequences = generate(model, inputs)
    flow = flows(model, inputs, sequences)
    with torch.no_grad():
        outputs = model(**inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True)
    attention = torch.stack(outputs.cross_attentions).mean((0, 2))
    drawn = torch.cat([flow.text_rationale, flow.image_rationale], dim=-1)
    torch.testing.assert_close(drawn, attention[..., -drawn.shape[-1] :])
    torch.testing.assert_close(flow.image_share, attention[..., : model.config.num_image_tokens].sum(-1))


@pytest.mark.parametrize(("image", "grid"), [("vit", (1, 2, 2)), ("resnet", (0, 4, 4)), ("regions", (0, 1, 4))])
def test_patch_grid(tiny, image, grid):
    assert patch_grid(tiny.config(image=image)) == grid
