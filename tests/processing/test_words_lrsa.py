import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import split_words


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


def check(text: str):
    spans = split_words(text)
    covered: set[int] = set()
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        # A word goes to the tokenizer as one, so it must hold no white space inside either.
        assert text[start:end].split() == [text[start:end]]
        covered.update(range(start, end))
        position = end
    assert covered.issuperset(index for index, character in enumerate(text) if not character.isspace())


@given(data=st.data())
def test_spans_are_ordered_disjoint_and_cover_all_but_white_space(any_text, data):
    check(data.draw(any_text))


@pytest.mark.parametrize("first", ["\u0600", "\u06dd", "\U000110bd", "\u0d4e", "\u200d", "\u0301", "🇵", "ᄒ", "\r"])
def test_graphemes_that_join_their_neighbours(first):
    for second in (" ", "\n", "\u00a0", "\u2028", "\x1c", "\u0301", "\u200d", "🇵", "a", "กำ", "."):
        for text in (first + second, second + first, f"a{first}{second}b", f"a {first} {second} b"):
            check(text)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0\u3000\x1c"])
def test_nothing_to_split(text):
    assert split_words(text) == []


@pytest.mark.parametrize("text", ["a", ".", "東", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🇵🇹", "❤️", "1", "\u200b", "\u0301", "_"])
def test_one_character_is_one_word(text):
    assert split_words(text) == [(0, len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("don't", ["don", "'", "t"]),
        ("@jeremy_lin7 #OpenAir", ["@", "jeremy_lin7", "#", "OpenAir"]),
        ("see https://t.co/a?b=c#d now", ["see", "https://t.co/a?b=c#d", "now"]),
        ("<http://a.b>", ["<", "http://a.b", ">"]),
        ("👍🏿👍", ["👍🏿", "👍"]),
        ("🇵🇹🇧🇷", ["🇵🇹", "🇧🇷"]),
        ("love👩🏽‍🚀it", ["love", "👩🏽‍🚀", "it"]),
        ("東京 タ", ["東", "京", "タ"]),
        ("iPhone東", ["iPhone", "東"]),
        ("cafe\u0301 au", ["cafe\u0301", "au"]),
        ("Здравствуйте, мир", ["Здравствуйте", ",", "мир"]),
        ("नमस्ते", ["नमस्ते"]),
        ("  a  b  ", ["a", "b"]),
        ("...", [".", ".", "."]),
    ],
)
def test_words_of_known_texts(text, expected):
    assert words(text) == expected
    check(text)
