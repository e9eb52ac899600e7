import copy
import json
import warnings

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
    GenerationConfig,
    ResNetModel,
    ViTModel,
)

from modeling_lrsa import LRSAConfig, LRSAForMABSA, LRSAModel
from modeling_lrsa.fusion_lrsa import LRSACrossAttention
from modeling_lrsa.generation_lrsa import DEFAULT_NEW_TOKENS


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
    for seed, beams in ((0, 1), (1, 3)):
        posts = tiny.mixed_posts(model, seed)
        inputs = tiny.batch(posts, labels=True)
        with torch.no_grad():
            together = model(**inputs)
        terms = 0.0
        rows = model.generate(**tiny.batch(posts), max_new_tokens=10, num_beams=beams).tolist()
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
            alone.pop("labels")
            sequence = model.generate(**alone, max_new_tokens=10, num_beams=beams)[0].tolist()
            assert rows[row] == sequence + [1] * (len(rows[row]) - len(sequence))
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


# --- generate


def test_cache_changes_nothing(tiny, kind):
    model = tiny.model(**kind, num_fusion_layers=1)
    inputs = tiny.batch(tiny.mixed_posts(model))
    for beams in (1, 4):
        options = {"max_new_tokens": 16, "num_beams": beams, "num_return_sequences": min(beams, 2)}
        with_cache, without = (model.generate(**inputs, use_cache=use, **options) for use in (True, False))
        assert torch.equal(with_cache, without)
        assert (with_cache[:, 1] >= model.config.pointer_offset).any()


def test_greedy_takes_the_best_allowed_target(tiny, kind):
    """Against the logits of one teacher-forced pass over the generated sequence."""
    model = tiny.model(**kind, num_fusion_layers=1)
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    output = model.generate(**inputs, max_new_tokens=16, return_dict_in_generate=True, output_scores=True)
    sequences = output.sequences
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=sequences[:, :-1]).logits
    for row, sequence in enumerate(sequences.tolist()):
        for step, target in enumerate(sequence[1 : sequence.index(1, 1) + 1]):
            scores = output.scores[step][row]
            torch.testing.assert_close(
                scores[scores.isfinite()], logits[row, step][scores.isfinite()], atol=1e-4, rtol=1e-4
            )
            assert scores.argmax().item() == target


def test_generate_with_inputs_left_out(tiny):
    model = tiny.model(image="regions", num_fusion_layers=1)
    ids = torch.randint(5, tiny.VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(0))
    whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=10)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=10), whole)
    assert torch.equal(model.generate(ids, max_new_tokens=10), whole)
    assert whole[:, 0].tolist() == [0, 0, 0]


def test_generate_from_embeddings(tiny):
    model = tiny.model()
    inputs = tiny.batch([tiny.post(model, seed) for seed in range(2)])
    want = model.generate(**inputs, max_new_tokens=10)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(model.generate(inputs_embeds=embeds, **inputs, max_new_tokens=10), want)


def test_default_cap_has_room_for_twenty_triples(tiny):
    assert DEFAULT_NEW_TOKENS == 61
    model = tiny.model(text_changes={"max_position_embeddings": 64})
    inputs = tiny.batch([tiny.post(model, 0, length=30)])
    model.model.target_embeddings.weight.data[1] = 0.0

    def forward(states, target_embeddings, source_keys, pointer_mask):
        logits = torch.zeros(*states.shape[:2], model.config.pointer_offset + pointer_mask.shape[1])
        logits[..., 1] = -10.0
        logits -= torch.arange(logits.shape[-1]) / 100  # the first column that may come
        return logits

    model.pointer_head.forward = forward
    words = inputs["word_ids"].max().item() + 1
    sequence = model.generate(**inputs)[0, 1:]
    assert len(sequence) == 3 * min(words, 20) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.generation_config.max_new_tokens = 7
        assert model.generate(**inputs).shape[1] == 8
        assert model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=4)).shape[1] == 5


def triples_of(sequence):
    targets = sequence[1 : sequence.index(1, 1)]
    return [targets[i : i + 3] for i in range(0, len(targets), 3)]


@pytest.mark.parametrize("beams", [1, 4])
def test_scores(tiny, beams):
    """Transition scores, sequence scores and the scores of predictions say the same."""
    model = tiny.model(num_fusion_layers=0)
    processor = tiny.processor(model)
    texts = [["i", "love", "the", "new", "cafe", "."], ["riverbend", "hall", "was", "awful"], ["a", "good", "phone"]]
    inputs = processor(text=texts, return_tensors="pt")
    output = model.generate(
        **inputs,
        num_beams=beams,
        num_return_sequences=min(beams, 2),
        length_penalty=0.0,
        max_new_tokens=13,
        return_dict_in_generate=True,
        output_scores=True,
    )
    beam_indices = getattr(output, "beam_indices", None)
    steps = output.sequences.shape[1] - 1
    plain = model.compute_transition_scores(output.sequences, output.scores, beam_indices)
    normal = model.compute_transition_scores(output.sequences, output.scores, beam_indices, normalize_logits=True)
    assert plain.shape == normal.shape == (3 * min(beams, 2), steps)
    if beams > 1:
        torch.testing.assert_close(plain.sum(-1), output.sequences_scores, atol=1e-5, rtol=1e-5)
    predictions = processor.post_process_mabsa(output, inputs)
    seen = 0
    for sequence, log, found in zip(output.sequences.tolist(), normal, predictions):
        triples = triples_of(sequence)
        spans = sorted((start, log[3 * i : 3 * i + 3].sum().exp().item()) for i, (start, *_) in enumerate(triples))
        assert len(found) == len(spans)
        for aspect, (_, score) in zip(found, spans):
            assert aspect["score"] == pytest.approx(score, rel=1e-4)
            assert 0 < aspect["score"] <= 1
            seen += 1
    assert seen >= 2


def test_transition_scores_against_transformers(tiny):
    """Where the vocabulary is as wide as transformers presumes, its own method agrees."""
    from transformers import GenerationMixin

    model = tiny.model(num_fusion_layers=0)
    inputs = tiny.batch([tiny.post(model, 0), tiny.post(model, 1)])
    output = model.generate(**inputs, num_beams=3, max_new_tokens=10, return_dict_in_generate=True, output_scores=True)
    own = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)

    class Wide:
        class config:
            @staticmethod
            def get_text_config():
                return type("Text", (), {"vocab_size": output.scores[0].shape[-1]})

    theirs = GenerationMixin.compute_transition_scores(Wide, output.sequences, output.scores, output.beam_indices)
    torch.testing.assert_close(own[:, : theirs.shape[1]], theirs)


def test_ids_of_a_tokenizer_never_become_target_ids(tiny, tmp_path):
    model = tiny.model(num_fusion_layers=0)
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=10)
    model.generation_config.eos_token_id = [102, 103]
    model.generation_config.bos_token_id = model.generation_config.decoder_start_token_id = 101
    model.generation_config.pad_token_id = 0
    assert torch.equal(model.generate(**inputs, max_new_tokens=10), want)
    given = GenerationConfig(eos_token_id=102, pad_token_id=0, decoder_start_token_id=101, max_new_tokens=10)
    assert torch.equal(model.generate(**inputs, generation_config=given), want)
    assert set(want[:, 1:].flatten().tolist()) <= set(range(1, 5 + inputs["input_ids"].shape[1]))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    assert [saved[name] for name in names] == [0, 1, 1, 0]


@pytest.mark.parametrize("text", ["bert", "bart"])
def test_no_generation_setting_of_bart_becomes_one_of_targets(tiny, text):
    """With the grammar off, id 2 (the first polarity) would be forced at the length cap."""
    assert tiny.model(text).generation_config.forced_eos_token_id is None


# --- MASC


def spans_of(posts, model):
    offset = model.config.pointer_offset
    rows = [[[a - offset, b - offset] for a, b, _ in triples_of([0, *post["labels"]])] for post in posts]
    longest = max(map(len, rows))
    return rows, torch.tensor([row + [[-1, -1]] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize("beams", [1, 4])
def test_masc_asks_the_polarity_of_the_given_spans(tiny, kind, beams):
    model = tiny.model(**kind, num_fusion_layers=1)
    posts = tiny.mixed_posts(model)
    rows, spans = spans_of(posts, model)
    inputs = tiny.batch(posts)
    assert len({len(row) for row in rows}) > 1
    sequences = model.generate(**inputs, aspect_spans=spans, num_beams=beams).tolist()
    polarities = []
    for row, sequence in zip(rows, sequences):
        triples = triples_of(sequence)
        offset = model.config.pointer_offset
        assert [[a - offset, b - offset] for a, b, _ in triples] == row
        assert set(sequence[3 * len(row) + 1 :]) == {1}
        polarities.append([polarity for *_, polarity in triples])
    assert {p for row in polarities for p in row} <= {2, 3, 4}
    if beams == 1:
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=torch.tensor(sequences)[:, :-1]).logits
        best = [[2 + logits[i, 3 * k + 2, 2:5].argmax().item() for k in range(len(row))] for i, row in enumerate(rows)]
        assert polarities == best


def test_masc_polarities_are_free(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, 0)]
    _, spans = spans_of(posts, model)
    found = set()
    torch.manual_seed(0)
    options = {"do_sample": True, "num_return_sequences": 40}
    for sequence in model.generate(**tiny.batch(posts), aspect_spans=spans, **options).tolist():
        found |= {polarity for *_, polarity in triples_of(sequence)}
    assert found == {2, 3, 4}


def test_masc_holds_without_the_grammar_and_past_a_cap(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, seed) for seed in range(4)]
    _, spans = spans_of(posts, model)
    want = model.generate(**tiny.batch(posts), aspect_spans=spans)
    assert torch.equal(model.generate(**tiny.batch(posts), aspect_spans=spans, constrained_decoding=False), want)
    model.generation_config.max_new_tokens = 3
    assert torch.equal(model.generate(**tiny.batch(posts), aspect_spans=spans), want)


def test_masc_with_no_span_in_a_row(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, seed) for seed in range(2)]
    _, spans = spans_of(posts, model)
    spans[1] = -1
    assert set(model.generate(**tiny.batch(posts), aspect_spans=spans)[1, 1:].tolist()) == {1}
    assert model.generate(**tiny.batch(posts), aspect_spans=spans[:, :0]).tolist() == [[0, 1]] * 2


def test_masc_with_more_beams_than_polarities(tiny):
    model = tiny.model(num_fusion_layers=0)
    inputs = tiny.batch([tiny.post(model, 0, length=6)])
    rows = model.generate(
        **inputs, aspect_spans=torch.tensor([[[1, 1]]]), num_beams=8, num_return_sequences=8
    ).tolist()
    assert sorted(rows[:3]) == [[0, 6, 6, polarity, 1] for polarity in (2, 3, 4)]
    assert rows[3:] == [[0, 1, 1, 1, 1]] * 5


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


def test_constrained_decoding_survives_saving(tiny, tmp_path):
    model = tiny.model()
    model.generation_config.constrained_decoding = False
    model.save_pretrained(tmp_path)
    assert LRSAForMABSA.from_pretrained(tmp_path).generation_config.constrained_decoding is False


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
        assert all(torch.equal(decoder[name], value) for name, value in text_model.decoder.state_dict().items())
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


def test_one_table_of_token_embeddings(tiny, tmp_path):
    model = tiny.model("bart")
    assert model.get_decoder().embed_tokens is model.get_input_embeddings()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.get_decoder().embed_tokens is loaded.get_input_embeddings()
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
