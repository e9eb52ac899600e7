"""Beam search and sampling against all sequences there are."""

import itertools

import pytest
import torch

from .cases import BOS, EOS, RECORD, close, targets_of


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
