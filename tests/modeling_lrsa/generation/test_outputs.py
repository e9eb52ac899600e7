"""What `generate` returns: shapes, records, scores of targets."""

import pytest
import torch
from transformers import GenerationMixin

from .cases import EOS, KINDS, RECORD, close, follows_the_grammar, targets_of, triples_of


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
