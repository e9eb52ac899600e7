import copy
from pathlib import Path

import pytest
from datasets import disable_progress_bars

from processing import DataCollatorForMABSA, LRSAProcessor
from processing.posts import check_post, to_dataset
from processing.preparation import prepare_posts


disable_progress_bars()

TEXT = "the pizza in Rotterdam was great"
PIZZA = {"start": 4, "end": 9, "polarity": "positive"}


def posts_of(*rows):
    return to_dataset([check_post({"id": str(i), **row}, "here") for i, row in enumerate(rows)])


POSTS = [
    {"text": TEXT, "aspects": [PIZZA], "image_rationale": "a pizza", "text_rationale": "great food"},
    {"words": ["\u200d", "rain"], "aspects": [{"start": 0, "end": 2, "polarity": "negative"}]},
    {"text": "", "aspects": [], "image_rationale": "coffee"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LRSA_CACHE", str(folder))
    return folder


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_columns(processor):
    prepared = prepare_posts(posts_of(*POSTS), processor)
    wanted = processor(
        text=[TEXT, POSTS[1]["words"], ""],
        aspects=[row["aspects"] for row in POSTS],
        image_rationales=[row.get("image_rationale") for row in POSTS],
        text_rationales=[row.get("text_rationale") for row in POSTS],
        padding=False,
    )
    for name in ("input_ids", "word_ids", "labels", "image_rationale_input_ids", "text_rationale_input_ids"):
        assert prepared[name] == wanted[name], name
    assert prepared["text"] == [post.text for post in wanted.posts]
    assert prepared["offsets"] == [[list(pair) for pair in post.offsets] for post in wanted.posts]
    assert prepared["is_words"] == [False, True, False]
    assert prepared["id"] == ["0", "1", "2"] and prepared["aspects"] == [row["aspects"] for row in POSTS]
    assert "aspect_spans" not in prepared.column_names and "image" not in prepared.column_names


def test_masc_and_no_rationales(processor):
    prepared = prepare_posts(posts_of(*POSTS), processor, task="masc", rationales=False)
    assert "labels" not in prepared.column_names
    assert not [name for name in prepared.column_names if "rationale" in name]
    assert prepared["aspect_spans"] == [[[2, 2]], [[1, 2]], []]


def test_the_second_call_reads_the_file(processor, cache):
    first = prepare_posts(posts_of(*POSTS), processor)
    written = files(cache)
    assert len(written) == 1
    second = prepare_posts(posts_of(*POSTS), processor)
    assert files(cache) == written
    assert second.to_list() == first.to_list() and second._fingerprint == first._fingerprint
    # Nor does it depend on what the processor did meanwhile, or on where it comes from.
    processor(text="a", text_rationales="b")
    processor(text="a " * 3)
    prepare_posts(posts_of(*POSTS), processor)
    assert files(cache) == written


def test_a_saved_processor_reads_the_file_too(tokenizer, cache, tmp_path):
    processor = LRSAProcessor(None, copy.deepcopy(tokenizer))
    prepare_posts(posts_of(*POSTS), processor)
    written = files(cache)
    processor.save_pretrained(tmp_path / "model")
    for same in (processor, LRSAProcessor.from_pretrained(tmp_path / "model")):
        prepare_posts(posts_of(*POSTS), same)
        assert files(cache) == written


def test_what_changes_the_rows_gives_another_file(tokenizers, cache):
    plain = tokenizers["wordpiece"]
    more = copy.deepcopy(plain)
    more.add_tokens(["Rotterdam"])
    processors = [
        LRSAProcessor(None, plain),
        LRSAProcessor(None, tokenizers["bpe"]),
        LRSAProcessor(None, more),
        LRSAProcessor(None, plain, num_special_targets=3),
        LRSAProcessor(None, plain, pointer_offset=9),
        LRSAProcessor(None, plain, end_points_to="last"),
        LRSAProcessor(None, plain, id2label={0: "negative", 1: "positive"}),
        LRSAProcessor(None, plain, max_text_length=99),
        LRSAProcessor(None, plain, max_rationale_length=5),
    ]
    for number, processor in enumerate(processors, 1):
        prepare_posts(posts_of(*POSTS), processor)
        assert len(files(cache)) == number
    prepare_posts(posts_of(*POSTS), processors[0], task="masc")
    prepare_posts(posts_of(*POSTS), processors[0], rationales=False)
    prepare_posts(posts_of(*POSTS[:2]), processors[0])
    assert len(files(cache)) == len(processors) + 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_posts_with_and_without_gold_in_one_set(processor, order):
    """As in the processor: labels where every aspect has its polarity, and otherwise none at all."""
    rows = [
        {"text": TEXT, "aspects": [PIZZA]},
        {"text": TEXT},
        {"text": TEXT, "aspects": [{"start": 4, "end": 9}]},
    ]
    prepared = prepare_posts(posts_of(*(rows[i] for i in order)), processor)
    assert len(prepared) == 3 and "labels" not in prepared.column_names
    batch = DataCollatorForMABSA(processor)(prepared.to_list())
    assert set(batch) == {"input_ids", "attention_mask", "word_ids"}
    masc = prepare_posts(posts_of(rows[2], {"text": "a", "aspects": []}), processor, task="masc")
    assert masc["aspect_spans"] == [[[2, 2]], []]


def test_a_rationale_after_a_thousand_posts_without(processor):
    """The file is written a thousand rows at a time, and what comes late must fit what came first."""
    late = {"text": "a", "aspects": [{"start": 0, "end": 1, "polarity": "neutral"}], "text_rationale": "b"}
    prepared = prepare_posts(posts_of(*[{"text": "", "aspects": []}] * 1100, late), processor, task="masc")
    assert prepared[-1]["aspect_spans"] == [[1, 1]]
    assert prepared[-1]["text_rationale_input_ids"] == processor.tokenizer("b").input_ids
    assert prepared[0]["aspect_spans"] == [] and prepared[0]["offsets"] == []
