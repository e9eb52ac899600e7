import contextlib
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList

from modeling_lrsa.grammar_lrsa import LRSAGrammarLogitsProcessor, allowed_targets, is_valid, text_units


EOS = 1


def first_column(units, unit):
    return units.index(unit)


def last_column(units, unit):
    return len(units) - 1 - units[::-1].index(unit)


def is_sequence(targets, units, config, cap):
    """The contract in plain Python: whether `targets`, without the prefix, are a sequence of at most `cap` targets."""
    if EOS not in targets or len(targets) > cap:
        return False
    end = targets.index(EOS)
    if any(target != config.pad_token_id for target in targets[end + 1 :]) or end % 3:
        return False
    taken = set()
    for triple in range(0, end, 3):
        *pointers, polarity = targets[triple : triple + 3]
        if not config.num_special_targets <= polarity < config.num_special_targets + config.num_labels:
            return False
        start, stop = (pointer - config.pointer_offset for pointer in pointers)
        for column in (start, stop):
            if not 0 <= column < len(units) or units[column] < 0:
                return False
        end_column = first_column if config.end_points_to == "first" else last_column
        if start != first_column(units, units[start]) or stop != end_column(units, units[stop]):
            return False
        span = {unit for unit in units if units[start] <= unit <= units[stop]}
        if units[stop] < units[start] or span & taken:
            return False
        taken |= span
    return True


def next_targets(prefix, units, steps_left, config):
    """What may follow `prefix`, column by column."""
    if EOS in prefix:
        return {EOS}
    offset, step = config.pointer_offset, len(prefix) % 3
    polarities = set(range(config.num_special_targets, config.num_special_targets + config.num_labels))
    if step == 2:
        return polarities
    taken = set()
    for triple in range(0, len(prefix) - step, 3):
        a, b = units[prefix[triple] - offset], units[prefix[triple + 1] - offset]
        taken |= set(range(a, b + 1))
    present = sorted(set(units) - {-1})
    if step == 0:
        free = [first_column(units, unit) + offset for unit in present if unit not in taken]
        return {EOS} | (set(free) if steps_left >= 4 else set())
    start = units[prefix[-1] - offset]
    end_column = first_column if config.end_points_to == "first" else last_column
    return {
        end_column(units, unit) + offset
        for unit in present
        if unit >= start and not taken & set(range(start, unit + 1))
    }


@st.composite
def texts(draw, max_words=6):
    """Units of text columns: words of one to three columns between special tokens."""
    sizes = draw(st.lists(st.integers(1, 3), max_size=max_words))
    units = [-1]
    for word, size in enumerate(sizes):
        units += [word] * size
    return units + [-1] * draw(st.integers(1, 3))


@st.composite
def formats(draw):
    """Fields of the index format."""
    specials, labels = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    return {
        "num_special_targets": specials,
        "id2label": {i: f"polarity {i}" for i in range(labels)},
        "pointer_offset": specials + labels + draw(st.integers(0, 3)),
        "end_points_to": draw(st.sampled_from(["first", "last"])),
    }


def random_prefix(rng, units, length, config):
    targets = []
    while len(targets) < length:
        choices = next_targets(targets, units, 99, config)
        pointers = choices - {EOS}
        targets.append(rng.choice(sorted(pointers if pointers and rng.random() < 0.9 else choices)))
    return targets


@settings(deadline=None, max_examples=150)
@given(fields=formats(), rows=st.lists(texts(), min_size=1, max_size=4), data=st.data())
def test_allowed_targets_against_brute_force(tiny, fields, rows, data):
    config = tiny.config(**fields)
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    length, steps_left = data.draw(st.integers(0, 10)), data.draw(st.integers(1, 8))
    width = max(map(len, rows))
    rows = [row + [-1] * (width - len(row)) for row in rows]
    prefixes = [random_prefix(rng, row, length, config) for row in rows]
    targets = torch.tensor(prefixes, dtype=torch.long).view(len(rows), length)
    allowed = allowed_targets(targets, torch.tensor(rows), steps_left, config)
    assert allowed.shape == (len(rows), config.pointer_offset + width)
    for row, units, prefix in zip(allowed, rows, prefixes):
        assert set(row.nonzero().flatten().tolist()) == next_targets(prefix, units, steps_left, config)


@settings(deadline=None, max_examples=150)
@given(fields=formats(), units=texts(), data=st.data())
def test_is_valid_against_the_contract(tiny, fields, units, data):
    config = tiny.config(**fields)
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    rows, width = [], data.draw(st.integers(1, 11))
    for _ in range(6):
        row = []
        while len(row) < width:
            row.append(rng.choice(sorted(next_targets(row, units, width - len(row), config))))
        if rng.random() < 0.7:  # spoil it
            row[rng.randrange(width)] = rng.randrange(config.pointer_offset + len(units))
        rows.append(row)
    found = is_valid(torch.tensor(rows), torch.tensor([units] * 6), config).tolist()
    assert found == [is_sequence(row, units, config, width) for row in rows]


def test_text_units():
    mask = torch.tensor([[False, True, True, True, False], [False, True, True, False, False]])
    words = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, 1, -1, -1]])
    assert text_units(mask, words).tolist() == [[-1, 0, 0, 1, -1], [-1, 0, 1, -1, -1]]
    assert text_units(mask, None).tolist() == [[-1, 1, 2, 3, -1], [-1, 1, 2, -1, -1]]


@contextlib.contextmanager
def random_logits(model, seed, scale, eos_bias=0.0):
    """Every target, allowed or not, gets a logit at random."""
    generator = torch.Generator().manual_seed(seed)

    def forward(states, target_embeddings, source_keys, pointer_mask):
        width = model.config.pointer_offset + pointer_mask.shape[1]
        logits = scale * torch.randn(*states.shape[:2], width, generator=generator)
        logits[..., EOS] += eos_bias
        return logits

    model.pointer_head.forward = forward
    try:
        yield
    finally:
        del model.pointer_head.forward


MODES = {
    "greedy": {},
    "sample": {"do_sample": True},
    "sample 4": {"do_sample": True, "num_return_sequences": 4},
    "beam": {"num_beams": 4},
    "beam 4": {"num_beams": 4, "num_return_sequences": 4},
    "beam sample": {"num_beams": 4, "num_return_sequences": 2, "do_sample": True},
    "penalised beam": {"num_beams": 4, "length_penalty": 2.0, "repetition_penalty": 1.5, "early_stopping": True},
    "processed": {"do_sample": True, "top_k": 5, "top_p": 0.8, "temperature": 2.0, "no_repeat_ngram_size": 2},
}


def inputs_of(rows, with_words):
    lengths = [len(row) for row in rows]
    width = max(lengths)
    inputs = {
        "input_ids": torch.full((len(rows), width), 7),
        "attention_mask": torch.tensor([[1] * n + [0] * (width - n) for n in lengths]),
    }
    if with_words:
        inputs["word_ids"] = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    return inputs


def units_of(row, with_words):
    """Without words every column is a unit but the last, which ends the text."""
    return row if with_words else [*range(len(row) - 1), -1]


@pytest.fixture(scope="module")
def two_models(tiny):
    return {end: tiny.model(num_fusion_layers=0, end_points_to=end) for end in ("first", "last")}


@settings(deadline=None, max_examples=120)
@given(
    end=st.sampled_from(["first", "last"]),
    rows=st.lists(texts(), min_size=1, max_size=3),
    with_words=st.booleans(),
    mode=st.sampled_from(sorted(MODES)),
    cap=st.integers(1, 20),
    cap_name=st.sampled_from(["max_length", "max_new_tokens"]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    eos_bias=st.sampled_from([-100.0, -3.0, 0.0]),
    seed=st.integers(0, 10**6),
)
def test_every_generated_sequence_is_valid(
    two_models, end, rows, with_words, mode, cap, cap_name, scale, eos_bias, seed
):
    model, options = two_models[end], MODES[mode]
    cap += cap_name == "max_length"  # the prefix counts there, and transformers wants room for one target
    torch.manual_seed(seed)
    with random_logits(model, seed, scale, eos_bias):
        sequences = model.generate(**inputs_of(rows, with_words), **{cap_name: cap}, **options)
    targets = cap - (cap_name == "max_length")
    copies = options.get("num_return_sequences", 1)
    assert len(sequences) == len(rows) * copies
    for index, sequence in enumerate(sequences.tolist()):
        assert sequence[0] == 0
        assert is_sequence(sequence[1:], units_of(rows[index // copies], with_words), model.config, targets)


def test_every_word_can_be_reached(two_models):
    # With EOS dear, greedy decoding fills a text to its last word.
    model, row = two_models["first"], [-1, 0, 0, 1, 2, 3, 3, 4, -1]
    for seed in range(20):
        with random_logits(model, seed, 1.0, eos_bias=-100.0):
            sequence = model.generate(**inputs_of([row], True), max_new_tokens=40)[0].tolist()
            covered = set()
            for start, end in zip(sequence[1:-1:3], sequence[2:-1:3]):
                covered |= set(range(row[start - 5], row[end - 5] + 1))
            assert covered == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("cap, triples", [(1, 0), (2, 0), (3, 0), (4, 1), (6, 1), (7, 2), (9, 2), (10, 3)])
def test_a_triple_starts_only_where_it_fits(two_models, cap, triples):
    model, row = two_models["first"], [-1, 0, 1, 2, 3, 4, 5, -1]
    sizes = set()
    for seed in range(12):
        with random_logits(model, seed, 1.0, eos_bias=-100.0):
            sequence = model.generate(**inputs_of([row], True), max_new_tokens=cap)[0, 1:].tolist()
        sizes.add(sequence.index(EOS) // 3)
    assert max(sizes) == triples


@pytest.mark.parametrize("cap, number", [(1, 1), (3, 1), (4, 4), (20, 4)])
def test_more_beams_than_valid_sequences(two_models, cap, number):
    """A text of one word has four sequences: no aspect, or the word with one of three polarities."""
    model = two_models["first"]
    for seed in range(10):
        with random_logits(model, seed, 1.0):
            rows = model.generate(
                **inputs_of([[-1, 0, -1]], True), num_beams=8, num_return_sequences=8, max_new_tokens=cap
            )[:, 1:].tolist()
        assert all(is_sequence(row, [-1, 0, -1], model.config, cap) for row in rows)
        aspects = [row[0] != EOS for row in rows]
        assert sum(aspects) == number - 1 == len({tuple(row) for row, aspect in zip(rows, aspects) if aspect})
        # What is left over stands behind: at most the one sequence without aspect comes in between.
        assert not any(aspects[number:])


def test_sampled_sequences_may_be_equal(two_models):
    model = two_models["first"]

    def forward(states, target_embeddings, source_keys, pointer_mask):
        logits = torch.zeros(*states.shape[:2], model.config.pointer_offset + pointer_mask.shape[1])
        logits[..., EOS] = -1000.0
        logits[..., 2] = 1000.0
        return logits

    model.pointer_head.forward = forward
    try:
        rows = model.generate(
            **inputs_of([[-1, 0, -1]], True), do_sample=True, num_return_sequences=3, max_new_tokens=9
        ).tolist()
    finally:
        del model.pointer_head.forward
    assert rows == [[0, 6, 6, 2, EOS]] * 3


class Forbid(LogitsProcessor):
    def __init__(self, *targets):
        self.targets = list(targets)

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.targets] = -float("inf")
        return scores


class ForbidAll(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return torch.full_like(scores, -float("inf"))


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam 4"])
def test_grammar_comes_after_custom_processors(two_models, mode):
    model, row = two_models["first"], [-1, 0, 1, 1, 2, -1]
    copies = MODES[mode].get("num_return_sequences", 1)

    def generate(*processors):
        with random_logits(model, 0, 1.0, eos_bias=-3.0):
            rows = model.generate(
                **inputs_of([row], True),
                logits_processor=LogitsProcessorList(processors),
                max_new_tokens=10,
                **MODES[mode],
            )[:, 1:].tolist()
        assert len(rows) == copies and all(is_sequence(r, row, model.config, 10) for r in rows)
        return rows

    # EOS is allowed whenever nothing else is, whatever a processor says.
    assert all(r[0] != EOS for r in generate(Forbid(EOS)))
    assert all(r == [EOS] * len(r) for r in generate(ForbidAll()))
    assert all(
        r[2:-1:3] == [3] * (len(r[2:-1:3])) for r in generate(Forbid(2, 4)) if r[0] != EOS and EOS not in r[:-1]
    )
    pointers = range(model.config.pointer_offset, model.config.pointer_offset + len(row))
    assert all(r == [EOS] * len(r) for r in generate(Forbid(*pointers)))


@pytest.mark.parametrize("where", ["call", "generation_config"])
def test_grammar_can_be_turned_off(two_models, where):
    model, row = two_models["first"], [-1, 0, 1, 2, 3, -1]
    model.generation_config.constrained_decoding = where == "call"
    options = {"constrained_decoding": False} if where == "call" else {}
    try:
        with random_logits(model, 0, 1.0):
            free = model.generate(**inputs_of([row] * 3, True), max_new_tokens=12, **options)[:, 1:].tolist()
        assert not any(is_sequence(r, row, model.config, 12) for r in free)
    finally:
        model.generation_config.constrained_decoding = True
    with random_logits(model, 0, 1.0):
        held = model.generate(**inputs_of([row] * 3, True), max_new_tokens=12)[:, 1:].tolist()
    assert all(is_sequence(r, row, model.config, 12) for r in held)


def test_processor_counts_the_prefix(tiny):
    config = tiny.config()
    units = torch.tensor([[-1, 0, 1, -1]])
    scores = torch.zeros(1, config.pointer_offset + 4)
    for max_length, starts in ((4, 0), (5, 2)):
        grammar = LRSAGrammarLogitsProcessor(config, units, prefix_length=1, max_length=max_length)
        allowed = grammar(torch.zeros(1, 1, dtype=torch.long), scores)[0].isfinite()
        assert allowed[config.pointer_offset :].sum() == starts and allowed[EOS]


@settings(deadline=None, max_examples=60)
@given(units=texts(), seed=st.integers(0, 10**6), number=st.integers(0, 3))
def test_forced_spans(tiny, units, seed, number):
    config, rng = tiny.config(), random.Random(seed)
    whole = random_prefix(rng, units, 9, config)
    spans = [
        [a - config.pointer_offset, b - config.pointer_offset] for a, b in zip(whole[::3], whole[1::3]) if a != EOS
    ]
    spans = (spans[:number] + [[-1, -1]] * 3)[:3]
    given_spans = sum(a >= 0 for a, _ in spans)
    targets = []
    for step in range(10):
        prefix = torch.tensor([targets], dtype=torch.long).view(1, step)
        allowed = allowed_targets(prefix, torch.tensor([units]), 10 - step, config, torch.tensor([spans]))
        allowed = allowed[0].nonzero().flatten().tolist()
        if step % 3 == 2 and step < 3 * given_spans:
            assert allowed == [2, 3, 4]
        elif step < 3 * given_spans:
            assert allowed == [spans[step // 3][step % 3] + config.pointer_offset]
        else:
            assert allowed == [EOS]
        targets.append(rng.choice(allowed))
