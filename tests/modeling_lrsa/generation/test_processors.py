"""The grammar beside the processors, samplers, streamers and criteria of transformers."""

import json

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers.generation import BaseStreamer

from modeling_lrsa import LRSAForMABSA

from .cases import EOS, KINDS, MODES, RECORD, close, follows_the_grammar, targets_of, triples_of


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
