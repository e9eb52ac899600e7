import copy

import pytest
import torch
from transformers import (
    AutoModel,
    BartModel,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    EfficientNetConfig,
    EfficientNetModel,
    ResNetModel,
    ViTModel,
)

from modeling_lrsa import LRSAConfig, LRSAForMABSA, LRSAModel
from modeling_lrsa.fusion_lrsa import LRSACrossAttention


KINDS = {
    "text": {"text": "bert", "image": None},
    "vision": {"text": "bert", "image": "vit"},
    "map": {"text": "roberta", "image": "resnet"},
    "regions": {"text": "bart", "image": "regions"},
    "queries": {"text": "bart", "image": "regions", "image_rationale_reader": "queries"},
    "vision queries": {"text": "bert", "image": "vit", "image_rationale_reader": "queries"},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=["before", "inside", "after"])
def position(request):
    return request.param


@pytest.fixture(params=["frozen", "shared"])
def rationale_encoder(request):
    return request.param


def baseline_of(tiny, model, kind):
    """The same weights without fusion."""
    baseline = tiny.model(**{**kind, "image_rationale_reader": "text"}, num_fusion_layers=0, seed=1)
    missing, unexpected = baseline.load_state_dict(model.state_dict(), strict=False)
    parts = (".fusion.", ".rationale_model.", ".rationale_queries")
    assert missing == [] and all(any(part in name for part in parts) for name in unexpected)
    return baseline


# --- a model without rationales is its baseline, to the bit


def test_missing_rationales_change_nothing(tiny, kind, position, rationale_encoder):
    model = tiny.model(**kind, num_fusion_layers=2, fusion_position=position, rationale_encoder=rationale_encoder)
    baseline = baseline_of(tiny, model, kind)
    posts = tiny.mixed_posts(model)
    rationales = tiny.batch(posts)
    bare = [post | {"image_rationale": [], "text_rationale": []} for post in posts]
    inputs = tiny.batch(bare, labels=True)
    empty = {name: value for name, value in rationales.items() if "rationale" in name}
    empty = {name: value * 0 if name.endswith("mask") else value for name, value in empty.items()}
    assert len(empty) == 4
    states = {}
    for part in ("image", "text"):
        states[f"{part}_rationale_states"] = torch.randn(8, 3, model.config.num_rationale_depths, tiny.HIDDEN)
        states[f"{part}_rationale_attention_mask"] = torch.zeros(8, 3)
    with torch.no_grad():
        want = baseline(**inputs)
        for extra in ({}, empty, states):
            found = model(**inputs, **extra)
            assert torch.equal(found.logits, want.logits)
            assert torch.equal(found.loss, want.loss)
        assert not torch.allclose(model(**inputs | rationales).logits, want.logits, atol=1e-3)
    inputs.pop("labels")
    for beams in (1, 3):
        cap = {"max_new_tokens": 10, "num_beams": beams}
        assert torch.equal(model.generate(**inputs, **empty, **cap), baseline.generate(**inputs, **cap))


def test_rows_without_rationale_among_others(tiny, kind, position):
    model = tiny.model(**kind, num_fusion_layers=2, fusion_position=position)
    baseline = baseline_of(tiny, model, kind)
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    plain = {name: value for name, value in inputs.items() if "rationale" not in name}
    bare = torch.tensor([not post["image_rationale"] and not post["text_rationale"] for post in posts])
    with torch.no_grad():
        found, want = model(**inputs).logits, baseline(**plain).logits
    assert bare.sum() == 2
    assert torch.equal(found[bare], want[bare])
    # Each of the others reads something.
    assert ((found - want).abs().amax((1, 2))[~bare] > 1e-3).all()


def test_closed_gates_change_nothing(tiny, position):
    model = tiny.model(image="regions", num_fusion_layers=2, fusion_position=position, gates=False)
    baseline = baseline_of(tiny, model, {"text": "bert", "image": "regions"})
    inputs = tiny.batch(tiny.mixed_posts(model))
    plain = {name: value for name, value in inputs.items() if "rationale" not in name}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, baseline(**plain).logits)


# --- a row does not depend on its batch


def test_a_row_alone_and_in_a_batch(tiny, kind):
    model = tiny.model(**kind, num_fusion_layers=2)
    offset = model.config.pointer_offset
    for seed in range(2):
        posts = tiny.mixed_posts(model, seed)
        inputs = tiny.batch(posts, labels=True)
        with torch.no_grad():
            together = model(**inputs)
        terms = 0.0
        for row, post in enumerate(posts):
            alone = tiny.batch([post], labels=True)
            with torch.no_grad():
                output = model(**alone)
            length, width = output.logits.shape[1:]
            found = together.logits[row, :length]
            torch.testing.assert_close(found[:, :width], output.logits[0], atol=1e-5, rtol=1e-5)
            assert (found[:, width:] == torch.finfo(torch.float32).min).all()
            assert width == offset + len(post["input_ids"])
            terms += output.loss.item() * length
        total = (inputs["labels"] != -100).sum().item()
        assert terms == pytest.approx(together.loss.item() * total, rel=1e-5)


# --- loss


def test_loss_is_the_cross_entropy_of_the_labels(tiny, kind):
    model = tiny.model(**kind, num_fusion_layers=1)
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    labels = inputs["labels"]
    with torch.no_grad():
        output = model(**inputs)
    probabilities = output.logits.softmax(-1)
    terms = [
        -probabilities[row, step, target].log().item()
        for row, targets in enumerate(labels.tolist())
        for step, target in enumerate(targets)
        if target != -100
    ]
    assert output.loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_decoder_reads_bos_and_the_labels(tiny):
    model = tiny.model()
    labels = torch.tensor([[9, 9, 2, 1], [1, -100, -100, -100]])
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[0, 9, 9, 2], [0, 1, 1, 1]]
    inputs = tiny.batch([tiny.post(model, seed, length=6) for seed in range(2)])
    with torch.no_grad():
        one = model(**inputs, labels=labels).logits
        two = model(**inputs, decoder_input_ids=torch.tensor([[0, 9, 9, 2], [0, 1, 1, 1]])).logits
    assert torch.equal(one, two)


def test_decoder_sees_no_later_label(tiny, kind):
    model = tiny.model(**kind)
    post = tiny.post(model, 0, length=9)
    inputs = tiny.batch([post])
    offset = model.config.pointer_offset
    first = torch.tensor([[offset + 1, offset + 1, 2, offset + 4, offset + 4, 3, 1]])
    with torch.no_grad():
        want = model(**inputs, labels=first).logits
        for cut in range(1, 7):
            other = first.clone()
            other[:, cut:] = offset + 7
            torch.testing.assert_close(model(**inputs, labels=other).logits[:, : cut + 1], want[:, : cut + 1])


def test_num_items_in_batch(tiny):
    model = tiny.model(image="regions", num_fusion_layers=1)
    posts = tiny.mixed_posts(model)
    whole = tiny.batch(posts, labels=True)
    total = int((whole["labels"] != -100).sum())
    with torch.no_grad():
        mean = model(**whole).loss.item()
        for number in (total, torch.tensor(total)):
            halves = [
                model(**tiny.batch(half, labels=True), num_items_in_batch=number).loss.item()
                for half in (posts[:3], posts[3:])
            ]
            assert sum(halves) == pytest.approx(mean, rel=1e-5)


def test_ignored_labels_do_not_count(tiny):
    model = tiny.model()
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    longer = torch.nn.functional.pad(inputs["labels"], (0, 5), value=-100)
    with torch.no_grad():
        assert model(**inputs).loss.item() == pytest.approx(model(**inputs | {"labels": longer}).loss.item(), rel=1e-6)
        one_row = torch.full_like(inputs["labels"], -100)
        one_row[3] = inputs["labels"][3]
        alone = model(**tiny.batch([tiny.mixed_posts(model)[3]], labels=True)).loss.item()
        assert model(**inputs | {"labels": one_row}).loss.item() == pytest.approx(alone, rel=1e-4)


def test_tuple_begins_with_loss_and_logits(tiny):
    model = tiny.model()
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    with torch.no_grad():
        output = model(**inputs)
        assert "last_hidden_state" not in output
        assert torch.equal(output[0], output.loss) and torch.equal(output[1], output.logits)
        assert torch.equal(model(**inputs, return_dict=False)[0], output.loss)


def test_base_model_gives_states(tiny):
    model = tiny.model(image="regions", num_fusion_layers=1)
    assert isinstance(model.model, LRSAModel) and model.base_model is model.model
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    targets = torch.tensor([[0, 6, 6, 2]] * 8)
    with torch.no_grad():
        states = model.model(**inputs, decoder_input_ids=targets).last_hidden_state
        encoded = model.get_encoder()(**inputs)
        keys = model.pointer_head.source_keys(encoded.last_hidden_state[:, 4:], encoded.text_embeds)
        logits = model.pointer_head(states, model.model.target_embeddings.weight, keys, encoded.pointer_mask)
        assert states.shape == (8, 4, tiny.HIDDEN)
        assert torch.equal(logits, model(**inputs, decoder_input_ids=targets).logits)


@pytest.mark.parametrize("source", ["states", "embeddings"])
def test_pointers_are_embedded_as_their_column(tiny, source):
    model = tiny.model(image="regions", decoder_pointer_input=source)
    encoded = model.get_encoder()(**tiny.batch([tiny.post(model, 0, length=6)]))
    embedded = model.model.embed_targets(torch.tensor([[0, 1, 4, 5, 8, 12]]), encoded)[0]
    own = model.model.target_embeddings.weight
    columns = encoded.last_hidden_state[0, 4:] if source == "states" else encoded.text_embeds[0]
    assert torch.equal(embedded, torch.stack([own[0], own[1], own[4], columns[0], columns[3], columns[7]]))


# --- saving and loading


def test_save_and_load(tiny, tmp_path, kind, rationale_encoder):
    model = tiny.model(**kind, num_fusion_layers=2, rationale_encoder=rationale_encoder)
    model.save_pretrained(tmp_path)
    loaded, report = LRSAForMABSA.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    with torch.no_grad():
        want, found = model(**inputs), loaded(**inputs)
    assert torch.equal(found.logits, want.logits) and torch.equal(found.loss, want.loss)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == trainable
    assert not any(f".{part}." in name for name in trainable for part in ("rationale_model", "vision_model"))
    assert not loaded.training
    inputs.pop("labels")
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=10), model.generate(**inputs, max_new_tokens=10))


def test_auto_model_gives_the_task_model(tiny, tmp_path):
    model = tiny.model(num_fusion_layers=1)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is LRSAForMABSA
    assert not any(parameter.requires_grad for parameter in loaded.get_encoder().rationale_model.parameters())


def test_trained_vision_stays_trained(tiny, tmp_path):
    model = tiny.model(image="vit", freeze_vision=False)
    model.save_pretrained(tmp_path)
    loaded = LRSAForMABSA.from_pretrained(tmp_path)
    vision = loaded.get_encoder().vision_model.named_parameters()
    assert all(parameter.requires_grad != name.startswith("pooler.") for name, parameter in vision)


def test_half_precision(tiny, tmp_path):
    model = tiny.model(image="vit", num_fusion_layers=1)
    model.save_pretrained(tmp_path)
    half = LRSAForMABSA.from_pretrained(tmp_path, dtype=torch.bfloat16)
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    with torch.no_grad():
        output = half(**inputs)
        want = model(**inputs)
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(want.loss.item(), rel=0.05)


# --- from pre-trained parts


@pytest.fixture(scope="module")
def parts(tiny, tmp_path_factory):
    folder, size = tmp_path_factory.mktemp("parts"), 32
    torch.manual_seed(0)
    regions = tiny.image_side("vit")["vision_config"]
    efficient = EfficientNetConfig(
        image_size=size, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128, num_block_repeats=[1] * 7
    )
    clip = CLIPVisionConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4
    )
    models = {
        "bert": BertModel(tiny.text_config("bert")),
        "bart": BartModel(tiny.text_config("bart")),
        "vit": ViTModel(regions),
        "efficientnet": EfficientNetModel(efficient),
        "clip": CLIPVisionModel(clip),
        "resnet": ResNetModel(tiny.image_side("resnet")["vision_config"]),
    }
    for name, part in models.items():
        part.save_pretrained(folder / name)
    return {name: (str(folder / name), part) for name, part in models.items()}


def with_prefix(state_dict, prefix):
    return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}


@pytest.mark.parametrize("text", ["bert", "bart"])
@pytest.mark.parametrize(
    "vision, measures", [(None, None), ("vit", (5, 24)), ("efficientnet", (1, 128)), ("clip", (5, 24))]
)
def test_from_parts(tiny, parts, text, vision, measures):
    text_folder, text_model = parts[text]
    model = LRSAForMABSA.from_text_vision_pretrained(
        text_folder, vision and parts[vision][0], num_fusion_layers=2, decoder_layers=1
    )
    encoder = model.get_encoder()
    assert not model.training
    given = text_model.get_encoder() if text == "bart" else text_model
    for part in (encoder.text_model, encoder.rationale_model):
        own = part.state_dict()
        assert all(torch.equal(own[name], value) for name, value in given.state_dict().items() if "pooler" not in name)
    if text == "bart":
        decoder = model.get_decoder().state_dict()
        given = {name: value for name, value in text_model.decoder.state_dict().items() if "embed_tokens" not in name}
        assert decoder.keys() == given.keys()
        assert all(torch.equal(decoder[name], value) for name, value in given.items())
    if vision is not None:
        assert (model.config.num_image_tokens, model.config.image_feature_size) == measures
        own = encoder.vision_model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in parts[vision][1].state_dict().items())
    # Each fusion layer starts with the self-attention of the encoder layer in front of which it stands.
    layers = encoder.text_model.layers if text == "bart" else encoder.text_model.encoder.layer
    for block, layer in zip(encoder.fusion, layers):
        attention = layer.self_attn if text == "bart" else layer.attention.self
        query = attention.q_proj if text == "bart" else attention.query
        targets = [module for module in block.modules() if isinstance(module, LRSACrossAttention)]
        assert len(targets) == (2 if vision is None else 4)
        assert all(torch.equal(target.q_proj.weight, query.weight) for target in targets)
    side = None if vision is None else encoder.vision_model.config.image_size
    inputs = {"input_ids": torch.randint(5, tiny.VOCABULARY, (2, 6))}
    inputs |= {} if side is None else {"pixel_values": torch.randn(2, 3, side, side)}
    assert model.generate(**inputs, max_new_tokens=4).shape[0] == 2


@pytest.mark.parametrize(
    "position, number, depths",
    [("before", 2, [0, 0]), ("inside", 1, [1]), ("inside", 2, [0, 1]), ("after", 2, [1, 1])],
)
def test_fusion_starts_from_the_layer_beside_it(parts, position, number, depths):
    model = LRSAForMABSA.from_text_vision_pretrained(
        parts["bert"][0], num_fusion_layers=number, fusion_position=position
    )
    layers = model.get_encoder().text_model.encoder.layer
    for block, depth in zip(model.get_encoder().fusion, depths):
        assert torch.equal(block.text.content_attention.v_proj.weight, layers[depth].attention.self.value.weight)


def test_parts_are_copies(parts):
    model = LRSAForMABSA.from_text_vision_pretrained(parts["bert"][0], num_fusion_layers=1)
    encoder = model.get_encoder()
    text = dict(encoder.text_model.named_parameters())
    for name, parameter in encoder.rationale_model.named_parameters():
        assert parameter.data_ptr() != text[name].data_ptr()
        assert text[name].requires_grad != name.startswith("pooler.")
        assert not parameter.requires_grad


def test_unknown_field(parts):
    with pytest.raises(TypeError, match="LRSAConfig has no num_fusion_layer"):
        LRSAForMABSA.from_text_vision_pretrained(parts["bert"][0], num_fusion_layer=1)


def test_vision_model_without_image_size(parts):
    model = LRSAForMABSA.from_text_vision_pretrained(parts["bert"][0], parts["resnet"][0])
    assert model.config.image_feature_size == 12


def test_from_parts_survives_saving(tiny, parts, tmp_path):
    model = LRSAForMABSA.from_text_vision_pretrained(parts["bart"][0], parts["vit"][0], num_fusion_layers=1)
    tiny.open_gates(model)
    model.save_pretrained(tmp_path)
    loaded, report = LRSAForMABSA.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    assert isinstance(loaded.config, LRSAConfig)


def test_deepcopy_generates_the_same(tiny):
    model = tiny.model(image="regions", num_fusion_layers=2)
    inputs = tiny.batch(tiny.mixed_posts(model))
    assert torch.equal(
        copy.deepcopy(model).generate(**inputs, max_new_tokens=10), model.generate(**inputs, max_new_tokens=10)
    )


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize(
    "text, image, names",
    [
        ("bert", "vit", {"BertLayer", "BartDecoderLayer", "ViTEmbeddings", "ViTLayer"}),
        ("roberta", None, {"RobertaLayer", "BartDecoderLayer"}),
        ("bart", "regions", {"BartEncoderLayer", "BartDecoderLayer"}),
    ],
)
def test_parts_that_fsdp_shards(tiny, text, image, names, layers):
    """Those that are there, and none that is called by its inner parts, as a text model's embeddings are."""
    model = tiny.model(text, image, num_fusion_layers=layers)
    assert model._no_split_modules == names | ({"LRSAFusionLayer"} if layers else set())
