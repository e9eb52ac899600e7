"""`generate`, held to what transformers' own tests ask of a model that generates."""

import itertools
import json
import warnings

import pytest
import torch
from transformers import (
    CompileConfig,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    ModernBertConfig,
    StoppingCriteria,
)
from transformers.generation import BaseStreamer

from modeling_lrsa import LRSAConfig, LRSAForMABSA
from modeling_lrsa.generation_lrsa import DEFAULT_NEW_TOKENS
from modeling_lrsa.grammar_lrsa import is_valid, text_units


BOS, EOS = 0, 1
# Seeds at which a model writes sequences of many lengths.
KINDS = {
    "bart vit": {"text": "bart", "image": "vit", "num_fusion_layers": 2, "seed": 2},
    "bert regions": {
        "text": "bert",
        "image": "regions",
        "decoder_pointer_input": "embeddings",
        "end_points_to": "last",
        "seed": 6,
    },
    "text": {"text": "roberta", "fusion_position": "after", "end_points_to": "last", "seed": 2},
    "queries": {
        "text": "bart",
        "image": "regions",
        "image_rationale_reader": "queries",
        "decoder_pointer_input": "embeddings",
        "seed": 7,
    },
}
MODES = {
    "greedy": {},
    "beam": {"num_beams": 4, "num_return_sequences": 2},
    "sample": {"do_sample": True, "num_return_sequences": 2},
}
RECORD = {"return_dict_in_generate": True, "output_scores": True}


@pytest.fixture(scope="module")
def models(tiny):
    return {name: tiny.model(**fields) for name, fields in KINDS.items()}


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


@pytest.fixture
def model(models, name):
    return models[name]


@pytest.fixture(params=["greedy", "beam"])
def mode(request):
    return MODES[request.param]


def close(found, want, **tolerance):
    """Close where finite, and infinite in the same places."""
    assert torch.equal(found.isfinite(), want.isfinite())
    torch.testing.assert_close(
        found[found.isfinite()], want[want.isfinite()], **{"atol": 1e-5, "rtol": 1e-5} | tolerance
    )


def same(found, want):
    """Whether two outputs of `generate` are the same: sequences, their scores, the scores of every step."""
    assert torch.equal(found.sequences, want.sequences)
    assert len(found.scores) == len(want.scores)
    for one, other in zip(found.scores, want.scores):
        close(one, other)
    if "sequences_scores" in want:
        close(found.sequences_scores, want.sequences_scores)
        assert torch.equal(found.beam_indices, want.beam_indices)


def follows_the_grammar(model, inputs, sequences):
    pointer_mask = model.get_encoder().pointer_mask(inputs["attention_mask"].bool(), inputs["word_ids"])
    units = text_units(pointer_mask, inputs["word_ids"])
    units = units.repeat_interleave(len(sequences) // len(units), 0)
    return is_valid(sequences[:, 1:], units, model.config).all().item()


def targets_of(sequence):
    """The targets of a row in front of EOS."""
    sequence = sequence.tolist() if isinstance(sequence, torch.Tensor) else sequence
    return sequence[1 : sequence.index(EOS, 1)] if EOS in sequence[1:] else sequence[1:]


def triples_of(sequence):
    targets = targets_of(sequence)
    return [targets[i : i + 3] for i in range(0, len(targets), 3)]


# --- caches


def test_cache_changes_nothing(tiny, model, mode):
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"max_new_tokens": 13, **mode, **RECORD}
    want = model.generate(**inputs, use_cache=False, **options)
    assert len({len(targets_of(row)) for row in want.sequences}) > 2
    same(model.generate(**inputs, **options), want)
    assert want.past_key_values is None


def test_static_cache_changes_nothing(tiny, model, mode):
    # A later batch with a shorter source, and a lower and a higher cap, meets a cache of the same model.
    for seed, cap in ((0, 10), (1, 7), (2, 13)):
        inputs = tiny.batch(tiny.mixed_posts(model, seed)[seed:])
        options = {"max_new_tokens": cap, **mode, **RECORD}
        found = model.generate(**inputs, cache_implementation="static", **options)
        same(found, model.generate(**inputs, **options))
        cache = found.past_key_values
        decoder, slots = model.config.get_text_config(decoder=True), model.config.num_image_tokens or 0
        assert len(cache.self_attention_cache.layers) == len(cache.cross_attention_cache.layers)
        assert len(cache.self_attention_cache.layers) == decoder.num_hidden_layers == 3
        assert cache.cross_attention_cache.layers[0].keys.shape[2] == slots + inputs["input_ids"].shape[1]


@pytest.mark.parametrize("attention", [("eager", "sdpa"), ("sdpa", "eager")])
def test_static_cache_takes_the_masks_of_the_decoder(tiny, attention):
    model = tiny.model(**KINDS["bert regions"])
    model.set_attn_implementation({"": attention[0], "text_config": attention[1]})
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"max_new_tokens": 10, **RECORD}
    same(model.generate(**inputs, cache_implementation="static", **options), model.generate(**inputs, **options))


def test_static_cache_where_the_encoder_has_several_kinds_of_layers(tiny):
    torch.manual_seed(4)
    sizes = {"hidden_size": tiny.HIDDEN, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    text = ModernBertConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=tiny.POSITIONS, **sizes, **ids)
    assert len(set(text.layer_types)) > 1
    model = LRSAForMABSA(LRSAConfig(text_config=text, initializer_range=0.1)).eval()
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"min_new_tokens": 4, "max_new_tokens": 10, **RECORD}
    same(model.generate(**inputs, cache_implementation="static", **options), model.generate(**inputs, **options))


# --- a row does not depend on its batch


def test_each_row_generates_what_it_does_alone(tiny, model, mode):
    """Rows with any of picture and rationales; alone, what a row does not have is left out of the inputs."""
    posts = tiny.mixed_posts(model)
    together = model.generate(**tiny.batch(posts), max_new_tokens=13, **mode, **RECORD)
    copies = mode.get("num_return_sequences", 1)
    steps = model.compute_transition_scores(together.sequences, together.scores, together.get("beam_indices"))
    given = set()
    for row, post in enumerate(posts):
        inputs = tiny.batch([post])
        given.add(frozenset(inputs))
        alone = model.generate(**inputs, max_new_tokens=13, **mode, **RECORD)
        alone_steps = model.compute_transition_scores(alone.sequences, alone.scores, alone.get("beam_indices"))
        rows = slice(copies * row, copies * (row + 1))
        length = alone.sequences.shape[1]
        assert torch.equal(together.sequences[rows, :length], alone.sequences)
        assert (together.sequences[rows, length:] == EOS).all()
        close(steps[rows, : length - 1], alone_steps)
        if "sequences_scores" in alone:
            close(together.sequences_scores[rows], alone.sequences_scores)
    assert len(given) == (8 if model.config.has_images else 4)


def test_what_is_left_out_counts(tiny, model):
    """Pictures and rationales change what is generated, so that leaving them out is no matter of course."""
    posts = tiny.mixed_posts(model)
    names = ["image_rationale", "text_rationale"] + ["image"] * model.config.has_images
    whole = model.generate(**tiny.batch(posts), max_new_tokens=4, **RECORD).scores[0]
    for name in names:
        bare = [post | {name: None if name == "image" else []} for post in posts]
        found = model.generate(**tiny.batch(bare), max_new_tokens=4, **RECORD).scores[0]
        has = torch.tensor([bool(post[name]) if name != "image" else post[name] is not None for post in posts])
        moved = (found - whole).nan_to_num().abs().amax(-1)
        assert (moved[has] > 1e-4).all() and (moved[~has] < 1e-5).all()


def test_text_alone(tiny, model, mode):
    ids = torch.randint(5, tiny.VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 10, **mode}
    want = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    assert torch.equal(model.generate(ids, **options), want)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **options), want)
    assert (want[:, 0] == BOS).all() and (want[:, 1] > EOS).any()


def test_generate_from_encoder_outputs(tiny, model, mode):
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=10, **mode, **RECORD)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs)
    found = model.generate(encoder_outputs=encoded, word_ids=inputs["word_ids"], max_new_tokens=10, **mode, **RECORD)
    same(found, want)


def test_generate_goes_on_from_given_targets(tiny, model):
    """Given targets count as written: their words are taken, and a triple that they begin is ended."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    whole = model.generate(**inputs, max_new_tokens=13)
    longest = max(range(8), key=lambda row: len(targets_of(whole[row])))
    inputs = tiny.batch([tiny.mixed_posts(model)[longest]])
    whole = model.generate(**inputs, max_new_tokens=13)
    assert whole.shape[1] > 8
    for length in range(1, 8):
        rest = 14 - length
        assert torch.equal(model.generate(**inputs, decoder_input_ids=whole[:, :length], max_new_tokens=rest), whole)
    beams = model.generate(
        **inputs, decoder_input_ids=whole[:, :5], max_new_tokens=9, num_beams=8, num_return_sequences=8
    )
    assert (beams[:, :5] == whole[:, :5]).all() and len(beams.unique(dim=0)) == 8
    assert follows_the_grammar(model, inputs, beams)


# --- what is returned


@pytest.fixture(scope="module")
def eager_model(tiny):
    model = tiny.model(**KINDS["bert regions"])
    model.set_attn_implementation("eager")
    return model


def test_shapes_of_what_is_recorded(tiny, eager_model, mode):
    model = eager_model
    inputs = tiny.batch(tiny.mixed_posts(model))
    output = model.generate(
        **inputs,
        max_new_tokens=10,
        output_logits=True,
        output_attentions=True,
        output_hidden_states=True,
        **mode,
        **RECORD,
    )
    beams, heads, layers = mode.get("num_beams", 1), 2, 3
    rows, steps = 8 * beams, len(output.scores)
    text = inputs["input_ids"].shape[1]
    source, width = text + model.config.num_image_tokens, text + model.config.pointer_offset
    assert output.sequences.shape[0] == 8 * mode.get("num_return_sequences", 1)
    assert {len(output[name]) for name in ("logits", "decoder_attentions", "decoder_hidden_states")} == {steps}
    for step, (scores, logits) in enumerate(zip(output.scores, output.logits)):
        assert scores.shape == logits.shape == (rows, width)
        expected = logits if beams == 1 else logits.log_softmax(-1)
        allowed = scores.isfinite()
        close(scores[allowed], expected[allowed])
        shapes = [(rows, heads, 1, step + 1)] * layers
        assert [tuple(layer.shape) for layer in output.decoder_attentions[step]] == shapes
        assert [tuple(layer.shape) for layer in output.cross_attentions[step]] == [(rows, heads, 1, source)] * layers
        shapes = [(rows, 1, tiny.HIDDEN)] * (layers + 1)
        assert [tuple(layer.shape) for layer in output.decoder_hidden_states[step]] == shapes
    assert [tuple(layer.shape) for layer in output.encoder_attentions] == [(8, heads, source, source)] * 2
    assert [tuple(layer.shape) for layer in output.encoder_hidden_states] == [(8, source, tiny.HIDDEN)] * 3
    cache = output.past_key_values
    assert cache.self_attention_cache.layers[0].keys.shape == (rows, heads, steps, tiny.HIDDEN // heads)
    assert cache.cross_attention_cache.layers[0].keys.shape == (rows, heads, source, tiny.HIDDEN // heads)


def test_recording_changes_nothing(tiny, eager_model, mode):
    inputs = tiny.batch(tiny.mixed_posts(eager_model))
    want = eager_model.generate(**inputs, max_new_tokens=10, **mode)
    recorded = eager_model.generate(
        **inputs, max_new_tokens=10, output_attentions=True, output_hidden_states=True, **mode, **RECORD
    )
    assert isinstance(want, torch.Tensor) and torch.equal(recorded.sequences, want)


def test_num_return_sequences(tiny, model):
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    with pytest.raises(ValueError, match="num_return_sequences"):
        model.generate(**inputs, num_return_sequences=2)
    one = model.generate(**inputs, num_beams=5, max_new_tokens=10)
    five = model.generate(**inputs, num_beams=5, num_return_sequences=5, max_new_tokens=10, **RECORD)
    scores, rows = five.sequences_scores.view(8, 5), five.sequences.view(8, 5, -1)
    assert (scores.diff() <= 0).all()
    assert torch.equal(rows[:, 0, : one.shape[1]], one)
    assert all(len(post.unique(dim=0)) == 5 for post in rows)
    assert follows_the_grammar(model, inputs, five.sequences)
    torch.manual_seed(0)
    sampled = model.generate(**inputs, do_sample=True, num_return_sequences=3, max_new_tokens=10)
    assert len(sampled) == 24 and follows_the_grammar(model, inputs, sampled)


def test_greedy_takes_the_best_allowed_target(tiny, model):
    """Against the logits of one teacher-forced pass over the generated sequence."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    output = model.generate(**inputs, max_new_tokens=16, **RECORD)
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=output.sequences[:, :-1]).logits
    for row, sequence in enumerate(output.sequences):
        for step, target in enumerate([*targets_of(sequence), EOS]):
            scores = output.scores[step][row]
            close(scores[scores.isfinite()], logits[row, step][scores.isfinite()], atol=1e-4)
            assert scores.argmax().item() == target


# --- caps


def test_caps(tiny, model, mode):
    """`max_new_tokens` and `max_length`, in the call or in a `GenerationConfig`, go before the model's default."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    assert model.generation_config.max_new_tokens == DEFAULT_NEW_TOKENS
    assert model.generate(**inputs, **mode).shape[1] > 5
    for cap in (3, 4):
        want = model.generate(**inputs, max_new_tokens=cap, **mode)
        assert want.shape[1] <= cap + 1
        assert follows_the_grammar(model, inputs, want)
        assert torch.equal(model.generate(**inputs, max_length=cap + 1, **mode), want)
        for settings in ({"max_new_tokens": cap}, {"max_length": cap + 1}):
            config = GenerationConfig(**settings, **mode)
            assert torch.equal(model.generate(**inputs, generation_config=config), want)
        ids = inputs.copy().pop("input_ids")
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        assert torch.equal(model.generate(ids, GenerationConfig(max_new_tokens=cap, **mode), **rest), want)


def test_a_cap_in_the_call_goes_before_one_in_the_config(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=4)
    assert want.shape[1] == 5
    config = GenerationConfig(max_new_tokens=10)
    assert torch.equal(model.generate(**inputs, generation_config=config, max_length=5), want)
    with pytest.raises(ValueError, match="max_length"):
        model.generate(**inputs, max_length=1)


def test_least_lengths(tiny, model, mode):
    """EOS comes no sooner than asked, save where no word is left."""
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    for least in (4, 10):
        found = model.generate(**inputs, min_new_tokens=least, max_new_tokens=22, **mode)
        assert follows_the_grammar(model, inputs, found)
        assert torch.equal(model.generate(**inputs, min_length=least + 1, max_new_tokens=22, **mode), found)
        for index, row in enumerate(found):
            word_ids = posts[index * 8 // len(found)]["word_ids"]
            columns = [
                (a - model.config.pointer_offset, b - model.config.pointer_offset) for a, b, _ in triples_of(row)
            ]
            taken = sum(word_ids[b] - word_ids[a] + 1 for a, b in columns)
            assert len(targets_of(row)) >= least or taken == max(word_ids) + 1


def test_beams_that_can_be_long_enough_come_first(tiny, models):
    """Two words have room for two triples, but an aspect of both words leaves none for a second one."""
    model = models["text"]
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.ones(1, 4)}
    inputs["word_ids"] = torch.tensor([[-1, 0, 1, -1]])
    output = model.generate(
        **inputs, min_new_tokens=6, max_new_tokens=10, num_beams=40, num_return_sequences=40, **RECORD
    )
    lengths = [len(targets_of(row)) for row in output.sequences]
    # Two orders of two words with three polarities each; then one aspect of both words, which nothing may follow.
    assert lengths == [6] * 18 + [3] * 3 + [0] * 19
    assert (output.sequences_scores[:18] > -10).all() and (output.sequences_scores[18:21] < -1000).all()
    assert len(output.sequences[:21].unique(dim=0)) == 21


def test_default_cap_has_room_for_twenty_triples(tiny):
    assert DEFAULT_NEW_TOKENS == 61
    model = tiny.model(text_changes={"max_position_embeddings": 64})
    inputs = tiny.batch([tiny.post(model, 0, length=30)])

    def forward(states, target_embeddings, source_keys, pointer_mask):
        logits = torch.zeros(*states.shape[:2], model.config.pointer_offset + pointer_mask.shape[1])
        logits[..., EOS] = -10.0
        logits -= torch.arange(logits.shape[-1]) / 100  # the first column that may come
        return logits

    model.pointer_head.forward = forward
    words = inputs["word_ids"].max().item() + 1
    assert len(model.generate(**inputs)[0, 1:]) == 3 * min(words, 20) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.generation_config.max_new_tokens = 7
        assert model.generate(**inputs).shape[1] == 8
        assert model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=4)).shape[1] == 5


# --- other processors


class Recorder(LogitsProcessor):
    def __init__(self):
        self.scores = []

    def __call__(self, input_ids, scores):
        self.scores.append(scores)
        return scores


def test_own_processors_see_what_the_grammar_has_not_touched(tiny, model, mode):
    inputs = tiny.batch(tiny.mixed_posts(model))
    recorder = Recorder()
    output = model.generate(
        **inputs, max_new_tokens=7, logits_processor=[recorder], output_logits=True, **mode, **RECORD
    )
    assert len(recorder.scores) == len(output.logits)
    for seen, logits in zip(recorder.scores, output.logits):
        assert torch.equal(seen, logits.log_softmax(-1) if "num_beams" in mode else logits)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    [
        {"suppress_tokens": [3, 4]},
        {"begin_suppress_tokens": [EOS]},
        {"bad_words_ids": [[3], [4]]},
        {"sequence_bias": {(2,): 50.0, (EOS,): -50.0}},
        {"prefix_allowed_tokens_fn": lambda post, targets: [EOS, 2, *range(5, 17)]},
        {"repetition_penalty": 3.0, "exponential_decay_length_penalty": (2, 1.5), "no_repeat_ngram_size": 2},
        {"renormalize_logits": True, "remove_invalid_values": True, "suppress_tokens": [4]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_grammar_after_the_processors_of_transformers(tiny, models, options, mode):
    model = models["queries"]
    inputs = tiny.batch(tiny.mixed_posts(model))
    torch.manual_seed(0)
    plain = model.generate(**inputs, max_new_tokens=13, **MODES[mode])
    torch.manual_seed(0)
    found = model.generate(**inputs, max_new_tokens=13, **MODES[mode], **options)
    assert not torch.equal(found, plain)
    assert follows_the_grammar(model, inputs, found)
    polarities = {polarity for row in found for *_, polarity in triples_of(row)}
    if options.keys() & {"suppress_tokens", "bad_words_ids", "sequence_bias", "prefix_allowed_tokens_fn"}:
        assert polarities and polarities <= ({2, 3} if "renormalize_logits" in options else {2})
    if options.keys() & {"begin_suppress_tokens", "sequence_bias"}:
        assert (found[:, 1] != EOS).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_triple_that_processors_break_costs_no_other(tiny, models, mode):
    """Where a processor forbids every end from the second triple on, the first triple stays."""

    class OneTriple(LogitsProcessor):
        def __call__(self, input_ids, scores):
            scores = scores.clone()
            scores[:, 1 if input_ids.shape[1] < 5 else slice(5, None)] = -float("inf")
            return scores if input_ids.shape[1] != 4 else scores.index_fill(1, torch.tensor([1]), -float("inf"))

    model = models["text"]
    inputs = tiny.batch(tiny.mixed_posts(model))
    found = model.generate(**inputs, max_new_tokens=13, logits_processor=[OneTriple()], **MODES[mode])
    assert all(len(targets_of(row)) in (3, 4) and targets_of(row)[2] in (2, 3, 4) for row in found)


# --- sampling


def test_sampling_among_the_best_one_is_greedy(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=13)
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert torch.equal(model.generate(**inputs, max_new_tokens=13, do_sample=True, **options), want)


def test_sampling_is_reproducible_and_valid(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model))
    for options in ({"top_k": 3}, {"top_p": 0.7, "temperature": 2.0}, {"num_beams": 3}):
        rows = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            rows.append(model.generate(**inputs, do_sample=True, max_new_tokens=10, **options))
            assert follows_the_grammar(model, inputs, rows[-1])
        assert torch.equal(rows[0], rows[1])
        assert rows[0].shape != rows[2].shape or not torch.equal(rows[0], rows[2])


# --- against all sequences there are


def all_sequences(word_ids, config, cap):
    """Every sequence of at most `cap` targets, EOS included, that a text can have."""
    columns = {word: [c for c, w in enumerate(word_ids) if w == word] for word in set(word_ids) - {-1}}
    ends = 0 if config.end_points_to == "first" else -1
    spans = [
        (columns[a][0] + config.pointer_offset, columns[b][ends] + config.pointer_offset, set(range(a, b + 1)))
        for a, b in itertools.combinations_with_replacement(sorted(columns), 2)
    ]
    polarities = range(config.num_special_targets, config.num_special_targets + config.num_labels)

    def extend(targets, taken):
        yield [*targets, EOS]
        if len(targets) + 4 <= cap:
            for start, end, words in spans:
                if not words & taken:
                    for polarity in polarities:
                        yield from extend([*targets, start, end, polarity], taken | words)

    return list(extend([], set()))


def log_probabilities(model, inputs, sequences):
    """Of every sequence of one text, by teacher forcing: each step's log-softmax of the raw logits."""
    width = max(map(len, sequences))
    targets = torch.tensor([sequence + [EOS] * (width - len(sequence)) for sequence in sequences])
    decoder_inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=BOS)
    repeated = {name: tensor.expand(len(sequences), *tensor.shape[1:]) for name, tensor in inputs.items()}
    with torch.no_grad():
        steps = model(**repeated, decoder_input_ids=decoder_inputs).logits.log_softmax(-1)
    return steps, steps.gather(-1, targets.unsqueeze(-1)).squeeze(-1), targets


@pytest.fixture
def short_post(tiny, model):
    """A post whose text has three words, the second of two columns, with all that the model reads."""
    post = tiny.post(model, 3, length=4, picture=model.config.has_images, image_rationale=4, text_rationale=3)
    return post | {"word_ids": [-1, 0, 1, 1, 2, -1]}


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
def test_beam_search_is_exhaustive_search(tiny, model, short_post, length_penalty):
    inputs = tiny.batch([short_post])
    sequences = all_sequences(short_post["word_ids"], model.config, cap=7)
    assert len(sequences) == 1 + 18 + 90
    _, chosen, _ = log_probabilities(model, inputs, sequences)
    ranking = []
    for sequence, steps in zip(sequences, chosen):
        score = steps[: len(sequence)].sum().item() / len(sequence) ** length_penalty
        ranking.append((score, [BOS, *sequence, *[EOS] * (7 - len(sequence))]))
    ranking.sort(reverse=True)
    output = model.generate(
        **inputs,
        num_beams=128,
        num_return_sequences=128,
        max_new_tokens=7,
        length_penalty=length_penalty,
        early_stopping="never",
        **RECORD,
    )
    assert output.sequences[:109].tolist() == [sequence for _, sequence in ranking]
    close(output.sequences_scores[:109], torch.tensor([score for score, _ in ranking]))
    # Beyond them there is nothing: EOS alone, at no step, and marked by transformers as impossible.
    assert output.sequences[109:].tolist() == [[BOS] + [EOS] * 7] * 19
    assert (output.beam_indices[109:] == -1).all() and (output.sequences_scores[109:] < -1e8).all()
    # The best come out with as many beams as there ever are open triples, at a time.
    best = model.generate(
        **inputs, num_beams=30, max_new_tokens=7, length_penalty=length_penalty, early_stopping="never"
    )
    assert best[0].tolist() == ranking[0][1][: best.shape[1]]


def test_beam_search_over_given_spans_is_exhaustive_search(tiny, model, short_post):
    inputs, offset = tiny.batch([short_post]), model.config.pointer_offset
    last = 2 if model.config.end_points_to == "first" else 3
    spans = torch.tensor([[[2, last], [4, 4], [-1, -1]]])
    sequences = [
        [2 + offset, last + offset, one, 4 + offset, 4 + offset, two, EOS]
        for one, two in itertools.product((2, 3, 4), repeat=2)
    ]
    _, chosen, _ = log_probabilities(model, inputs, sequences)
    ranking = sorted(zip((chosen.sum(-1) / 7).tolist(), sequences), reverse=True)
    output = model.generate(**inputs, aspect_spans=spans, num_beams=12, num_return_sequences=12, **RECORD)
    assert [targets_of(row) + [EOS] for row in output.sequences[:9]] == [sequence for _, sequence in ranking]
    close(output.sequences_scores[:9], torch.tensor([score for score, _ in ranking]))
    assert (output.sequences[9:, 1:] == EOS).all()


def test_renormalised_scores_make_a_distribution(tiny, model, short_post):
    """With `renormalize_logits` the probabilities of all sequences that the grammar allows sum to one."""
    output = model.generate(
        **tiny.batch([short_post]),
        num_beams=128,
        num_return_sequences=128,
        max_new_tokens=7,
        length_penalty=0.0,
        early_stopping="never",
        renormalize_logits=True,
        **RECORD,
    )
    assert output.sequences_scores.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_samples_follow_the_distribution_of_the_grammar(tiny, models):
    """The logits of a step, softmaxed over what is allowed."""
    model = models["queries"]
    post = tiny.post(model, 3, length=2, picture=True, text_rationale=3) | {"word_ids": [-1, 0, 1, -1]}
    inputs = tiny.batch([post])
    sequences = all_sequences(post["word_ids"], model.config, cap=4)
    assert len(sequences) == 10
    logits, _, targets = log_probabilities(model, inputs, sequences)
    probabilities = dict.fromkeys(map(tuple, targets.tolist()), 1.0)
    for row, sequence in enumerate(probabilities):
        for step in range(4):
            others = sorted({other[step] for other in probabilities if other[:step] == sequence[:step]})
            allowed = logits[row, step, others].softmax(-1)
            probabilities[sequence] *= allowed[others.index(sequence[step])].item()
    assert sum(probabilities.values()) == pytest.approx(1.0)
    torch.manual_seed(0)
    number = 4000
    rows = model.generate(**inputs, do_sample=True, num_return_sequences=number, max_new_tokens=4, top_k=0)
    found = [tuple(row) for row in rows[:, 1:].tolist()]
    for sequence, probability in probabilities.items():
        spread = (number * probability * (1 - probability)) ** 0.5
        assert abs(found.count(sequence) - number * probability) < 4 * spread + 1


# --- scores of targets


def test_transition_scores_of_greedy_search(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model))
    output = model.generate(**inputs, max_new_tokens=13, **RECORD)
    plain = model.compute_transition_scores(output.sequences, output.scores)
    normal = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    for row, sequence in enumerate(output.sequences[:, 1:].tolist()):
        for step, target in enumerate(sequence):
            scores = output.scores[step][row]
            assert plain[row, step] == scores[target]
            assert normal[row, step].item() == pytest.approx((scores[target] - scores.logsumexp(-1)).item(), abs=1e-5)
    assert (normal <= 0).all() and (normal[:, 0] < 0).all()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7, -0.5])
def test_transition_scores_sum_to_those_of_the_sequences(tiny, model, length_penalty):
    inputs = tiny.batch(tiny.mixed_posts(model))
    output = model.generate(
        **inputs, max_new_tokens=13, num_beams=4, num_return_sequences=3, length_penalty=length_penalty, **RECORD
    )
    steps = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    lengths = (steps < 0).sum(-1)
    assert lengths.tolist() == [len(targets_of(row)) + 1 for row in output.sequences]
    close(steps.sum(-1) / lengths**length_penalty, output.sequences_scores, atol=1e-4, rtol=1e-4)


def test_transition_scores_against_transformers(tiny, model):
    """Where the vocabulary is as wide as transformers presumes, its own method agrees."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    output = model.generate(**inputs, num_beams=3, max_new_tokens=10, **RECORD)

    class Wide:
        class config:
            @staticmethod
            def get_text_config():
                return type("Text", (), {"vocab_size": output.scores[0].shape[-1]})

    given = (output.sequences, output.scores, output.beam_indices)
    for normalize in (False, True):
        own = model.compute_transition_scores(*given, normalize_logits=normalize)
        theirs = GenerationMixin.compute_transition_scores(Wide, *given, normalize_logits=normalize)
        torch.testing.assert_close(own[:, : theirs.shape[1]], theirs)


@pytest.mark.parametrize("beams", [1, 4])
def test_scores_of_predictions(tiny, beams):
    """What a prediction scores is the product of the probabilities of its three targets."""
    model = tiny.model(num_fusion_layers=0)
    processor = tiny.processor(model)
    texts = [["i", "love", "the", "new", "cafe", "."], ["riverbend", "hall", "was", "awful"], ["a", "good", "phone"]]
    inputs = processor(text=texts, return_tensors="pt")
    output = model.generate(**inputs, num_beams=beams, num_return_sequences=min(beams, 2), max_new_tokens=13, **RECORD)
    given = (output.sequences, output.scores, output.get("beam_indices"))
    steps = model.compute_transition_scores(*given, normalize_logits=True)
    predictions = processor.post_process_mabsa(output, inputs)
    seen = 0
    for sequence, log, found in zip(output.sequences, steps, predictions):
        triples = triples_of(sequence)
        spans = sorted((start, log[3 * i : 3 * i + 3].sum().exp().item()) for i, (start, *_) in enumerate(triples))
        assert len(found) == len(spans)
        for aspect, (_, score) in zip(found, spans):
            assert aspect["score"] == pytest.approx(score, rel=1e-4)
            assert 0 < aspect["score"] <= 1
            seen += 1
    assert seen >= 2


# --- what else `generate` takes


def test_as_a_seq2seq_trainer_calls_it(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    labels = inputs.pop("labels")
    found = model.generate(**inputs, max_length=labels.shape[1], num_beams=2, synced_gpus=False)
    assert torch.equal(found, model.generate(**inputs, max_new_tokens=labels.shape[1] - 1, num_beams=2))
    assert found.dtype == torch.long and follows_the_grammar(model, inputs, found)
    with pytest.raises(ValueError, match="not used by the model"):
        model.generate(**inputs, gold=labels)


def test_streamer(tiny, model):
    class Streamer(BaseStreamer):
        def __init__(self):
            self.targets, self.ended = [], False

        def put(self, value):
            assert not self.ended
            self.targets += value.flatten().tolist()

        def end(self):
            self.ended = True

    for post in tiny.mixed_posts(model)[:3]:
        streamer, inputs = Streamer(), tiny.batch([post])
        found = model.generate(**inputs, max_new_tokens=13, streamer=streamer)
        assert streamer.targets == found[0].tolist() and streamer.ended
    with pytest.raises(ValueError, match="streamer"):
        model.generate(**inputs, num_beams=2, streamer=Streamer())


class StopAt(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length, dtype=torch.bool)


@pytest.mark.parametrize("length", [2, 4, 6])
def test_stopping_criteria(tiny, model, length):
    """What was written when a criterion stopped it is returned, be it in the midst of a triple."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    whole = model.generate(**inputs, max_new_tokens=13)
    stopped = model.generate(**inputs, max_new_tokens=13, stopping_criteria=[StopAt(length)])
    assert torch.equal(stopped, whole[:, :length])
    beams = model.generate(**inputs, max_new_tokens=13, num_beams=3, stopping_criteria=[StopAt(length)], **RECORD)
    steps = model.compute_transition_scores(beams.sequences, beams.scores, beams.beam_indices)
    assert beams.sequences.shape[1] == length
    assert any(EOS not in row[1:] for row in beams.sequences.tolist())
    close(steps.sum(-1) / (steps < 0).sum(-1), beams.sequences_scores)


def test_assisted_generation_is_greedy(tiny, model, name):
    inputs = tiny.batch([tiny.mixed_posts(model)[7]])
    options = {"max_new_tokens": 13, "min_new_tokens": 7, **RECORD}
    want = model.generate(**inputs, **options)
    for assistant in (tiny.model(**KINDS[name] | {"seed": 9}), model):
        found = model.generate(**inputs, assistant_model=assistant, **options)
        assert torch.equal(found.sequences, want.sequences)
        for one, other in zip(found.scores, want.scores):
            close(one, other)


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


def test_constrained_decoding_survives_saving(tiny, tmp_path):
    model = tiny.model()
    model.generation_config.constrained_decoding = False
    model.save_pretrained(tmp_path)
    assert LRSAForMABSA.from_pretrained(tmp_path).generation_config.constrained_decoding is False


# --- torch.compile


def counting_backend():
    """A backend that compiles nothing, and the list of the graphs that it was given."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    return backend, graphs


ONE_LAYER = {"bart vit": {"text_changes": {"decoder_layers": 1}}, "bert regions": {"decoder_layers": 1}}


def batches_of(tiny, model, lengths):
    """Batches of two posts of given lengths, each with other inputs left out."""
    for index, pair in enumerate(lengths):
        yield tiny.batch(
            [
                tiny.post(
                    model,
                    10 * index + row,
                    length=length,
                    picture=index % 2 == 0,
                    image_rationale=3 + index if index % 3 == 0 else 0,
                    text_rationale=2 + row if index in (0, 3) else 0,
                )
                for row, length in enumerate(pair)
            ]
        )


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["bart vit", "bert regions"])
def test_decode_step_compiles_once_for_each_source_length(tiny, fresh_dynamo, name):
    """With a static cache, in one graph; whatever of picture and rationales a batch has."""
    model = tiny.model(**KINDS[name], **ONE_LAYER[name])
    backend, graphs = counting_backend()
    settings = CompileConfig(backend=backend, mode=None, fullgraph=True, dynamic=False)
    settings._compile_all_devices = True
    options = {"max_new_tokens": 10, "min_new_tokens": 7}
    counts = []
    for inputs in batches_of(tiny, model, [(9, 7), (9, 4), (8, 9), (6, 5), (6, 6), (9, 9)]):
        want = model.generate(**inputs, **options)
        found = model.generate(**inputs, **options, cache_implementation="static", compile_config=settings)
        assert torch.equal(found, want) and found.shape[1] > 7
        counts.append(len(graphs))
    assert counts == [1, 1, 1, 2, 2, 2]


def test_compiled_forward_with_a_growing_cache(tiny, fresh_dynamo):
    """Prefill, first step and later steps are three graphs, which serve every length of source and targets."""
    model = tiny.model(**KINDS["bert regions"], decoder_layers=1)
    compiled = tiny.model(**KINDS["bert regions"], decoder_layers=1)
    backend, graphs = counting_backend()
    compiled.forward = torch.compile(compiled.forward, backend=backend, dynamic=True)
    for inputs in batches_of(tiny, model, [(9, 7), (9, 4), (6, 5), (11, 8)]):
        options = {"max_new_tokens": 7, "min_new_tokens": 4, "num_beams": 2}
        assert torch.equal(compiled.generate(**inputs, **options), model.generate(**inputs, **options))
        assert len(graphs) == 3


# --- MASC


def spans_of(posts, model):
    offset = model.config.pointer_offset
    rows = [[[a - offset, b - offset] for a, b, _ in triples_of([0, *post["labels"]])] for post in posts]
    longest = max(map(len, rows))
    return rows, torch.tensor([row + [[-1, -1]] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize("beams", [1, 4])
def test_masc_asks_the_polarity_of_the_given_spans(tiny, model, beams):
    posts = tiny.mixed_posts(model)
    rows, spans = spans_of(posts, model)
    inputs = tiny.batch(posts)
    assert len({len(row) for row in rows}) > 1
    sequences = model.generate(**inputs, aspect_spans=spans, num_beams=beams)
    polarities = []
    for row, sequence in zip(rows, sequences.tolist()):
        triples = triples_of(sequence)
        offset = model.config.pointer_offset
        assert [[a - offset, b - offset] for a, b, _ in triples] == row
        assert set(sequence[3 * len(row) + 1 :]) == {EOS}
        polarities.append([polarity for *_, polarity in triples])
    assert {p for row in polarities for p in row} <= {2, 3, 4}
    if beams == 1:
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=sequences[:, :-1]).logits
        best = [[2 + logits[i, 3 * k + 2, 2:5].argmax().item() for k in range(len(row))] for i, row in enumerate(rows)]
        assert polarities == best


def test_masc_polarities_are_free(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, 0)]
    _, spans = spans_of(posts, model)
    torch.manual_seed(0)
    options = {"do_sample": True, "num_return_sequences": 40}
    sequences = model.generate(**tiny.batch(posts), aspect_spans=spans, **options)
    assert {polarity for row in sequences for *_, polarity in triples_of(row)} == {2, 3, 4}


def test_masc_holds_without_the_grammar_and_past_a_cap(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, seed) for seed in range(4)]
    _, spans = spans_of(posts, model)
    inputs = tiny.batch(posts)
    want = model.generate(**inputs, aspect_spans=spans)
    assert torch.equal(model.generate(**inputs, aspect_spans=spans, constrained_decoding=False), want)
    assert torch.equal(model.generate(**inputs, aspect_spans=spans, max_length=3), want)
    model.generation_config.max_new_tokens = 3
    assert torch.equal(model.generate(**inputs, aspect_spans=spans), want)


def test_masc_with_no_span_in_a_row(tiny):
    model = tiny.model(num_fusion_layers=0)
    posts = [tiny.post(model, seed) for seed in range(2)]
    _, spans = spans_of(posts, model)
    spans[1] = -1
    assert set(model.generate(**tiny.batch(posts), aspect_spans=spans)[1, 1:].tolist()) == {EOS}
    assert model.generate(**tiny.batch(posts), aspect_spans=spans[:, :0]).tolist() == [[BOS, EOS]] * 2
