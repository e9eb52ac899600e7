import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from processing import LRSAProcessor
from processing.linguistic_columns_lrsa import linguistic_columns


ROOT = Path(__file__).parents[2]
FIXTURES = ROOT.parent / "shared" / "fixtures"

# "good" ← "pizza" (a noun of two pieces) ← "eats", the root, ← "Ann", a noun.
WORDS = {"nouns": [True, False, False, True], "heads": [1, 1, 3, 1], "sentiment": [0.0, 0.0, 0.5, -0.25]}
WORD_IDS = [-1, 0, 1, 2, 3, 3, -1, -1]


def test_by_hand():
    columns = linguistic_columns([WORDS], [WORD_IDS])
    assert columns["noun_mask"][0].tolist() == [0, 1, 0, 0, 1, 1, 0, 0]
    assert columns["sentiment_value"][0].tolist() == [0, 0, 0, 0.5, -0.25, -0.25, 0, 0]
    # Ann–eats, eats–good (its head's head), eats–pizza, good–pizza; nothing within pizza.
    assert columns["dependency_matrix"][0].tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 1, 0, 0],
        [0, 0, 1, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("row", [None, {"nouns": [], "heads": [], "sentiment": []}])
def test_a_post_without(row):
    columns = linguistic_columns([row], [[-1, 0, -1] if row is None else [-1, -1]])
    assert not any(value[0].any() for value in columns.values())


@st.composite
def annotated(draw):
    """What is known of some words, and their columns; the last words may be cut."""
    number = draw(st.integers(1, 8))

    def per_word(entries):
        return draw(st.lists(entries, min_size=number, max_size=number))

    row = {
        "nouns": per_word(st.booleans()),
        "heads": per_word(st.integers(0, number - 1)),
        "sentiment": per_word(st.sampled_from([-1.0, -0.5, 0.0, 0.25])),
    }
    pieces = per_word(st.integers(1, 3))
    kept = draw(st.integers(0, number))
    ids = [word for word in range(kept) for _ in range(pieces[word])]
    return row, [-1, *ids, *[-1] * draw(st.integers(1, 4))]


@given(annotated())
def test_columns_are_those_of_their_words(case):
    row, ids = case
    columns = {name: value[0] for name, value in linguistic_columns([row], [ids]).items()}
    heads, edges = row["heads"], columns["dependency_matrix"]
    assert edges.shape == (len(ids), len(ids)) and (edges == edges.T).all()
    for column, word in enumerate(ids):
        assert columns["noun_mask"][column] == (word >= 0 and row["nouns"][word])
        assert columns["sentiment_value"][column] == (row["sentiment"][word] if word >= 0 else 0)
        for other, second in enumerate(ids):
            related = second in (heads[word], heads[heads[word]]) or word in (heads[second], heads[heads[second]])
            assert edges[column, other] == (min(word, second) >= 0 and word != second and related)


def test_processor_and_truncation(tokenizers):
    processor = LRSAProcessor(None, tokenizers["bpe"])
    words = ["Ann", "eats", "good", "pizza"]
    batch = processor(
        text=[words, "no annotation", ["rain"]],
        linguistics=[WORDS, None, {"nouns": [True], "heads": [0], "sentiment": [1.0]}],
        return_tensors="pt",
    )
    columns = batch["word_ids"].shape[1]
    assert batch["dependency_matrix"].shape == (3, columns, columns)
    assert batch["noun_mask"].shape == batch["sentiment_value"].shape == (3, columns)
    assert (batch["noun_mask"].bool() == ((batch["word_ids"][0] == 0) | (batch["word_ids"][0] == 3)))[0].all()
    assert batch["noun_mask"][2].tolist() == (batch["word_ids"][2] == 0).long().tolist()
    assert not batch["noun_mask"][1].any() and not batch["dependency_matrix"][1:].any()
    one = processor(text=words, is_split_into_words=True, linguistics=WORDS)
    size = len(one["input_ids"][0])
    assert one["noun_mask"][0].tolist() == batch["noun_mask"][0, :size].tolist()
    bare = processor(text=words, is_split_into_words=True, linguistics=WORDS, padding=False)
    assert bare["noun_mask"].tolist() == one["noun_mask"][0].tolist()
    assert bare["dependency_matrix"].shape == (size, size)
    cut = processor(text=[words], linguistics=[WORDS], max_length=size - 1, return_tensors="pt")
    assert cut["dependency_matrix"].shape == (1, *2 * [cut["input_ids"].shape[1]])
    assert cut["noun_mask"].sum() == (cut["word_ids"] == 0).sum(), "pizza is cut"
    assert "noun_mask" not in processor(text=[words], linguistics=[None], return_tensors="pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": [1, 1, 3]}, "post 0 needs 'heads' with one entry for each of its 4 words"),
        ({"heads": [1, 1, 3, 4]}, "heads are words, 0 to 3"),
        ({"heads": [1, -1, 3, 1]}, "heads are words, 0 to 3"),
        ({"nouns": []}, "'nouns'"),
    ],
)
def test_what_does_not_fit(processor, changes, message):
    with pytest.raises(ValueError, match=message):
        processor(text=[["Ann", "eats", "good", "pizza"]], linguistics=[WORDS | changes])
    with pytest.raises(ValueError, match="`linguistics` must have one entry for each of the 1 posts"):
        processor(text=["Ann"], linguistics=[None, None])


# --- against the inputs of the reference implementation


@pytest.fixture(scope="module")
def reference():
    """AoM's tensors over text columns, what they were made from, and the word of each column."""
    if not (FIXTURES / "aom_b" / "inputs.npz").is_file():
        pytest.skip(f"{FIXTURES}: no reference tensors here")
    samples = json.loads((FIXTURES / "aom_b" / "samples.json").read_text())["samples"]
    inputs = np.load(FIXTURES / "aom_b" / "inputs.npz")
    names = [str(FIXTURES / "tokenizer_tiny" / name) for name in ("vocab.json", "merges.txt")]
    tokenizer = Tokenizer(models.BPE.from_file(*names))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    columns = inputs["sentiment_value"].shape[1]
    rows, word_ids = [], []
    for index, sample in enumerate(samples):
        pieces = [tokenizer.encode(word).ids for word in sample["words"]]
        ids = [-1, *(word for word, ids in enumerate(pieces) for _ in ids)]
        assert inputs["input_ids"][index, -columns:][1 : len(ids)].tolist() == sum(pieces, [])
        word_ids.append(ids + [-1] * (columns - len(ids)))
        nouns = [tag in ("NN", "NNS", "NNP", "NNPS") for tag in sample["spacy_tags"]]
        values = [sample["senticnet"].get(word, 0.0) for word in sample["words"]]
        rows.append({"nouns": nouns, "heads": sample["spacy_heads"], "sentiment": values})
    text = {name: inputs[name][..., -columns:] for name in ("noun_mask", "dependency_matrix", "sentiment_value")}
    return rows, word_ids, text


def test_nouns_and_sentiment_are_the_references(reference):
    rows, word_ids, wanted = reference
    columns = linguistic_columns(rows, word_ids)
    assert (np.stack(columns["noun_mask"]) == wanted["noun_mask"]).all() and wanted["noun_mask"].sum() > 60
    assert (np.stack(columns["sentiment_value"]) == wanted["sentiment_value"]).all()


def test_edges_are_the_references_but_for_its_shift(reference):
    """All but the last piece of a word have the edges of the word before there; all else off the diagonal agrees."""
    rows, word_ids, wanted = reference
    theirs = wanted["dependency_matrix"] * (1 - np.eye(wanted["dependency_matrix"].shape[-1]))
    shifted = [[word - (word >= 0 and ids[column + 1] == word) for column, word in enumerate(ids)] for ids in word_ids]
    assert (np.stack(linguistic_columns(rows, shifted)["dependency_matrix"]) == theirs).all()
    ours = linguistic_columns(rows, word_ids)["dependency_matrix"]
    for edges, shifted_edges, ids in zip(ours, theirs, word_ids):
        last = [column for column, word in enumerate(ids) if word >= 0 and ids[column + 1] != word]
        assert (edges[np.ix_(last, last)] == shifted_edges[np.ix_(last, last)]).all() and edges[last].any()
