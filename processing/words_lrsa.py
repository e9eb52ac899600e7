"""Splits a raw post into words with character offsets."""

import regex


# One word is, in this order of preference: a URL; a letter of a script written without spaces, with its marks; a run
# of letters, digits and underscores, with their marks; a prepended mark, whose grapheme would take in white space
# behind it; or any other single grapheme (punctuation, an emoji with its modifiers).
# "@", "#" and apostrophes stand alone, so that a name in "@name", "#name" or "Name's" is a word of its own.
_WORD = regex.compile(
    r"https?://[^\s\x1c-\x1f<>]+"
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|(?:(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])[\p{L}\p{N}_]\p{M}*)+"
    r"|\p{Grapheme_Cluster_Break=Prepend}"
    r"|(?![\s\x1c-\x1f])\X"
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Returns the character offsets (start, end exclusive) of the words of `text`, in order.

    Words never overlap, never hold white space, and together cover every character that is not white space.
    Spans of aspects must start and end on these boundaries.

    Args:
        text: any Unicode string, the empty one included.
    """
    return [match.span() for match in _WORD.finditer(text)]
