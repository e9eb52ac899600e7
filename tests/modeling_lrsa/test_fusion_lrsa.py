import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel

from modeling_lrsa.backbones_lrsa import encoder_layers, text_encoder_of
from modeling_lrsa.fusion_lrsa import (
    FIRST_RATIONALE_UPDATE,
    LRSACrossAttention,
    LRSADualCrossAttention,
    LRSAFusionLayer,
    initialize_fusion_from_layer,
)


def dual(tiny, implementation="sdpa", seed=0, match_bias=None, **fields):
    config = tiny.config(attn_implementation=implementation, **fields)
    torch.manual_seed(seed)
    block = LRSADualCrossAttention(config, match_bias).eval()
    for parameter in block.parameters():
        parameter.data.normal_(std=0.3)
    return block


def reference_attention(attention, query, keys, mask, matches=None, heads=2):
    """Multi-head attention of `query` over `keys`, one head and one row after the other."""
    q, k, v = attention.q_proj(query), attention.k_proj(keys), attention.v_proj(keys)
    size, rows = q.shape[-1] // heads, []
    for row in range(len(q)):
        parts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[row, :, part] @ k[row, mask[row], part].T / size**0.5
            if matches is not None:
                scores = scores + attention.match_bias[head] * matches[row][:, mask[row]]
            weights = scores.softmax(-1)
            parts.append(weights @ v[row, mask[row], part])
        rows.append(torch.cat(parts, -1))
    return attention.out_proj(torch.stack(rows))


def reference(block, x, r, x_mask, r_mask, directions="both", gate=True, matches=None):
    """The two formulas of the docstring of `LRSADualCrossAttention`; a row with nothing to read keeps its X."""
    result = x.clone()
    for row in range(len(x)):
        if x_mask[row].any() and r_mask[row].any():
            one, seen = slice(row, row + 1), r[row : row + 1]
            same = None if matches is None else matches[one]
            if directions == "both":
                seen = seen + reference_attention(
                    block.rationale_attention,
                    block.rationale_norm(r[one]),
                    x[one],
                    x_mask[one],
                    None if same is None else same.mT,
                )
            update = reference_attention(block.content_attention, block.content_norm(x[one]), seen, r_mask[one], same)
            result[one] = x[one] + (block.gate * update if gate else update)
    return result


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 6), rationale=st.integers(1, 7), data=st.data())
@pytest.mark.parametrize("bias", [None, 2.0])
@pytest.mark.parametrize("directions, gate", [("both", True), ("content", True), ("both", False)])
def test_formulas(tiny, directions, gate, bias, seed, tokens, rationale, data):
    masks = [
        torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=3, max_size=3)))
        for n in (tokens, rationale)
    ]
    torch.manual_seed(seed)
    x, r = torch.randn(3, tokens, tiny.HIDDEN), torch.randn(3, rationale, tiny.HIDDEN)
    for implementation in ("sdpa", "eager"):
        block = dual(tiny, implementation, seed, bias, fusion_directions=directions, fusion_gate=gate)
        matches = None if bias is None else torch.rand(3, tokens, rationale) < 0.3
        with torch.no_grad():
            fused, seen, *_ = block(x, r, *masks, matches)
            want = reference(block, x, r, *masks, directions, gate, matches)
            torch.testing.assert_close(fused, want, atol=1e-5, rtol=1e-5)
        assert torch.equal(seen, r) is (directions == "content")
        missing = ~(masks[0].any(-1) & masks[1].any(-1))
        assert torch.equal(fused[missing], x[missing])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), garbage=st.sampled_from([0.0, -5.0, 1e4]))
def test_masked_tokens_are_never_read(tiny, seed, garbage):
    block = dual(tiny, seed=seed)
    x, r = torch.randn(2, 5, tiny.HIDDEN), torch.randn(2, 6, tiny.HIDDEN)
    x_mask, r_mask = torch.rand(2, 5) < 0.6, torch.rand(2, 6) < 0.6
    other_x, other_r = x.clone(), r.clone()
    other_x[~x_mask], other_r[~r_mask] = garbage, garbage
    with torch.no_grad():
        one, other = block(x, r, x_mask, r_mask)[0], block(other_x, other_r, x_mask, r_mask)[0]
    assert torch.equal(one[x_mask], other[x_mask])


def test_zero_gate_changes_nothing(tiny):
    block = dual(tiny)
    nn.init.zeros_(block.gate)
    x, r = torch.randn(2, 5, tiny.HIDDEN), torch.randn(2, 6, tiny.HIDDEN)
    everything = torch.ones(2, 6, dtype=torch.bool)
    assert torch.equal(block(x, r, everything[:, :5], everything)[0], x)


def test_what_is_left_out_has_no_weights(tiny):
    whole, one_way, ungated = (
        set(dual(tiny, **fields).state_dict())
        for fields in ({}, {"fusion_directions": "content"}, {"fusion_gate": False})
    )
    assert {name.partition(".")[0] for name in whole - one_way} == {"rationale_norm", "rationale_attention"}
    assert whole - ungated == {"gate"} and one_way < whole


def test_match_bias_draws_a_token_to_its_other_mention(tiny):
    """It starts at the value of the configuration, in the text stream alone, and reads what is the same token."""
    model = tiny.model(image="regions", num_fusion_layers=1, fusion_match_bias=50.0, attn_implementation="eager")
    biases = {name: p for name, p in model.named_parameters() if name.endswith("match_bias")}
    assert len(biases) == 2 and all(".text." in name for name in biases)
    for bias in biases.values():
        nn.init.constant_(bias, 50.0)  # the tiny models draw all their weights
    inputs = {
        "input_ids": torch.tensor([[2, 20, 21, 22, 3]]),
        "text_rationale_input_ids": torch.tensor([[2, 22, 30, 3]]),
        "image_rationale_input_ids": torch.tensor([[2, 31, 20, 21, 3]]),
    }
    with torch.no_grad():
        *_, weights = model(**inputs, output_fusion_attentions=True).fusion_attentions
    # The text stream reads [text rationale ; image rationale].
    assert weights[0, :, [1, 2, 3], [6, 7, 1]].min() > 0.99


def test_match_bias_without_tokens_is_none(tiny):
    model = tiny.model(num_fusion_layers=1, fusion_match_bias=5.0)
    ids = torch.tensor([[2, 20, 21, 3]])
    rationale = {"text_rationale_input_ids": torch.tensor([[2, 20, 3]])}
    embeds = model.get_input_embeddings()(ids)
    encoder = model.get_encoder()
    states = encoder.get_rationale_states(rationale["text_rationale_input_ids"], torch.ones(1, 3))
    with torch.no_grad():
        named = encoder(input_ids=ids, **rationale).last_hidden_state
        unnamed = encoder(inputs_embeds=embeds, **rationale).last_hidden_state
        cached = encoder(input_ids=ids, text_rationale_states=states).last_hidden_state
        both = encoder(input_ids=ids, text_rationale_states=states, **rationale).last_hidden_state
    assert torch.equal(unnamed, cached) and torch.equal(named, both) and not torch.allclose(named, unnamed, atol=1e-3)


def test_gates_start_at_zero(tiny):
    model = tiny.model(image="regions", num_fusion_layers=2, gates=False)
    gates = [m.gate for m in model.modules() if isinstance(m, LRSADualCrossAttention)]
    assert len(gates) == 4  # two layers of an image and a text stream
    assert all(not gate.any() for gate in gates)


@pytest.mark.parametrize("image, streams", [(None, 1), ("regions", 2)])
def test_streams(tiny, image, streams):
    layer = LRSAFusionLayer(tiny.config(image=image))
    assert sum(isinstance(m, LRSADualCrossAttention) for m in layer.modules()) == streams


# Query, key, value and output projection of the first encoder layer, spelt out for each text model.
PROJECTIONS = {
    "bert": "attention.self.query attention.self.key attention.self.value attention.output.dense",
    "roberta": "attention.self.query attention.self.key attention.self.value attention.output.dense",
    "electra": "attention.self.query attention.self.key attention.self.value attention.output.dense",
    "bart": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj",
    "mpnet": "attention.attn.q attention.attn.k attention.attn.v attention.attn.o",
}


@pytest.mark.parametrize("kind", [*PROJECTIONS, "distilbert"])
def test_start_from_self_attention(tiny, kind):
    torch.manual_seed(0)
    # Feed-forward layers as wide as the model could be taken for a projection.
    wide = {"distilbert": {"hidden_dim": 32}, "bart": {"encoder_ffn_dim": 32}}.get(kind, {"intermediate_size": 32})
    config = tiny.config(kind, "regions", text_changes=wide)
    text_model = text_encoder_of(AutoModel.from_config(config.text_config))
    for parameter in text_model.parameters():
        parameter.data.normal_()
    layer = encoder_layers(text_model)[0]
    if kind == "distilbert":
        names = [f"attention.{name}" for name in ("q_lin", "k_lin", "v_lin", "out_lin")]
    else:
        names = PROJECTIONS[kind].split()
    fusion = LRSAFusionLayer(config)
    assert initialize_fusion_from_layer(fusion, layer) is True
    attentions = [module for module in fusion.modules() if isinstance(module, LRSACrossAttention)]
    assert len(attentions) == 4
    from_content = [stream.rationale_attention for stream in (fusion.image, fusion.text)]
    for attention in attentions:
        for target, name in zip(("q_proj", "k_proj", "v_proj", "out_proj"), names):
            source = layer.get_submodule(name)
            factor = FIRST_RATIONALE_UPDATE if target == "out_proj" and attention in from_content else 1.0
            assert torch.equal(attention.get_submodule(target).weight, factor * source.weight)
            assert torch.equal(attention.get_submodule(target).bias, factor * source.bias)
            assert attention.get_submodule(target).weight is not source.weight


def test_queries_start_at_the_scale_of_the_layer_input(tiny):
    fusion, norm = LRSAFusionLayer(tiny.config()), nn.LayerNorm(tiny.HIDDEN)
    norm.weight.data.normal_(std=0.7)
    norm.bias.data.normal_(std=0.3)
    layer = encoder_layers(text_encoder_of(AutoModel.from_config(tiny.config().text_config)))[0]
    assert initialize_fusion_from_layer(fusion, layer, norm)
    with torch.no_grad():
        states = norm(torch.randn(500, tiny.HIDDEN))
        # LN(X) has about the spread of X itself.
        assert fusion.text.content_norm(states).std().item() == pytest.approx(states.std().item(), rel=0.1)


def test_start_from_a_layer_of_another_make(tiny):
    fusion = LRSAFusionLayer(tiny.config())
    before = copy.deepcopy(fusion.state_dict())
    assert initialize_fusion_from_layer(fusion, nn.Linear(tiny.HIDDEN, tiny.HIDDEN)) is False
    assert initialize_fusion_from_layer(fusion, nn.TransformerEncoderLayer(16, 2)) is False
    assert all(torch.equal(before[name], value) for name, value in fusion.state_dict().items())


FUSIONS = [
    {"fusion_position": position, "rationale_encoder": encoder}
    for position in ("before", "inside", "after")
    for encoder in ("frozen", "shared")
]
# Ablations, which have other weights or other gradients.
FORMS = FUSIONS + [
    {"fusion_position": "inside", "rationale_encoder": "embeddings"},
    {"fusion_position": "before", "rationale_encoder": "embeddings", "fusion_directions": "content"},
    {"fusion_position": "inside", "rationale_encoder": "shared", "fusion_gate": False},
    {"fusion_position": "inside", "rationale_encoder": "frozen", "rationale_memory": True},
    {
        "fusion_position": "after",
        "rationale_encoder": "frozen",
        "rationale_memory": True,
        "fusion_directions": "content",
    },
]
READERS = [
    {"text": "bert", "image": None, "image_rationale_reader": "text"},
    {"text": "bert", "image": "vit", "image_rationale_reader": "text"},
    {"text": "bart", "image": "regions", "image_rationale_reader": "queries"},
]


def name_of(value):
    return "-".join(str(part) for part in value.values())


@pytest.fixture(params=FUSIONS, ids=name_of)
def fusion(request):
    return request.param


@pytest.fixture(params=FORMS, ids=name_of)
def form(request):
    return request.param


@pytest.fixture(params=READERS, ids=name_of)
def reader(request):
    return request.param


def fusion_parameters(model):
    """(other parameters, gates) of the fusion."""
    named = dict(model.model.encoder.fusion.named_parameters())
    gates = {name: parameter for name, parameter in named.items() if name.endswith("gate")}
    return {name: parameter for name, parameter in named.items() if name not in gates}, gates


def still(name):
    """A bias on keys adds the same to all scores of a query, which the softmax takes away again."""
    return name.endswith("k_proj.bias")


def has_gradient(parameter):
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 1e-12)


def test_gradients(tiny, reader, fusion):
    model = tiny.model(num_fusion_layers=2, gates=False, **reader, **fusion).train()
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    model(**inputs).loss.backward()
    others, gates = fusion_parameters(model)
    assert all(not has_gradient(parameter) for parameter in others.values())
    assert all(has_gradient(gate) for gate in gates.values())
    encoder = model.model.encoder
    for part in (encoder.rationale_model, encoder.vision_model):
        for parameter in [] if part is None else part.parameters():
            assert parameter.grad is None and not parameter.requires_grad

    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    optimizer.step()
    optimizer.zero_grad()
    model(**inputs).loss.backward()
    assert all(has_gradient(parameter) for name, parameter in others.items() if not still(name))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("form", FORMS[6:], ids=name_of)
def test_gradients_of_ablations(tiny, reader, form):
    """Without a gate, or with R' in the memory, fusion learns from the first step."""
    model = tiny.model(num_fusion_layers=2, gates=False, **reader, **form).train()
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    model(**inputs).loss.backward()
    others, gates = fusion_parameters(model)
    assert bool(gates) is form.get("fusion_gate", True) and all(has_gradient(gate) for gate in gates.values())
    moved = {name for name, parameter in others.items() if has_gradient(parameter)}
    whole = {name for name in others if not still(name)}
    if not form.get("fusion_gate", True):
        assert moved >= whole
    elif "rationale_memory" in form and "fusion_directions" not in form:
        stream = "1.text.rationale" if reader["image_rationale_reader"] == "text" else "1."
        assert moved >= {name for name in whole if name.startswith(stream) and ".rationale_" in name}
    else:
        assert not moved


@pytest.mark.parametrize("reader", READERS, ids=name_of)
def test_one_direction_has_one_attention(tiny, reader):
    fields = {"num_fusion_layers": 2, "fusion_directions": "content", "attn_implementation": "eager"}
    model = tiny.model(**reader, **fields)
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        weights = model(**inputs, output_fusion_attentions=True).fusion_attentions
    slots = [model.config.num_image_tokens] if model.config.has_images else []
    assert [part.shape[2] for part in weights] == [*slots, inputs["input_ids"].shape[1]] * 2


def without(posts, *names):
    return [post | {name: None if name == "image" else [] for name in names} for post in posts]


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "no pictures"])
def test_no_parameter_is_left_out_of_a_step(tiny, reader, form, pictures):
    # DDP stops where a trainable parameter has no gradient.
    model = tiny.model(num_fusion_layers=2, **reader, **form).train()
    posts = without(tiny.mixed_posts(model), "image_rationale", "text_rationale", *(() if pictures else ("image",)))
    inputs = tiny.batch(posts, labels=True)
    assert not any("rationale" in name for name in inputs)
    model(**inputs).loss.backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("image", ["vit", "resnet"])
def test_no_parameter_is_left_out_with_trained_vision(tiny, image):
    model = tiny.model(image=image, num_fusion_layers=1, freeze_vision=False).train()
    model(**tiny.batch(tiny.mixed_posts(model), labels=True)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_no_parameter_is_left_out_with_trained_vision_and_no_picture(tiny):
    model = tiny.model(image="resnet", num_fusion_layers=1, freeze_vision=False).train()
    posts = without(tiny.mixed_posts(model), "image")
    model(**tiny.batch(posts, labels=True)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("part", ["image_rationale", "text_rationale"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_rows_with_masks_of_zeros_give_no_nan(tiny, reader, form, implementation, part):
    model = tiny.model(num_fusion_layers=2, attn_implementation=implementation, **reader, **form).train()
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    inputs[f"{part}_attention_mask"] = torch.zeros_like(inputs[f"{part}_attention_mask"])
    output = model(**inputs)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
def test_gradient_checkpointing(tiny, reader, form, reentrant):
    no_dropout = {"fusion_dropout": 0.0, "pointer_dropout": 0.0, "pointer_mlp_dropout": 0.0}
    model = tiny.model(num_fusion_layers=2, **reader, **form, **no_dropout).train()
    for module in model.modules():
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)

    def gradients():
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    loss, plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    layer = encoder_layers(model.model.encoder.text_model)[0]
    next(layer.children()).register_forward_hook(lambda *_: calls.append(1))
    checkpointed_loss, checkpointed = gradients()
    # Each pass through the text encoder is done again in the backward pass; shared rationales are two more.
    assert len(calls) == (6 if form["rationale_encoder"] == "shared" else 2)
    assert checkpointed_loss == pytest.approx(loss, abs=1e-6)
    assert checkpointed.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("how", ["config", "set_attn_implementation"])
def test_fusion_attentions(tiny, reader, fusion, how):
    eager = {"attn_implementation": "eager"} if how == "config" else {}
    model = tiny.model(num_fusion_layers=2, **reader, **fusion, **eager)
    if how != "config":
        model.set_attn_implementation("eager")
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    with torch.no_grad():
        outputs = model(**inputs, output_fusion_attentions=True)
    text = inputs["input_ids"].shape[1]
    slots = model.config.num_image_tokens
    lengths = {kind: max(len(p[f"{kind}_rationale"]) for p in posts) for kind in ("image", "text")}
    read = lengths["text"] + (lengths["image"] if reader["image_rationale_reader"] == "text" else 0)
    layer = [(read, text), (text, read)]
    if model.config.has_images:
        layer = [(lengths["image"], slots), (slots, lengths["image"])] + layer
    assert "fusion_attentions" in outputs
    assert [tuple(weights.shape) for weights in outputs.fusion_attentions] == [(8, 2, *shape) for shape in layer * 2]
    for weights in outputs.fusion_attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    # What is not there is not read: rows of padded text put no weight on it.
    mask = inputs["attention_mask"][:, None, None].bool()
    assert outputs.fusion_attentions[len(layer) - 2].masked_select(~mask).max() < 1e-6


def test_fusion_attentions_need_eager(tiny):
    model = tiny.model(num_fusion_layers=1, attn_implementation="sdpa")
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        model(**tiny.batch(tiny.mixed_posts(model)), output_fusion_attentions=True)


def test_output_attentions_gives_the_fields_of_bart(tiny):
    model = tiny.model("bart", "regions", num_fusion_layers=2, attn_implementation="eager")
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    with torch.no_grad():
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
    assert set(outputs) == {
        *("loss", "logits", "decoder_hidden_states", "decoder_attentions", "cross_attentions"),
        *("encoder_last_hidden_state", "encoder_hidden_states", "encoder_attentions"),
    }
    source, target = 4 + inputs["input_ids"].shape[1], inputs["labels"].shape[1]
    assert [tuple(a.shape) for a in outputs.encoder_attentions] == [(8, 2, source, source)] * 2
    assert [tuple(a.shape) for a in outputs.decoder_attentions] == [(8, 2, target, target)] * 3
    assert [tuple(a.shape) for a in outputs.cross_attentions] == [(8, 2, target, source)] * 3
    assert [tuple(h.shape) for h in outputs.encoder_hidden_states] == [(8, source, tiny.HIDDEN)] * 3
    assert [tuple(h.shape) for h in outputs.decoder_hidden_states] == [(8, target, tiny.HIDDEN)] * 4
