"""A large model's own aspects: what counts as an answer, where its aspects lie in the text, and the scores."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import compute_mabsa_metrics, load_posts, split_words
from processing.indexing_lrsa import DEFAULT_LABELS
from processing.posts import check_post, gold_aspects, to_dataset
from processing.rationales import load_prompt, read_answers, read_aspects, score_answers
from processing.rationales.llm_aspects import ANSWER_SCHEMA, INVALID_ITEMS


POSTS = Path(__file__).parents[3] / "examples" / "posts"
DATA = Path(__file__).parents[4] / "shared" / "data"
TEXT = "Apple beats Apple Watch sales, says #Apple. Pineapple @ Apple's store"


def answer(*pairs) -> str:
    return json.dumps({"aspects": [{"aspect": aspect, "polarity": polarity} for aspect, polarity in pairs]})


def spans(found) -> list[tuple]:
    return [(aspect["start"], aspect["end"], aspect["polarity"]) for aspect in found.aspects]


# --- where aspects lie


def test_predictions_have_the_form_of_the_models():
    found = read_aspects(answer(("Apple Watch", "positive")), TEXT)
    assert found.aspects == [{"aspect": "Apple Watch", "polarity": "positive", "score": None, "start": 12, "end": 23}]
    assert found.valid and not found.invalid_items
    words = ["Apple", "beats", "Apple", "Watch", "#Apple"]
    assert read_aspects(answer(("Apple Watch", "positive")), words).aspects == [
        {"aspect": "Apple Watch", "polarity": "positive", "score": None, "start": 12, "end": 23,
         "word_start": 2, "word_end": 4}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "wanted", "invalid"),
    [
        ([("Apple", "neutral")], [(0, 5, "neutral")], {}),
        ([("Apple", "neutral"), ("Apple", "positive")], [(0, 5, "neutral"), (12, 17, "positive")], {}),
        ([("Apple", "neutral"), ("Apple Watch", "positive"), ("Apple", "negative")],
         [(0, 5, "neutral"), (12, 23, "positive"), (37, 42, "negative")], {}),
        ([("Apple Watch", "positive"), ("Watch", "neutral")], [(12, 23, "positive")], {"overlap": 1}),
        ([("apple", "neutral")], [], {"not_in_text": 1}),
        ([("Pineapple", "neutral")], [(44, 53, "neutral")], {}),
        ([("Pine", "neutral")], [], {"not_in_text": 1}),
        ([("Apple's", "neutral")], [(56, 63, "neutral")], {}),
        ([("#Apple", "neutral")], [(36, 42, "neutral")], {}),
        ([("", "neutral")], [], {"not_in_text": 1}),
        ([("Microsoft", "neutral")], [], {"not_in_text": 1}),
        ([("Apple", "Positive")], [], {"unknown_polarity": 1}),
        ([("Apple", None), ("Apple", ["positive"])], [], {"unknown_polarity": 2}),
        ([(3, "positive"), (None, "positive")], [], {"malformed": 2}),
        ([("Pineapple", "neutral")] * 3, [(44, 53, "neutral")], {"overlap": 2}),
        ([], [], {}),
    ],
)  # fmt: skip
def test_places_in_a_text(pairs, wanted, invalid):
    found = read_aspects(answer(*pairs), TEXT)
    assert (spans(found), dict(found.invalid_items)) == (wanted, invalid)
    assert found.valid


def test_words_have_borders_of_their_own():
    words = ["@", "jeremy_lin7", "and", "#Ajax", "Ajax's", "Ajax"]
    found = read_aspects(answer(("Ajax", "positive"), ("jeremy_lin7", "neutral"), ("#", "neutral")), words)
    assert [(a["word_start"], a["word_end"], a["polarity"]) for a in found.aspects] == [
        (1, 2, "neutral"),
        (5, 6, "positive"),
    ]
    assert found.invalid_items == {"not_in_text": 1}
    assert read_aspects(answer(("a", "neutral")), []).invalid_items == {"not_in_text": 1}


def test_white_space_is_not_compared_but_tells_places_apart():
    words = ["@", "name", "at", "New", "York", "@name", "NewYork"]
    found = read_aspects(answer(("@name", "positive"), ("@ name", "neutral"), ("New  York ", "neutral")), words)
    assert [(a["word_start"], a["word_end"], a["aspect"], a["polarity"]) for a in found.aspects] == [
        (0, 2, "@ name", "neutral"),
        (3, 5, "New York", "neutral"),
        (5, 6, "@name", "positive"),
    ]
    assert not found.invalid_items
    assert spans(read_aspects(answer(("New York", "neutral")), "in NewYork")) == [(3, 10, "neutral")]


def mentions(text: str, aspect: str) -> int:
    """How often a text says an aspect, whatever white space it has; mentions may overlap."""
    text, aspect = "".join(text.split()), "".join(aspect.split())
    return sum(text.startswith(aspect, start) for start in range(len(text)))


@given(data=st.data())
def test_every_mention_listed_in_order_is_found_again(data, any_text, any_words, spans_of):
    post = data.draw(any_text | any_words)
    text = post if isinstance(post, str) else " ".join(post)
    offsets = split_words(post) if isinstance(post, str) else None
    if offsets is None:
        offsets, end = [], -1
        for word in post:
            offsets.append((end + 1, end + 1 + len(word)))
            end += 1 + len(word)
    chosen = data.draw(spans_of(len(offsets)))
    given_items = [
        (text[offsets[a][0] : offsets[b - 1][1]], data.draw(st.sampled_from(DEFAULT_LABELS))) for a, b in chosen
    ]
    found = read_aspects(answer(*given_items), post)
    assert found.valid and set(found.invalid_items) <= {"overlap"}
    assert len(found.aspects) + found.invalid_items.total() == len(given_items)
    position = 0
    for aspect in found.aspects:
        assert text[aspect["start"] : aspect["end"]] == aspect["aspect"]
        assert position <= aspect["start"] < aspect["end"]
        position = aspect["end"]
        assert aspect["start"] in {a for a, _ in offsets} and aspect["end"] in {b for _, b in offsets}
        if not isinstance(post, str):
            assert " ".join(post[aspect["word_start"] : aspect["word_end"]]) == aspect["aspect"]
    if all(mentions(text, aspect) == 1 for aspect, _ in given_items):
        wanted = sorted((offsets[a][0], offsets[b - 1][1], p) for (a, b), (_, p) in zip(chosen, given_items))
        assert spans(found) == wanted and not found.invalid_items


# --- what counts as an answer


@pytest.mark.parametrize("form", ["{}", "\n {} \n", "```json\n{}\n```", "```\n{}\n```", "```JSON\n\n{}\n\n```\n"])
def test_answers_with_or_without_a_fence(form):
    found = read_aspects(form.replace("{}", answer(("Pineapple", "neutral"))), TEXT)
    assert found.valid and spans(found) == [(44, 53, "neutral")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, but I can't help with that.",
        "Here it is:\n" + answer(("Apple", "neutral")),
        answer(("Apple", "neutral")) + " Done.",
        answer(("Apple", "neutral"))[:-5],
        "```json\n" + answer(("Apple", "neutral")),
        "```json\n" + answer() + "\n```\n```json\n" + answer() + "\n```",
        "[]",
        '[{"aspect": "Apple", "polarity": "neutral"}]',
        '{"aspect": "Apple", "polarity": "neutral"}',
        '{"aspects": null}',
        '{"aspects": {}}',
        '{"aspects": [], "note": "none"}',
        '{"aspects": [], "aspects": []}',
        "{'aspects': []}",
        "null",
        "[" * 100_000,
        '{"aspects": ' + "9" * 10_000 + "}",
        "\x00",
    ],
)
def test_answers_that_are_none(text):
    found = read_aspects(text, TEXT)
    assert (found.valid, found.aspects, found.invalid_items.total()) == (False, [], 0)


def test_items_of_another_form():
    items = ["Apple", 3, None, [], {}, {"aspect": "Apple"}, {"aspect": "Apple", "polarity": "neutral", "start": 0}]
    found = read_aspects(json.dumps({"aspects": [*items, {"aspect": "Pineapple", "polarity": "neutral"}]}), TEXT)
    assert found.valid and found.invalid_items == {"malformed": 7} and spans(found) == [(44, 53, "neutral")]


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["aspects", "aspect", "polarity"]), inner),
)


@given(st.text() | JSON.map(json.dumps))
def test_any_answer_is_read(text):
    found = read_aspects(text, TEXT)
    assert set(found.invalid_items) <= set(INVALID_ITEMS)


def test_the_schema_and_the_prompt_ask_for_what_is_read():
    item = ANSWER_SCHEMA["properties"]["aspects"]["items"]
    assert item["properties"]["polarity"]["enum"] == list(DEFAULT_LABELS)
    prompt = load_prompt("aspects")
    assert prompt.request("Tea").schema is ANSWER_SCHEMA
    assert all(f'"{label}"' in prompt.system for label in DEFAULT_LABELS)
    polarities = []
    for example in prompt.examples:
        found = read_aspects(example.answer, example.text)
        assert found.valid and not found.invalid_items, example
        polarities += [aspect["polarity"] for aspect in found.aspects]
        assert len(found.aspects) == len(json.loads(example.answer)["aspects"])
    assert set(polarities) == set(DEFAULT_LABELS)
    assert [] in [read_aspects(example.answer, example.text).aspects for example in prompt.examples]


# --- scores


@pytest.fixture(scope="module")
def posts():
    return load_posts(POSTS, "test", labelled=True)


@pytest.fixture(scope="module")
def gold_answers(posts) -> list[str]:
    return [
        answer(*((text[a["start"] : a["end"]], a["polarity"]) for a in aspects))
        for text, aspects in zip(posts["text"], posts["aspects"])
    ]


def test_gold_answers_score_all(posts, gold_answers):
    scores = score_answers(posts, read_answers(posts, gold_answers))
    gold = gold_aspects(posts)
    read = [read_aspects(text, post).aspects for text, post in zip(gold_answers, posts["text"])]
    assert {name: scores[name] for name in compute_mabsa_metrics(read, gold)} == compute_mabsa_metrics(read, gold)
    assert scores["jmasa_f1"] == scores["mate_f1"] == scores["masc_accuracy"] == 100
    assert scores["posts"] == len(posts) and scores["predicted_aspects"] == sum(map(len, gold))
    assert not any(scores[name] for name in ("unanswered", "invalid_answers", "invalid_items"))


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data does not lie beside the checkout")
@pytest.mark.parametrize("name", ["twitter2015", "twitter2017"])
def test_an_answer_can_name_every_gold_aspect_of_the_benchmarks(name):
    posts = load_posts(DATA / name, "test", labelled=True)
    answers = [
        answer(*((" ".join(words[a["start"] : a["end"]]), a["polarity"]) for a in aspects))
        for words, aspects in zip(posts["words"], posts["aspects"])
    ]
    scores = score_answers(posts, read_answers(posts, answers))
    assert scores["jmasa_f1"] == 100 and scores["invalid_items"] == 0


def test_what_is_invalid_or_missing_costs_recall(posts, gold_answers):
    gold = [len(aspects) for aspects in posts["aspects"]]
    assert gold[0] and gold[1]
    worse = [None, "Sorry, no.", *gold_answers[2:]]
    scores = score_answers(posts, read_answers(posts, worse))
    assert (scores["unanswered"], scores["invalid_answers"], scores["invalid_items"]) == (1, 1, 0)
    assert scores["jmasa_precision"] == 100
    assert scores["jmasa_recall"] == pytest.approx(100 * (sum(gold) - gold[0] - gold[1]) / sum(gold))
    with_more = [answer(("no such thing", "neutral"), ("x", "bad")) for _ in posts]
    scores = score_answers(posts, read_answers(posts, with_more))
    assert scores["invalid_items"] == 2 * len(posts) == 2 * scores["invalid_items_not_in_text"]
    assert scores["jmasa_f1"] == 0
    with pytest.raises(ValueError, match="1 answers for"):
        read_answers(posts, [""])


def test_posts_given_as_words_are_scored_in_words():
    rows = [
        {"words": ["Love", "Ajax", ",", "not", "Ajax"], "aspects": [{"start": 1, "end": 2, "polarity": "positive"},
                                                                  {"start": 4, "end": 5, "polarity": "negative"}]},
        {"text": "Love Ajax", "aspects": [{"start": 5, "end": 9, "polarity": "positive"}]},
        {"words": ["Nothing"], "aspects": []},
    ]  # fmt: skip
    posts = to_dataset([check_post(row, "here") for row in rows])
    answers = [answer(("Ajax", "positive"), ("Ajax", "positive")), answer(("Ajax", "positive")), answer()]
    scores = score_answers(posts, read_answers(posts, answers))
    assert scores["mate_f1"] == 100
    assert scores["jmasa_precision"] == scores["jmasa_recall"] == pytest.approx(200 / 3)
    assert scores["masc_accuracy"] == pytest.approx(200 / 3)
