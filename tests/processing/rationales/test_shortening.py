"""What is done to rationales before training."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import PostError, split_words
from processing.rationales import fit_for_training, mask_words, polarity_words, shorten, to_running_text


DATA = Path(__file__).parents[4] / "shared" / "data"
POSTS = Path(__file__).parents[3] / "examples" / "posts"
SENTENCES = [
    "The picture shows a cup.",
    'Someone says "no more"!',
    "Mr. Odile Marchetti plays for F.C. Harrow Vale.",
    "Is it 3.5 or 4?",
    "東京タワーです。",
    "It is – well … fine",
]
MARKS = ["- ", "* ", "1. ", "2. ", "2) ", "# ", "**", "*", "_", "`", "```\n", "> ", "---\n", "\n", "\n\n", " ", ":"]
MARKS += ["\x00", "Sure! ", "Sure, here is the rationale:\n", "Here's the explanation for the post: ", "Rationale: "]
MARKS += ["<think>", "</think>", "Let me know if you want more!", "Of course, ", "[a](b)", "| a | b |"]
ANSWERS = st.lists(st.sampled_from(SENTENCES + MARKS) | st.text(max_size=6), max_size=12).map("".join)


def length(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


# --- budget


@pytest.mark.parametrize("form", ["wordpiece", "bpe"])
@given(data=st.data())
def test_the_budget_holds_and_only_the_end_is_lost(form, data, tokenizers, any_text):
    tokenizer = tokenizers[form]
    text = data.draw(ANSWERS | any_text)
    budget = data.draw(st.integers(1, 60))
    short = shorten(text, tokenizer, budget)
    assert length(tokenizer, short) <= budget
    assert text.strip().startswith(short)
    assert shorten(short, tokenizer, budget) == short
    if length(tokenizer, text.strip()) <= budget:
        assert short == text.strip()
    if short:
        assert len(short) in {end for _, end in split_words(text.strip())} | {len(text.strip())}


def test_cut_at_the_last_sentence_that_fits(tokenizers):
    tokenizer = tokenizers["bpe"]
    sentences = [
        "The fox loves pizza.",
        "Mr. Lin scored in Rotterdam!!",
        "The dog hates rain, i.e. all day.",
        "It was 3.5.",
    ]
    ends = [" ".join(sentences[: number + 1]) for number in range(4)]
    lengths = [length(tokenizer, end) for end in ends]
    for budget in range(lengths[0], lengths[-1] + 1):
        assert shorten(ends[-1], tokenizer, budget) == ends[sum(needed <= budget for needed in lengths) - 1]


def test_a_first_sentence_that_is_too_long_is_cut_at_a_word(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    text, fox = "the quick brown fox doesn't love pizza. It rains.", "the quick brown fox"
    assert shorten(text, tokenizer, length(tokenizer, fox)) == fox
    assert shorten(text, tokenizer, length(tokenizer, fox + " doesn")) == fox, "not within a word"
    assert shorten(text, tokenizer, length(tokenizer, fox + " doesn't")) == fox + " doesn't"
    assert shorten("東京タワー", tokenizer, 2) == "東京", "there is no white space"
    assert shorten("https://example.org/" + "x" * 500, tokenizers["bpe"], 3) == ""
    assert shorten("", tokenizer, 1) == ""
    for space in "\x1c\x1d\x1e\x1f":  # white space to Python, not to `regex`
        assert shorten(f"the fox{space}\r0", tokenizer, length(tokenizer, f"the fox{space}")) == "the fox"
        assert shorten(f"Pizza.{space}The fox", tokenizer, length(tokenizer, "Pizza. The")) == "Pizza."
    with pytest.raises(ValueError, match="max_tokens: 0; at least 1"):
        shorten("a", tokenizer, 0)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ('He said "no." Then he left.', 'He said "no."'),
        ("Dr. Who arrives. It rains.", "Dr. Who arrives."),
        ("J. K. Smith sings. It rains.", "J. K. Smith sings."),
        ("It cost 3.50 euros (a lot!). It rains.", "It cost 3.50 euros (a lot!)."),
        ("Wait... It rains.", "Wait..."),
        ("東京です。雨です。", "東京です。"),
        ("In 2017. It rains.", "In 2017."),
    ],
)
def test_ends_of_sentences(text, first, tokenizers):
    tokenizer = tokenizers["bpe"]
    assert shorten(text, tokenizer, length(tokenizer, text) - 1) == first


# --- running text


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("A fan is glad.\nShe cheers.", "A fan is glad. She cheers."),
        ("A fan is glad that\nshe won.", "A fan is glad that she won."),
        ("The picture shows:\n- a dog\n- a ball\n\nIt is fun.", "The picture shows: a dog; a ball. It is fun."),
        ("1. A dog runs.\n2. A ball flies.\n", "A dog runs. A ball flies."),
        ("* a dog\n  * its ball\n* a cat", "a dog; its ball; a cat."),
        ("• a dog\n• a cat", "a dog; a cat."),
        ("Entities: 1. Lin (player) 2. Ajax (club) Why: He won.", "Entities: Lin (player); Ajax (club) Why: He won."),
        ("1. Lin (player). 2. Ajax (club). He won.", "Lin (player). Ajax (club). He won."),
        ("(1) Lin (2) Ajax", "Lin; Ajax"),
        ("# Scene\n\nA stadium.", "Scene: A stadium."),
        ("# Text rationale\n\nA fan is glad.", "A fan is glad."),
        ("## Mood ##\nGlad\n## Scene\nStadium", "Mood: Glad. Scene: Stadium"),
        ("**Text rationale:** A fan is *very* glad.", "A fan is very glad."),
        ("__Mood:__ `glad`, see [here](http://a.b/c).", "Mood: glad, see here."),
        ("Sure, here is the rationale for the post:\n\nA fan is glad.", "A fan is glad."),
        ("Sure! Here's a short explanation of this post: A fan is glad.", "A fan is glad."),
        ("Certainly!\n\n> A fan is glad.", "A fan is glad."),
        ("Of course. A fan is glad. Let me know if you need more!", "A fan is glad."),
        ("Explanation: A fan is glad.\n\nI hope this helps!", "A fan is glad."),
        ("<think>Hm. Let me see:\n- who?</think>\n\nA fan is glad.", "A fan is glad."),
        ("```\nA fan is glad.\n```", "A fan is glad."),
        ("---\nA fan is glad.\n---\nShe cheers", "A fan is glad. She cheers"),
        ("A fan\x00 is\tglad\u00a0now.\r\n", "A fan is glad now."),
        ("", ""),
        (" \n ", ""),
        ("- ", ""),
    ],
)  # fmt: skip
def test_running_text(answer, wanted):
    assert to_running_text(answer) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "Sure enough, the crowd is glad. Here is a man who runs: fast.",
        "Of course, the applause is ironic.",
        "Here are three players: Lin, Marta and Bevan.",
        "The explanation is simple: it rains.",
        "He is f**king late, she is f**king early; 2 * 3 * 4 = 24, and @jeremy_lin_7 said #a_b_c ^_^ >_<.",
        "Final score 2. The hall [sic] was full (really), 50 – 60 people.",
        "She lists 1. a dog and then no more.",
        "Let me know if you come, she writes, and it sounds warm.",
        "He 'hopes this helps'. I hope this helps the reader, he says, and leaves.",
    ],
)
def test_running_text_is_left_alone(text):
    assert to_running_text(text) == text


@given(ANSWERS | st.text())
def test_running_text_stays_running_text(answer):
    running = to_running_text(answer)
    assert to_running_text(running) == running
    assert running == " ".join(running.split()), "one line, single spaces"


def test_long_answers_take_no_long_time():
    pieces = [
        "*a ",
        "_a ",
        "1. a ",
        "- ",
        "# ",
        "`",
        "[a](",
        "a\n",
        "let me know if ",
        "> ",
        "<think>",
        " ",
        "here is ",
    ]
    for piece in pieces:
        started = time.process_time()
        to_running_text(piece * (30_000 // len(piece)))
        assert time.process_time() - started < 2, piece


def test_the_rationales_of_the_sample_posts_are_left_alone():
    rows = [json.loads(line) for line in (POSTS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    rationales = [row[f"{kind}_rationale"] for row in rows for kind in ("image", "text")]
    assert len(rationales) >= 480
    assert [text for text in rationales if to_running_text(text) != text] == []


# --- polarity words


def test_words_with_a_value_and_the_polarities_are_masked(tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("glad\t0.8\nchair\t0\n:)\t0.5\nLIT\t0.4\n", encoding="utf-8")
    words = polarity_words(lexicon)
    assert words == {"glad", ":)", "LIT", "positive", "neutral", "negative"}
    text = "Glad, glad-eyed :) gladly\tLIT lit: the tone of the chair is Positive; not 'negative'."
    assert mask_words(text, words) == "■, ■-eyed ■ gladly\t■ lit: the tone of the chair is ■; not '■'."
    assert mask_words(text, words, "[MASK]").count("[MASK]") == 6
    assert mask_words("", words) == ""
    with pytest.raises(PostError, match="no lexicon"):
        polarity_words(tmp_path / "nothing.txt")


def test_vaders_words():
    words = polarity_words()
    assert len(words) > 7000 and {"great", "terrible", "neutral"} <= words
    assert mask_words("The great hall was terribly cold :(", words) == "The ■ hall was ■ cold ■"


@given(data=st.data())
def test_masking_twice_masks_no_more(data, any_text):
    text = data.draw(any_text)
    pieces = [text[start:end] for start, end in split_words(text)] + text.split()
    words = data.draw(st.frozensets(st.sampled_from([*pieces, "good"])))
    masked = mask_words(text, words)
    assert mask_words(masked, words) == masked
    assert masked.split() == [] or len(masked.split()) == len(text.split())
    assert not {piece for piece in masked.split() if piece in words} - {"■"}
    if not words & set(pieces) and not words & {piece.lower() for piece in pieces}:
        assert masked == text


def test_fit_for_training(tokenizers):
    tokenizer = tokenizers["bpe"]
    given = "Sure! Here's the rationale:\n- a great fox\n- the lazy dog\n\nThe fox loves pizza. It rains."
    wanted = "a ■ fox; the lazy dog. The fox loves pizza."
    budget = length(tokenizer, wanted)
    fit = fit_for_training(given, tokenizer, budget, {"great"})
    assert fit == wanted == fit_for_training(wanted, tokenizer, budget, {"great"})
    assert fit_for_training(None, tokenizer, 5) is fit_for_training(" \n", tokenizer, 5) is None


@given(data=st.data())
def test_fitting_twice_changes_nothing_more(data, tokenizers):
    tokenizer, budget = tokenizers["bpe"], data.draw(st.integers(1, 60))
    fit = fit_for_training(data.draw(ANSWERS), tokenizer, budget, {"picture", "wants"})
    assert fit_for_training(fit, tokenizer, budget, {"picture", "wants"}) == fit


# --- on real rationales


@pytest.mark.skipif(not (DATA / "twitter2017").is_dir(), reason="shared/data does not lie beside the checkout")
def test_published_rationales_become_running_text(tokenizers):
    counts = {"lines": 0, "changed": 0, "numbered": 0}
    for name in ("twitter2015", "twitter2017"):
        for line in (DATA / name / "validation.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for kind in ("image", "text"):
                given = row[f"{kind}_rationale"]
                running = to_running_text(given)
                counts["lines"] += "\n" in given
                counts["changed"] += running != given
                counts["numbered"] += " 1. " in f" {given}" and " 2. " in given
                assert "\n" not in running and to_running_text(running) == running
                assert " 2. " not in running or " 1. " not in f" {running}"
                short = shorten(running, tokenizers["bpe"], 60)
                assert length(tokenizers["bpe"], short) <= 60 and short
    assert counts["lines"] > 50 and counts["numbered"] > 500
