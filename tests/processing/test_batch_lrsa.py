import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processing import MABSABatch
from processing.batch_lrsa import EncodedPost


TEXT = "the pizza in Rotterdam was great"
PIZZA = {"start": 4, "end": 9}
ROTTERDAM = {"start": 13, "end": 22}


@given(data=st.data())
def test_every_run_of_words_is_found_by_its_characters(any_text, data):
    post = EncodedPost.from_input(data.draw(any_text))
    cuts = data.draw(st.lists(st.integers(0, len(post.offsets)), unique=True, max_size=6).map(sorted))
    spans = list(zip(cuts[::2], cuts[1::2]))
    of_characters = [{"start": post.offsets[start][0], "end": post.offsets[end - 1][1]} for start, end in spans]
    assert post.word_spans(of_characters) == spans
    of_words = EncodedPost.from_input([post.text[start:end] for start, end in post.offsets])
    assert of_words.word_spans([{"start": start, "end": end} for start, end in spans]) == spans
    assert [of_words.text[slice(*offsets)] for offsets in of_words.offsets] == of_words.text.split()


@pytest.mark.parametrize(
    ("text", "aspects", "message"),
    [
        (TEXT, [{**PIZZA, "end": 33}], "outside the text of 32 characters"),
        (TEXT, [{**PIZZA, "start": -1}], "outside the text of 32 characters"),
        (TEXT, [{**PIZZA, "start": 9}], "outside"),
        (TEXT, [PIZZA, {**ROTTERDAM, "start": 4}], "overlap"),
        (TEXT, [PIZZA, PIZZA], "overlap"),
        (TEXT, [{**PIZZA, "start": 5}], "'izza' .*cuts a word"),
        (TEXT, [{**PIZZA, "end": 10}], "'pizza ' .*white space at its edge"),
        (TEXT.split(), [{"start": 5, "end": 7}], "outside the text of 6 words"),
        (TEXT.split(), [{"start": 0, "end": 2}, {"start": 1, "end": 3}], "overlap at word 1"),
    ],
)
def test_aspects_that_do_not_fit(processor, text, aspects, message):
    for find in (EncodedPost.from_input(text).word_spans, lambda given: processor(text=[text], aspects=[given])):
        with pytest.raises(ValueError, match=message):
            find(aspects)


@pytest.mark.parametrize("word", ["", " ", "a b", " a", "a\n", "a\u2003b", "\x1c", 3, None])
def test_bad_words(processor, word):
    for read in (EncodedPost.from_input, lambda words: processor(text=[words])):
        with pytest.raises(ValueError, match="is no word: words are non-empty strings without white space"):
            read(["fine", word])


def test_a_batch_survives_pickling_copying_and_moving(image_text_processor, picture):
    batch = image_text_processor(
        text=[TEXT, "rain"],
        images=[picture, None],
        aspects=[[{**PIZZA, "polarity": "positive"}], []],
        return_tensors="pt",
    )
    for same in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), copy.copy(batch), batch.to("cpu")):
        assert isinstance(same, MABSABatch)
        assert same.keys() == batch.keys() and same.posts == batch.posts
        assert all(torch.equal(same[name], batch[name]) for name in batch)
    half = copy.deepcopy(batch).to(torch.float16)
    assert half["pixel_values"].dtype == torch.float16 and half["input_ids"].dtype == torch.int64
    assert half.posts == batch.posts
    assert "posts" not in {**batch}
