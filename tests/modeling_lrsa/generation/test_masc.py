"""The polarities of given spans."""

import pytest
import torch

from .cases import BOS, EOS, triples_of


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
