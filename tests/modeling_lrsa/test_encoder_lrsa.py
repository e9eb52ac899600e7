import copy
import pickle

import pytest
import torch
from transformers import AlbertConfig, AlbertModel

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.backbones_lrsa import encoder_layers


@pytest.fixture(params=["bert", "roberta", "mpnet", "distilbert", "electra", "bart"])
def text(request):
    return request.param


@pytest.fixture(params=["before", "inside", "after"])
def position(request):
    return request.param


def test_text_models(tiny, text, position):
    model = tiny.model(text, "regions", num_fusion_layers=2, fusion_position=position)
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    outputs = model(**inputs)
    width = model.config.pointer_offset + inputs["input_ids"].shape[1]
    assert outputs.logits.shape == (8, inputs["labels"].shape[1], width)
    outputs.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    labels = inputs.pop("labels")
    sequences = model.generate(**inputs, max_new_tokens=7)
    assert sequences.shape[0] == 8 and sequences.shape[1] <= 8
    assert all(1 in row for row in sequences[:, 1:].tolist())
    assert labels.shape[0] == 8


def test_rationales_count(tiny, text, position):
    model = tiny.model(text, num_fusion_layers=1, fusion_position=position)
    inputs = tiny.batch(tiny.mixed_posts(model))
    other = dict(inputs, text_rationale_input_ids=inputs["text_rationale_input_ids"].flip(0))
    with torch.no_grad():
        one, two = (model(**i).encoder_last_hidden_state for i in (inputs, other))
    with_rationale = inputs["text_rationale_attention_mask"].any(-1)
    assert not torch.allclose(one[with_rationale], two[with_rationale], atol=1e-3)
    assert torch.equal(one[~with_rationale], two[~with_rationale])


@pytest.mark.parametrize("image, slots", [(None, 0), ("regions", 4)])
def test_longest_text(tiny, text, image, slots):
    model = tiny.model(text, image)
    # RoBERTa and MPNet spend positions 0 and 1 on padding, out of the 40 that they have.
    positions = tiny.POSITIONS - (2 if text in ("roberta", "mpnet") else 0)
    longest = model.config.max_text_length
    assert longest == positions - slots
    ids = torch.randint(5, tiny.VOCABULARY, (2, longest + 1))
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids[:, :-1]).encoder_last_hidden_state).all()
        with pytest.raises(ValueError, match=f"max_text_length={longest}"):
            model(input_ids=ids)


def test_longest_text_follows_the_padding_index(tiny):
    model = tiny.model("roberta", text_changes={"pad_token_id": 3})
    longest = model.config.max_text_length
    assert longest == tiny.POSITIONS - 4
    model(input_ids=torch.randint(5, tiny.VOCABULARY, (1, longest)))


@pytest.mark.parametrize("image", [None, "regions"])
def test_embeddings_narrower_than_states(tiny, image):
    with pytest.raises(ValueError, match="embeds tokens in 16 dimensions and encodes them in 32"):
        tiny.model("electra", image, text_changes={"embedding_size": 16})


def test_input_ids_or_embeddings(tiny):
    model = tiny.model()
    inputs = tiny.batch(tiny.mixed_posts(model))
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        want = model(**inputs).logits
        ids = inputs.pop("input_ids")
        assert torch.equal(model(inputs_embeds=embeds, **inputs).logits, want)
    for both in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
            model(**inputs, **both)


def test_baseline_takes_no_rationales(tiny):
    ids = torch.randint(5, tiny.VOCABULARY, (1, 6))
    with pytest.raises(ValueError, match="num_fusion_layers=0"):
        tiny.model(num_fusion_layers=0)(input_ids=ids, text_rationale_input_ids=ids)


# --- rationale states


@pytest.mark.parametrize("rationale_encoder", ["frozen", "shared"])
@pytest.mark.parametrize("number", [1, 2])
def test_rationale_states_have_the_depth_of_their_layer(tiny, text, position, rationale_encoder, number):
    fields = {"num_fusion_layers": number, "fusion_position": position, "rationale_encoder": rationale_encoder}
    model = tiny.model(text, **fields)
    encoder = model.get_encoder()
    plain = encoder.rationale_model if rationale_encoder == "frozen" else encoder.text_model
    ids, mask = torch.randint(5, tiny.VOCABULARY, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        states = encoder.get_rationale_states(ids, mask)
        embeds = plain.get_input_embeddings()(ids)
        outputs = plain(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True)
    # Inside, the states that enter the last layers of the encoder's two; outside, what comes out.
    want = outputs.hidden_states[2 - number : 2] if position == "inside" else [outputs.last_hidden_state]
    assert states.shape == (2, 6, len(want), tiny.HIDDEN) and model.config.num_rationale_depths == len(want)
    for index, depth in enumerate(want):
        torch.testing.assert_close(states[:, :, index][mask.bool()], depth[mask.bool()])


@pytest.mark.parametrize("number", [1, 2])
def test_where_fusion_stands(tiny, text, position, number):
    model = tiny.model(text, num_fusion_layers=number, fusion_position=position)
    encoder, entered = model.get_encoder(), []
    for layer in encoder_layers(encoder.text_model):
        layer.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    posts = [tiny.post(model, seed, text_rationale=5) for seed in range(2)]
    inputs = tiny.batch(posts)
    states = encoder.rationale_model.get_input_embeddings()(inputs.pop("text_rationale_input_ids"))
    states = states.unsqueeze(2).expand(-1, -1, model.config.num_rationale_depths, -1)
    with torch.no_grad():
        fused = encoder(**inputs, text_rationale_states=states).last_hidden_state
        del inputs["text_rationale_attention_mask"]
        plain = encoder(**inputs).last_hidden_state
    assert len(entered) == 4
    same = [torch.equal(one, two) for one, two in zip(entered[:2], entered[2:])]
    assert same == {"before": [False] * 2, "inside": [number == 1, False], "after": [True] * 2}[position]
    assert not torch.allclose(fused, plain, atol=1e-3)


def test_each_fusion_layer_reads_its_own_depth(tiny):
    model = tiny.model(num_fusion_layers=2, fusion_position="inside")
    encoder, entered = model.get_encoder(), []
    for layer in encoder_layers(encoder.text_model):
        layer.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    inputs = tiny.batch([tiny.post(model, 0)])
    states = torch.randn(1, 5, 2, tiny.HIDDEN)
    with torch.no_grad():
        for changed in (None, 0, 1):
            other = states.clone()
            if changed is not None:
                other[:, :, changed] += torch.randn(1, 5, tiny.HIDDEN)
            encoder(**inputs, text_rationale_states=other)
    assert not torch.allclose(entered[2], entered[0], atol=1e-3)
    assert torch.equal(entered[4], entered[0]) and not torch.allclose(entered[5], entered[1], atol=1e-3)


def test_states_in_place_of_ids(tiny, position):
    model = tiny.model(image="regions", num_fusion_layers=2, fusion_position=position)
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        want = model(**inputs).logits
        for kind in ("image", "text"):
            ids, mask = inputs.pop(f"{kind}_rationale_input_ids"), inputs[f"{kind}_rationale_attention_mask"]
            inputs[f"{kind}_rationale_states"] = model.get_encoder().get_rationale_states(ids, mask)
        assert torch.equal(model(**inputs).logits, want)


def test_rationale_masks_default_to_everything(tiny):
    model = tiny.model(num_fusion_layers=1)
    ids = torch.randint(5, tiny.VOCABULARY, (2, 6))
    with torch.no_grad():
        one = model(input_ids=ids, text_rationale_input_ids=ids).logits
        two = model(
            input_ids=ids, text_rationale_input_ids=ids, text_rationale_attention_mask=torch.ones_like(ids)
        ).logits
    assert torch.equal(one, two)


# --- modes, hooks and frozen parts


def test_frozen_parts_stay_in_eval_mode(tiny):
    model = tiny.model(image="resnet", num_fusion_layers=1).train()
    encoder = model.get_encoder()
    statistics = encoder.vision_model.embedder.embedder.normalization.running_mean.clone()
    model(**tiny.batch(tiny.mixed_posts(model), labels=True)).loss.backward()
    assert encoder.text_model.training
    assert not encoder.vision_model.training and not encoder.rationale_model.training
    assert torch.equal(statistics, encoder.vision_model.embedder.embedder.normalization.running_mean)


def test_frozen_parts_are_built_in_eval_mode(tiny):
    encoder = LRSAForMABSA(tiny.config(image="vit", num_fusion_layers=1)).get_encoder()
    assert not any(
        module.training for part in (encoder.rationale_model, encoder.vision_model) for module in part.modules()
    )


def test_trained_vision_is_in_training_mode(tiny):
    model = tiny.model(image="resnet", freeze_vision=False).train()
    assert model.get_encoder().vision_model.training


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_fuse_with_their_own_weights(tiny, text, copied):
    model = tiny.model(text, num_fusion_layers=2)
    inputs = tiny.batch(tiny.mixed_posts(model))
    other = copied(model)
    with torch.no_grad():
        want = model(**inputs).logits
        assert torch.equal(other(**inputs).logits, want)
        for parameter in other.get_encoder().fusion.parameters():
            parameter.data.mul_(-1.5)
        changed = other(**inputs).logits
        assert torch.equal(model(**inputs).logits, want)
        model.get_encoder().fusion.load_state_dict(other.get_encoder().fusion.state_dict())
        assert torch.equal(model(**inputs).logits, changed)
    assert not torch.allclose(changed, want, atol=1e-3)


def test_encoder_layers(tiny, text):
    model = tiny.model(text)
    layers = encoder_layers(model.get_encoder().text_model)
    assert len(layers) == 2
    hidden = torch.randn(1, 3, tiny.HIDDEN)
    assert all(layer(hidden, attention_mask=None) is not None for layer in layers)


def test_a_text_encoder_whose_layers_are_one(tiny, tmp_path, caplog):
    sizes = {"embedding_size": 32, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 40}
    torch.manual_seed(0)
    AlbertModel(AlbertConfig(vocab_size=60, num_hidden_layers=3, **sizes)).save_pretrained(tmp_path)
    for position in ("inside", "before"):
        with pytest.raises(ValueError, match="no list of 3 layers to fuse in front of: use fusion_position='after'"):
            LRSAForMABSA.from_text_vision_pretrained(tmp_path, fusion_position=position)
    model = LRSAForMABSA.from_text_vision_pretrained(tmp_path, fusion_position="after").eval()
    assert "of AlbertModel is not one that fusion can start from" in caplog.text
    tiny.open_gates(model)
    inputs = tiny.batch([tiny.post(model, 0, image_rationale=4, text_rationale=5)], labels=True)
    without = {name: value for name, value in inputs.items() if "rationale" not in name}
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, model(**without).logits, atol=1e-3)


def test_pooler_is_frozen(tiny):
    parameters = dict(tiny.model("bert").get_encoder().text_model.named_parameters())
    assert {name for name, p in parameters.items() if not p.requires_grad} == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }


def test_pointer_mask_without_words(tiny):
    """The last token ends the text; where words are given, pointers keep to them."""
    model = tiny.model()
    inputs = {"input_ids": torch.full((2, 5), 7), "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}
    with torch.no_grad():
        mask = model.get_encoder()(**inputs).pointer_mask
        words = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]])
        by_words = model.get_encoder()(**inputs, word_ids=words).pointer_mask
    assert mask.tolist() == [[True] * 4 + [False], [True] * 2 + [False] * 3]
    assert torch.equal(by_words, words >= 0)
