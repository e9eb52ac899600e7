import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_lrsa.configuration_lrsa import LRSAConfig
from modeling_lrsa.grammar_lrsa import allowed_targets, is_valid, text_units
from processing import IndexFormat, LRSAProcessor, split_words


LABELS = {
    3: ["positive", "neutral", "negative"],
    5: ["awful", "bad", "so-so", "good", "great"],
}
SETTINGS = [(specials, labels, end) for specials in (2, 3) for labels in LABELS for end in ("first", "last")]


@pytest.fixture(scope="module")
def processor_of(tokenizer):
    """Makes the processor, and the model configuration of the same index format."""

    def make(specials: int, labels: int, end_points_to: str) -> tuple[LRSAProcessor, LRSAConfig]:
        values = {
            "num_special_targets": specials,
            "id2label": dict(enumerate(LABELS[labels])),
            "end_points_to": end_points_to,
        }
        return LRSAProcessor(None, tokenizer, **values), LRSAConfig(**values)

    made = {setting: make(*setting) for setting in SETTINGS}
    return made.__getitem__


def draw_aspects(data, spans_of, count: int, labels: list[str]) -> list[tuple[int, int, str]]:
    return [(*span, data.draw(st.sampled_from(labels))) for span in data.draw(spans_of(count))]


def walk_gold(gold: torch.Tensor, batch, config: LRSAConfig, spans: torch.Tensor | None = None):
    """Holds each step of gold sequences (rows, length) against the grammar."""
    units = text_units(batch["word_ids"] >= 0, batch["word_ids"])
    for step in range(gold.shape[1]):
        allowed = allowed_targets(gold[:, :step], units, gold.shape[1] - step, config, spans)
        assert allowed.gather(1, gold[:, step : step + 1]).all(), f"step {step} of {gold.tolist()}"


def prefixed(labels: torch.Tensor, specials: int) -> torch.Tensor:
    """What `generate` returns: the prefix in front, EOS as padding."""
    prefix = torch.tensor([[0] + [2] * (2 * (specials - 2))])
    return torch.cat([prefix.expand(len(labels), -1), labels.masked_fill(labels == -100, 1)], dim=1)


@pytest.mark.parametrize("setting", SETTINGS)
@given(data=st.data())
def test_words_to_targets_and_back(any_words, spans_of, processor_of, setting, data):
    processor, config = processor_of(setting)
    words = data.draw(any_words)
    aspects = draw_aspects(data, spans_of, len(words), LABELS[setting[1]])
    gold = [{"start": start, "end": end, "polarity": polarity} for start, end, polarity in aspects]

    batch = processor(text=[words], aspects=[gold], return_tensors="pt")
    ids, word_ids = batch["input_ids"][0], batch["word_ids"][0]
    # Every word has columns, in order; the special tokens are the template's and no word's.
    assert sorted(set(word_ids.tolist()) - {-1}) == list(range(len(words)))
    assert word_ids[word_ids >= 0].tolist() == sorted(word_ids[word_ids >= 0].tolist())
    assert word_ids[0] == word_ids[-1] == -1 and (word_ids[1:-1] >= 0).all()
    special = set(processor.tokenizer.all_special_ids) - {processor.tokenizer.unk_token_id}
    assert not special & set(ids[word_ids >= 0].tolist())

    walk_gold(batch["labels"], batch, config)
    found = processor.post_process_mabsa(prefixed(batch["labels"], setting[0]), batch)[0]
    assert [(a["word_start"], a["word_end"], a["polarity"]) for a in found] == sorted(aspects)
    for aspect in found:
        assert aspect["aspect"] == " ".join(words[aspect["word_start"] : aspect["word_end"]])
        assert " ".join(words)[aspect["start"] : aspect["end"]] == aspect["aspect"]
        assert aspect["score"] is None


@given(data=st.data())
def test_strings_to_targets_and_back(any_text, spans_of, processor_of, data):
    setting = data.draw(st.sampled_from(SETTINGS))
    processor, config = processor_of(setting)
    text = data.draw(any_text)
    words = split_words(text)
    aspects = [
        {"start": words[start][0], "end": words[end - 1][1], "polarity": polarity}
        for start, end, polarity in draw_aspects(data, spans_of, len(words), LABELS[setting[1]])
    ]
    batch = processor(text=text, aspects=aspects, return_tensors="pt")
    walk_gold(batch["labels"], batch, config)
    sequences = prefixed(batch["labels"], setting[0])
    found = processor.post_process_mabsa(sequences, batch)[0]
    wanted = sorted(aspects, key=lambda aspect: aspect["start"])
    assert found == [
        {"aspect": text[a["start"] : a["end"]], "polarity": a["polarity"], "score": None}
        | {"start": a["start"], "end": a["end"]}
        for a in wanted
    ]
    # MATE reads the same sequence and drops the polarity.
    without = [{name: value for name, value in aspect.items() if name != "polarity"} for aspect in found]
    assert processor.post_process_mabsa(sequences, batch, task="mate")[0] == without


@given(data=st.data())
def test_masc_spans_are_the_gold_columns_and_pass_the_grammar(any_words, spans_of, processor_of, data):
    setting = data.draw(st.sampled_from(SETTINGS))
    processor, config = processor_of(setting)
    rows = data.draw(st.lists(any_words, min_size=2, max_size=3))
    aspects = [draw_aspects(data, spans_of, len(words), LABELS[setting[1]]) for words in rows]
    gold = [[{"start": s, "end": e, "polarity": p} for s, e, p in row] for row in aspects]

    labelled = processor(text=rows, aspects=gold, return_tensors="pt")
    masc = processor(text=rows, aspects=gold, task="masc", return_tensors="pt")
    assert "labels" not in masc and "aspect_spans" not in labelled
    longest = max(1, *map(len, gold))
    assert masc["aspect_spans"].shape == (len(rows), longest, 2)
    for row, spans, labels in zip(aspects, masc["aspect_spans"], labelled["labels"]):
        assert (spans[len(row) :] == -1).all()
        triples = labels[: 3 * len(row)].view(-1, 3)[:, :2] - processor.pointer_offset
        assert spans[: len(row)].equal(triples)
    walk_gold(labelled["labels"].masked_fill(labelled["labels"] == -100, 1), labelled, config, masc["aspect_spans"])


@given(data=st.data())
def test_what_the_grammar_allows_decodes_whole_and_encodes_back(processor_of, data):
    setting = data.draw(st.sampled_from(SETTINGS))
    processor, config = processor_of(setting)
    index_format = processor.index_format
    pieces = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    word_ids = [-1] + [word for word, count in enumerate(pieces) for _ in range(count)] + [-1]
    units = torch.tensor([word_ids])
    cap = data.draw(st.integers(1, 17))

    targets: list[int] = []
    while not targets or targets[-1] != 1:
        so_far = torch.tensor([targets], dtype=torch.long).view(1, -1)
        allowed = allowed_targets(so_far, units, cap - len(targets), config)[0].nonzero().flatten().tolist()
        targets.append(data.draw(st.sampled_from(allowed)))
    assert len(targets) <= cap
    assert is_valid(torch.tensor([targets]), units, config).item()

    triples = index_format.decode(targets, word_ids)
    assert 3 * len(triples) == len(targets) - 1
    assert all(targets[position] - index_format.pointer_offset >= 1 for *_, position in triples)
    again = index_format.encode([triple[:3] for triple in triples], word_ids)
    assert again == [target for *_, p in triples for target in targets[p : p + 3]] + [1]


@pytest.mark.parametrize(("end_points_to", "end"), [("first", 3), ("last", 4)])
def test_columns_of_a_span(end_points_to, end):
    word_ids = [-1, 0, 0, 1, 1, 2, -1]
    index_format = IndexFormat(end_points_to=end_points_to)
    assert index_format.span_columns(0, 2, word_ids) == (1, end)
    assert index_format.encode([(2, 3, "negative"), (0, 2, "positive")], word_ids) == [6, end + 5, 2, 10, 10, 4, 1]
    # Words that were cut off have no column, wherever the span begins.
    assert index_format.span_columns(2, 4, word_ids) is None
    assert index_format.span_columns(3, 4, word_ids) is None
    assert index_format.encode([(0, 1, "neutral"), (2, 4, "neutral")], word_ids)[3:] == [1]


WORD_IDS = [-1, 0, 1, 1, 2, -1]  # pointers 6 to 9 with three special targets and three labels: 7, 8, 9, 10


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0, 2, 2, 1], []),
        ([1], []),
        ([], []),
        ([7, 8, 3, 1], [(0, 2, "positive", 0)]),
        ([0, 2, 2, 7, 8, 3, 1], [(0, 2, "positive", 3)]),
        ([7, 9, 3, 1], [(0, 2, "positive", 0)]),
        ([10, 10, 5, 7, 7, 4, 1], [(0, 1, "neutral", 3), (2, 3, "negative", 0)]),
        ([7, 7, 3, 1, 10, 10, 5, 1], [(0, 1, "positive", 0)]),
        ([7, 7, 3, -100, 10, 10, 5], [(0, 1, "positive", 0)]),
        ([10, 7, 3, 1], []),
        ([7, 3, 10, 10, 4, 1], [(2, 3, "neutral", 2)]),
        ([7, 7, 7, 3, 10, 10, 4, 1], [(2, 3, "neutral", 4)]),
        ([7, 10, 3, 8, 8, 4, 1], [(0, 3, "positive", 0)]),
        ([7, 7, 3, 7, 7, 4, 1], [(0, 1, "positive", 0)]),
        ([6, 7, 3, 1], []),
        ([7, 11, 3, 1], []),
        ([7, 99, 3, 1], []),
        ([7, 7, 2, 1], []),
        ([7, 7, 3, 10, 10], [(0, 1, "positive", 0)]),
    ],
)
def test_decoding_of_any_sequence(targets, expected):
    assert IndexFormat(num_special_targets=3).decode(targets, WORD_IDS) == expected


@given(targets=st.lists(st.integers(-100, 30), max_size=20))
def test_any_sequence_decodes_to_spans_in_order_without_overlap(targets):
    found = IndexFormat(num_special_targets=3).decode(targets, WORD_IDS)
    for start, end, polarity, position in found:
        assert 0 <= start < end <= 3 and polarity in LABELS[3]
        assert targets[position + 2] == 3 + LABELS[3].index(polarity)
    assert all(former[1] <= triple[0] for former, triple in zip(found, found[1:]))
