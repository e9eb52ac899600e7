import json
import random

import pytest
import torch
from transformers import AutoConfig, BartConfig, BertConfig, EfficientNetConfig, ViTConfig

from modeling_lrsa import LRSAConfig, LRSAForMABSA


def fields_of(config):
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


@pytest.mark.parametrize("text", ["bert", "bart"])
@pytest.mark.parametrize("image", [None, "vit", "regions"])
def test_round_trip(tiny, tmp_path, text, image):
    changes = {"num_fusion_layers": 2, "fusion_dropout": 0.25, "id2label": {0: "good", 1: "bad"}, "pointer_offset": 9}
    config = tiny.config(text, image, **changes)
    config.save_pretrained(tmp_path)
    for copy in (LRSAConfig.from_dict(config.to_dict()), LRSAConfig.from_pretrained(tmp_path)):
        assert fields_of(copy) == fields_of(config)
        assert {name: getattr(copy, name) for name in changes} == changes
        assert type(copy.text_config) is type(config.text_config)
        assert type(copy.vision_config) is type(config.vision_config)
    assert fields_of(AutoConfig.from_pretrained(tmp_path)) == fields_of(config)


def test_index_format_in_config_json(tiny):
    fields = tiny.config(num_special_targets=3).to_dict()
    assert fields["num_special_targets"] == 3
    assert fields["pointer_offset"] == 6  # three special targets and three polarities
    assert fields["id2label"] == {0: "positive", 1: "neutral", 2: "negative"}
    assert fields["end_points_to"] in ("first", "last")
    assert (fields["bos_token_id"], fields["eos_token_id"], fields["pad_token_id"]) == (0, 1, 1)


def test_what_pipeline_writes_into_its_tasks_is_not_saved(tiny):
    """It puts classes in place of their names, which are no JSON."""
    config = tiny.config()
    wanted = {"mabsa": {"impl": "pipeline_lrsa.MABSAPipeline", "pt": ["AutoModel"]}}
    config.custom_pipelines["mabsa"]["pt"] = (LRSAForMABSA,)
    assert json.loads(config.to_json_string())["custom_pipelines"] == config.custom_pipelines == wanted
    assert "mabsa" not in config.custom_pipelines, "it is registered here"


def test_tokenizer_ids_stay_in_the_text_config(tiny):
    config = tiny.config("bert", text_changes={"pad_token_id": 7, "eos_token_id": 8})
    assert (config.text_config.pad_token_id, config.text_config.eos_token_id) == (7, 8)
    assert (config.pad_token_id, config.eos_token_id) == (1, 1)


AS_INPUT = {"fusion_position": "input", "rationale_encoder": "embeddings"}


@pytest.mark.parametrize(
    "fields, mend",
    [
        ({"pointer_offset": 4}, "at least 5"),
        ({"pointer_offset": 5, "num_special_targets": 3}, "at least 6"),
        ({"num_image_tokens": 4}, "needs both `num_image_tokens` and `image_feature_size`"),
        ({"image_feature_size": 4}, "needs both `num_image_tokens` and `image_feature_size`"),
        ({"num_fusion_layers": 3, "fusion_position": "inside"}, "between 0 and the 2 encoder layers"),
        ({"num_fusion_layers": -1}, "between 0 and the 2 encoder layers"),
        ({"num_fusion_layers": 1, "image_rationale_reader": "queries"}, "image_rationale_reader='text'"),
        ({"fusion_position": "input"}, "no fusion blocks: rationale_encoder='frozen' must be 'embeddings'"),
        (AS_INPUT | {"num_fusion_layers": 2}, "num_fusion_layers=2 must be 1"),
        (AS_INPUT | {"fusion_directions": "content"}, "fusion_directions='content' must be 'both'"),
        (AS_INPUT | {"fusion_gate": False}, "fusion_gate=False must be True"),
        (AS_INPUT | {"fusion_match_bias": 3.0}, "fusion_match_bias=3.0 must be None"),
        (AS_INPUT | {"fusion_match_embeddings": True}, "fusion_match_embeddings=True must be False"),
        (AS_INPUT | {"image_rationale_reader": "queries"}, "image_rationale_reader='queries' must be 'text'"),
        ({"decoder_config": BartConfig(d_model=16)}, "d_model to 32"),
        ({"target_token_ids": [2, 3, 4]}, "3 ids, one for each of 5 targets"),
        ({"decoder_input_token_ids": [2, 3, 4, 5, 6]}, "give both or neither"),
        ({"image_bracket_token_ids": [2, 3]}, "num_image_tokens too"),
        ({"vision_config": ViTConfig(hidden_size=24), "num_image_tokens": 5, "image_feature_size": 10}, "of width 24"),
        ({"vision_config": BertConfig(), "num_image_tokens": 5, "image_feature_size": 10}, "sees no pictures"),
        ({"vision_config": {"model_type": "vitt"}, "num_image_tokens": 5, "image_feature_size": 10}, "type.*vitt"),
    ],
)
def test_wrong_values(tiny, fields, mend):
    with pytest.raises(ValueError, match=mend):
        tiny.config(**fields)


@pytest.mark.parametrize(
    "text_config, mend",
    [
        ({"model_type": "birt"}, "Unrecognized model type.*birt.*bert"),
        (ViTConfig(), "'vit', which reads no text: name an encoder such as bert"),
        (EfficientNetConfig(), "'efficientnet', which reads no text: name an encoder such as bert"),
        ("bert", "text_config"),
    ],
)
def test_text_models_that_are_none(text_config, mend):
    with pytest.raises(Exception, match=mend):
        LRSAConfig(text_config=text_config)


def test_vision_model_needs_its_measures(tiny):
    vision = tiny.image_side("vit")["vision_config"]
    with pytest.raises(ValueError, match="from_text_vision_pretrained"):
        LRSAConfig(text_config=tiny.text_config(), vision_config=vision)


def test_a_baseline_may_name_any_fusion(tiny):
    config = tiny.config(num_fusion_layers=0, fusion_position="input", fusion_gate=False)
    assert (config.num_fusion_blocks, config.num_rationale_depths) == (0, 0)


def test_more_queries_than_slots(tiny):
    with pytest.raises(ValueError, match="num_rationale_queries=5 slots, and this one has 4"):
        tiny.config(image="regions", num_fusion_layers=1, image_rationale_reader="queries", num_rationale_queries=5)


@pytest.mark.parametrize(
    "fields",
    [
        {"fusion_position": "middle"},
        {"fusion_directions": "rationale"},
        {"fusion_gate": "scalar"},
        {"rationale_encoder": "none"},
        {"image_rationale_reader": "image"},
        {"end_points_to": "middle"},
        {"decoder_pointer_input": "ids"},
        {"num_fusion_layers": "two"},
    ],
)
def test_unknown_choices_and_types(tiny, fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        tiny.config(**fields)


@pytest.mark.parametrize("position", ["before", "after"])
def test_fusion_outside_may_be_deeper_than_the_encoder(tiny, position):
    assert len(tiny.model(num_fusion_layers=3, fusion_position=position).model.encoder.fusion) == 3


@pytest.mark.parametrize("text, layers", [("bert", 4), ("bart", 3)])
def test_decoder_config_sizes_the_caches(tiny, text, layers):
    config = tiny.config(text, decoder_layers=4)
    assert config.get_text_config(decoder=True).num_hidden_layers == layers
    assert config.get_text_config().num_hidden_layers == 2
    assert len(LRSAForMABSA(config).get_decoder().layers) == layers


def random_batch(tiny, model, seed=0):
    return tiny.batch(tiny.mixed_posts(model, seed), labels=True)


def logits(tiny, model, posts_of=None, **changes):
    with torch.no_grad():
        return model(**random_batch(tiny, posts_of or model) | changes).logits


def trained_logits(tiny, model):
    torch.manual_seed(0)
    return model.train()(**random_batch(tiny, model)).logits


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# For each option: fields of two models, and a figure that must differ between them. Weights come from one seed.
def models(tiny, name, first, second, text="bert", image=None, **fields):
    return [tiny.model(text, image, **fields | {name: value}) for value in (first, second)]


def changes_logits(first, second, text="bert", image=None, same_weights=True, **fields):
    def check(tiny, name):
        one, two = models(tiny, name, first, second, text, image, **fields)
        if same_weights:
            two.load_state_dict(one.state_dict(), strict=False)
        assert not torch.allclose(logits(tiny, one), logits(tiny, two, posts_of=one), atol=1e-3)

    return check


def changes_training_logits(**fields):
    def check(tiny, name):
        zero = {"fusion_dropout": 0.0, "pointer_dropout": 0.0, "pointer_mlp_dropout": 0.0}
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        one, two = (tiny.model(**fields, **zero | {name: rate}, text_changes=still) for rate in (0.0, 0.5))
        for built in (one, two):  # the fresh decoder's own dropout is not what is looked at
            built.get_decoder().requires_grad_(False)
            for module in built.get_decoder().modules():
                for attribute in ("dropout", "activation_dropout"):
                    if isinstance(getattr(module, attribute, None), float):
                        setattr(module, attribute, 0.0)
        assert torch.equal(logits(tiny, one), logits(tiny, two))
        assert not torch.allclose(trained_logits(tiny, one), trained_logits(tiny, two), atol=1e-3)

    return check


def text_config_counts(tiny, name):
    small, large = (tiny.model(text_changes={"intermediate_size": size}) for size in (40, 80))
    assert parameters(large) > parameters(small)


def vision_config_counts(tiny, name):
    with_vision = tiny.model(image="vit")
    regions = tiny.model(num_image_tokens=5, image_feature_size=24)
    assert parameters(with_vision) - parameters(regions) == parameters(with_vision.model.encoder.vision_model)


def image_block_widens_the_source(tiny, name):
    for slots in (2, 7):
        model = tiny.model(num_image_tokens=slots, image_feature_size=10)
        inputs = random_batch(tiny, model)
        with torch.no_grad():
            states = model(**inputs).encoder_last_hidden_state
        assert states.shape[1] == slots + inputs["input_ids"].shape[1]
        assert model.config.max_text_length == tiny.POSITIONS - slots


def image_feature_size_counts(tiny, name):
    sizes = [parameters(tiny.model(num_image_tokens=4, image_feature_size=size)) for size in (10, 20)]
    assert sizes[1] - sizes[0] == 10 * tiny.HIDDEN


def freeze_vision_stops_gradients(tiny, name):
    frozen, free = models(tiny, name, True, False, image="vit")
    vision = free.model.encoder.vision_model
    assert trainable(free) - trainable(frozen) == parameters(vision) - parameters(vision.pooler) > 0


def rationale_encoder_counts(tiny, name):
    frozen, shared = models(tiny, name, "frozen", "shared", num_fusion_layers=1)
    assert parameters(frozen) - parameters(shared) == parameters(frozen.model.encoder.rationale_model)
    assert trainable(frozen) == trainable(shared)


def rationale_encoders_differ(tiny, name):
    rationale_encoder_counts(tiny, name)
    changes_logits("shared", "embeddings", num_fusion_layers=2)(tiny, name)
    assert tiny.config(num_fusion_layers=2, rationale_encoder="embeddings").num_rationale_depths == 1


def query_count(tiny, name):
    fields = {"image": "regions", "num_fusion_layers": 1, "image_rationale_reader": "queries"}
    one, three = models(tiny, name, 1, 3, **fields)
    assert parameters(three) - parameters(one) == 2 * tiny.HIDDEN


def decoder_layer_count(tiny, name):
    assert [len(m.get_decoder().layers) for m in models(tiny, name, 1, 4)] == [1, 4]


def decoder_config_shapes_the_decoder(tiny, name):
    given = BartConfig(d_model=tiny.HIDDEN, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=24)
    for value in (given, given.to_dict()):
        own, fresh = models(tiny, name, value, None)
        assert [layer.fc1.out_features for layer in own.get_decoder().layers] == [24]
        assert [layer.fc1.out_features for layer in fresh.get_decoder().layers] == [40] * 3
        assert own.config.get_text_config(decoder=True) is own.get_decoder().config


def shifts_targets(tiny, name):
    first, second = models(tiny, name, *((2, 4) if name == "num_special_targets" else (5, 8)))
    shift = second.config.pointer_offset - first.config.pointer_offset
    assert shift == (2 if name == "num_special_targets" else 3)
    ids = tiny.batch([tiny.post(first, 0)])
    with torch.no_grad():
        assert second(**ids).logits.shape[-1] - first(**ids).logits.shape[-1] == shift
        sequence = sample_aspect(second, ids)
    polarity = second.config.num_special_targets
    assert sequence[2] in range(polarity, polarity + 3)
    assert min(sequence[:2]) > second.config.pointer_offset  # column 0 is [CLS]


def sample_aspect(model, inputs):
    """The first triple of a sampled sequence that has one."""
    for seed in range(50):
        torch.manual_seed(seed)
        sequence = model.generate(**inputs, do_sample=True, max_new_tokens=4)[0, 1:].tolist()
        if len(sequence) == 4:
            return sequence
    raise AssertionError("no aspect in fifty samples")


def end_points_to_a_piece(tiny, name):
    for end, column in (("first", 1), ("last", 3)):
        model = tiny.model(end_points_to=end)
        inputs = {"input_ids": torch.tensor([[2, 9, 10, 11, 3]]), "word_ids": torch.tensor([[-1, 0, 0, 0, -1]])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        sequence = sample_aspect(model, inputs)
        assert sequence[:2] == [1 + model.config.pointer_offset, column + model.config.pointer_offset]


def initializer_range_scales(tiny, name):
    narrow, wide = models(tiny, name, 0.01, 0.2)
    for part in (
        "model.target_embeddings.weight",
        "pointer_head.source_mlp.0.weight",
        "model.decoder.layers.0.fc1.weight",
    ):
        assert narrow.get_parameter(part).std().item() == pytest.approx(0.01, rel=0.2)
        assert wide.get_parameter(part).std().item() == pytest.approx(0.2, rel=0.2)


def use_cache_returns_one(tiny, name):
    on, off = models(tiny, name, True, False)
    inputs = tiny.batch([tiny.post(on, 0)])
    with torch.no_grad():
        assert on(**inputs).past_key_values is not None
        assert off(**inputs).past_key_values is None


def bos_starts_training(tiny, name):
    model = tiny.model(num_special_targets=4, bos_token_id=3)
    assert model.prepare_decoder_input_ids_from_labels(torch.tensor([[9, 9, 4, 1]])).tolist() == [[3, 9, 9, 4]]


def eos_ends_sequences(tiny, name):
    model = tiny.model(num_special_targets=4, eos_token_id=2, pad_token_id=2)
    sequence = model.generate(**tiny.batch([tiny.post(model, 0)]), max_new_tokens=1)
    assert sequence.tolist() == [[0, 2]]


def pad_fills_labels(tiny, name):
    model = tiny.model(num_special_targets=4, pad_token_id=3)
    assert model.prepare_decoder_input_ids_from_labels(torch.tensor([[1, -100, -100]])).tolist() == [[0, 1, 3]]


def prefix_is_given(tiny, name):
    model = tiny.model(num_special_targets=4, decoder_prefix=[0, 3, 2])
    inputs = tiny.batch([tiny.post(model, 0)])
    assert model.generate(**inputs, max_new_tokens=1).tolist() == [[0, 3, 2, 1]]
    labels = torch.tensor([[9, 9, 4, 1]])
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[0, 3, 2, 9, 9, 4]]
    assert model(**inputs, labels=labels).logits.shape[1] == 4
    sequence = model.generate(**inputs, max_new_tokens=10)
    first = model.generate(**inputs, max_new_tokens=10, decoder_input_ids=sequence[:, :4])
    assert torch.equal(first, sequence)


def target_tokens_are_embedded(tiny, name):
    own, tied = models(tiny, name, None, [2, 3, 10, 11, 12])
    assert own.model.target_embeddings is not None and tied.model.target_embeddings is None
    rows = tied.get_input_embeddings().weight[[2, 3, 10, 11, 12]]
    assert torch.equal(tied.model.target_rows(), rows)
    inputs = tiny.batch([tiny.post(tied, 0)], labels=True)
    tied(**inputs).loss.backward()
    assert tied.get_input_embeddings().weight.grad[10:13].abs().sum(-1).min() > 0


def tokens_of_decoder_inputs_differ(tiny, name):
    tokens = [2, 3, 10, 11, 12]
    same, other = models(tiny, name, None, [2, 3, 11, 12, 10], target_token_ids=tokens)
    other.load_state_dict(same.state_dict())
    inputs = tiny.batch([tiny.post(same, 0)])
    for sequence, differs in (([0, 7], False), ([0, 7, 7, 3], True)):
        with torch.no_grad():
            last = [m(**inputs, decoder_input_ids=torch.tensor([sequence])).logits[0, -1] for m in (same, other)]
        assert torch.allclose(*last) is not differs


def special_targets_are_scored(tiny, name):
    for model, scored in zip(models(tiny, name, [1], [1, 2], num_special_targets=3), ([1], [1, 2])):
        row = logits(tiny, model)[0, 0, :3]
        assert (row > torch.finfo(row.dtype).min).nonzero().flatten().tolist() == scored


def brackets_stand_around_pictures(tiny, name):
    plain, bracketed = models(tiny, name, None, [20, 21], image="regions")
    assert (plain.config.image_block_size, bracketed.config.image_block_size) == (4, 6)
    assert bracketed.config.max_text_length == plain.config.max_text_length - 2
    inputs = tiny.batch([tiny.post(bracketed, 0, picture=True), tiny.post(bracketed, 1)])
    with torch.no_grad():
        outputs = bracketed.get_encoder()(**inputs)
        assert outputs.source_mask[:, :6].tolist() == [[True] * 6, [False] * 6]
        before = bracketed(**inputs).logits
        bracketed.get_input_embeddings().weight[20:22] += torch.randn(2, tiny.HIDDEN) * 3
        after = bracketed(**inputs).logits
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    torch.testing.assert_close(before[1], after[1])


def aom_inputs(tiny, model):
    inputs = random_batch(tiny, model)
    generator = torch.Generator().manual_seed(0)
    shape = inputs["input_ids"].shape
    nouns = torch.rand(shape, generator=generator) < 0.4
    nouns[0] = False
    edges = torch.rand(*shape, shape[1], generator=generator) < 0.2
    words = {"noun_mask": nouns, "sentiment_value": torch.randn(shape, generator=generator)}
    return inputs | words | {"dependency_matrix": (edges | edges.transpose(1, 2)).float()}


def aom_form_changes_logits(first, second, **fields):
    def check(tiny, name):
        one, two = models(tiny, name, first, second, image="regions", **fields)
        two.load_state_dict(one.state_dict(), strict=False)
        inputs = aom_inputs(tiny, one)
        with torch.no_grad():
            assert not torch.allclose(one(**inputs).logits, two(**inputs).logits, atol=1e-3)

    return check


def encoder_decoder_generates_from_a_prefix(tiny, name):
    assert tiny.config().is_encoder_decoder is True
    model = tiny.model()
    inputs = tiny.batch([tiny.post(model, 0)])
    assert len(model.generate(**inputs, max_new_tokens=1)[0]) == 2  # target ids alone, not the text


def positions_differ(tiny, name):
    for pair in (("before", "inside"), ("inside", "after"), ("after", "before")):
        changes_logits(*pair, num_fusion_layers=1)(tiny, name)
    for position in ("before", "inside", "after"):
        changes_logits(position, "input", num_fusion_layers=1, rationale_encoder="embeddings")(tiny, name)


def memory_is_read(tiny, name):
    changes_logits(False, True, **FUSED)(tiny, name)
    changes_logits(False, True, **AS_INPUT)(tiny, name)


def match_bias_draws(tiny, name):
    for model, start in zip(models(tiny, name, None, 2.5, **FUSED), (None, 2.5)):
        biases = [p for key, p in model.named_parameters() if key.endswith(".match_bias")]
        assert len(biases) == (0 if start is None else 4)  # of both directions of two layers
    fresh = LRSAForMABSA(tiny.config(fusion_match_bias=2.5, **FUSED)).state_dict()
    assert {value.unique().item() for key, value in fresh.items() if key.endswith(".match_bias")} == {2.5}


def match_embeddings_are_read(tiny, name):
    changes_logits(False, True, **FUSED)(tiny, name)
    changes_logits(False, True, fusion_position="after", **FUSED)(tiny, name)
    fresh = LRSAForMABSA(tiny.config(fusion_match_embeddings=True, **FUSED)).get_encoder().match_embeddings
    assert not any(table.any() for table in fresh.parameters())


def tagging_adds_a_loss(tiny, name):
    none, some = models(tiny, name, 0, 0.5)
    inputs = tiny.batch([tiny.post(some, 0)], labels=True)
    assert none.tagger is None and none.train()(**inputs).tagging_loss is None
    assert some.eval()(**inputs).tagging_loss is None
    assert some.train()(**inputs).tagging_loss > 0


FUSED = {"num_fusion_layers": 2}
OPTIONS = {
    "text_config": text_config_counts,
    "vision_config": vision_config_counts,
    "num_image_tokens": image_block_widens_the_source,
    "image_feature_size": image_feature_size_counts,
    "freeze_vision": freeze_vision_stops_gradients,
    "num_fusion_layers": changes_logits(2, 1),
    "fusion_position": positions_differ,
    "fusion_directions": changes_logits("both", "content", **FUSED),
    "fusion_gate": changes_logits(True, False, **FUSED),
    "fusion_dropout": changes_training_logits(**FUSED),
    "rationale_encoder": rationale_encoders_differ,
    "fusion_match_bias": match_bias_draws,
    "fusion_match_embeddings": match_embeddings_are_read,
    "rationale_memory": memory_is_read,
    "image_rationale_reader": changes_logits("text", "queries", image="regions", **FUSED),
    "num_rationale_queries": query_count,
    "decoder_layers": decoder_layer_count,
    "decoder_config": decoder_config_shapes_the_decoder,
    "decoder_pointer_input": changes_logits("states", "embeddings"),
    "num_special_targets": shifts_targets,
    "pointer_offset": shifts_targets,
    "end_points_to": end_points_to_a_piece,
    "pointer_dropout": changes_training_logits(),
    "pointer_mlp_dropout": changes_training_logits(),
    "tagging_weight": tagging_adds_a_loss,
    "initializer_range": initializer_range_scales,
    "use_cache": use_cache_returns_one,
    "bos_token_id": bos_starts_training,
    "eos_token_id": eos_ends_sequences,
    "pad_token_id": pad_fills_labels,
    "decoder_prefix": prefix_is_given,
    "target_token_ids": target_tokens_are_embedded,
    "decoder_input_token_ids": tokens_of_decoder_inputs_differ,
    "scored_special_targets": special_targets_are_scored,
    "image_bracket_token_ids": brackets_stand_around_pictures,
    "aspect_attention": aom_form_changes_logits(False, True),
    "pad_nouns_in_softmax": aom_form_changes_logits(False, True, aspect_attention=True),
    "num_graph_layers": aom_form_changes_logits(0, 2),
    "graph_proportion": aom_form_changes_logits(0.5, 2.0, num_graph_layers=2),
    "is_encoder_decoder": encoder_decoder_generates_from_a_prefix,
}


def test_every_option_has_a_check():
    own = [name for name in vars(LRSAConfig)["__annotations__"] if name not in ("model_type", "sub_configs_defaults")]
    assert set(own) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_changes_something(tiny, name):
    OPTIONS[name](tiny, name)


def test_id2label_sets_the_number_of_polarities(tiny):
    model = tiny.model(id2label={0: "love", 1: "hate", 2: "shrug", 3: "fear"})
    assert (model.config.num_labels, model.config.pointer_offset) == (4, 6)
    rng = random.Random(0)
    seen = set()
    for seed in range(200):
        torch.manual_seed(seed)
        inputs = tiny.batch([tiny.post(model, rng.randrange(50))])
        sequence = model.generate(**inputs, do_sample=True, max_new_tokens=4)[0, 1:].tolist()
        seen |= {sequence[2]} if len(sequence) == 4 else set()
        if len(seen) == 4:
            break
    assert seen == {2, 3, 4, 5}
