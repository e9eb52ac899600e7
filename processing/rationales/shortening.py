"""Makes rationales fit for training: running text, within a budget of tokens, without polarity words if wanted."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import regex

from ..indexing_lrsa import DEFAULT_LABELS
from ..posts import PostError
from ..words_lrsa import split_words


_SPACE = r"\s\x1c-\x1f"  # as `str.strip` sees it; `regex` leaves out the separators
_ABBREVIATIONS = r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Mt|vs|cf|approx|e\.g|i\.e|No|\p{Lu})"
_SENTENCE_END = regex.compile(
    rf"(?:(?<!{_ABBREVIATIONS})\.|[!?…])[.!?…]*[\"'”’»)\]]*(?=[{_SPACE}]|$)|[。！？]+[」』”）]*"
)
_RUN_END = regex.compile(rf"(?<=[^{_SPACE}])(?=[{_SPACE}]|$)")


def fit_for_training(
    rationale: str | None, tokenizer: Callable[..., Any], max_tokens: int, masked: Collection[str] = ()
) -> str | None:
    """Makes one rationale running text, masks words in it, and cuts it to a budget; `None` where nothing is left.

    Args:
        tokenizer, max_tokens: as of `shorten`.
        masked: words to mask, such as `polarity_words()`.
    """
    return shorten(mask_words(to_running_text(rationale or ""), masked), tokenizer, max_tokens) or None


def shorten(text: str, tokenizer: Callable[..., Any], max_tokens: int) -> str:
    """Cuts a rationale to a budget: at the last sentence end that is within it; where the first sentence is too long,
    at white space, and where its first run of characters is too long, between words. `""` where nothing is within.

    Args:
        tokenizer: what `AutoTokenizer` gives. Its special tokens do not count.
        max_tokens: the budget, at least 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens: {max_tokens}; at least 1 is expected.")
    text = text.strip()

    def fits(part: str) -> bool:
        # As the processor counts: what looks like a special token is ordinary text.
        ids = tokenizer(part, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return len(ids) <= max_tokens

    if fits(text):
        return text
    for ends in (_sentence_ends(text), _run_ends(text), _word_ends(text)):
        positions = list(ends)
        low, high = 0, len(positions)  # those before `low` were seen to fit, or precede one that was
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if fits(text[: positions[middle]]) else (low, middle)
        if low:
            return text[: positions[low - 1]]
    return ""


def _sentence_ends(text: str) -> Iterator[int]:
    return (match.end() for match in _SENTENCE_END.finditer(text))


def _run_ends(text: str) -> Iterator[int]:
    return (match.end() for match in _RUN_END.finditer(text))


def _word_ends(text: str) -> Iterator[int]:
    return (end for _, end in split_words(text))


# --- running text

_THOUGHT = regex.compile(r"^\s*<think(?:ing)?>.*?</think(?:ing)?>\s*", regex.DOTALL | regex.IGNORECASE)
_NOUN = r"(?:rationale|explanation|analysis|description|interpretation|answer|summary|response)s?"
_OPENERS = regex.compile(
    r"^\s*(?:"
    r"(?:sure(?:\s+thing)?|certainly|of\s+course|absolutely|understood|okay|ok)\s*(?:[!.:]|,(?=\s*here\b))\s*"
    rf"|here(?:['’]s|\s+is|\s+are)\s[^\n.!?:]{{0,120}}\b{_NOUN}\b[^\n.!?:]{{0,80}}:\s*"
    rf"|(?:the\s+)?(?:text\s+|image\s+)?{_NOUN}\s*:\s+"
    r")",
    regex.IGNORECASE,
)
_CLOSERS = regex.compile(
    r"(?<=[.!?…][\"'”’)\]]*\s|\n)\s*(?:i hope (?:this|that) helps|(?:let me know (?:if|whether)|feel free to"
    r"|would you like me to|is there anything else)[^.!?\n]*)[.!?]*\s*$",
    regex.IGNORECASE,
)
_FENCE = regex.compile(r"[ \t]*(?:```|~~~)[\w-]*[ \t]*")
_RULE = regex.compile(r"[ \t]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:=[ \t]*){3,})")
_HEADING = regex.compile(r"[ \t]*#{1,6}[ \t]+(.*?)[ \t#]*")
_QUOTED = regex.compile(r"[ \t]*(?:>[ \t]?)+")
_ITEM = regex.compile(r"[ \t]*(?:(?:[-*+•◦▪‣·–—]|\(?\d{1,2}[.)]|\(?[a-z][)])[ \t]+)+")
_INLINE_NUMBER = regex.compile(r"(?<!\S)\(?(\d{1,2})[.)]\s+(?=\S)")
_EMPHASIS = [
    (regex.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)"), r"\1"),
    (regex.compile(r"(?<![\w*])(\*{1,3})(?=[\w\"'“‘(])([^*\n]*[^\s*])\1(?![\w*])"), r"\2"),
    (regex.compile(r"(?<![^\s\"'“‘(])(_{1,3})(?=[\w\"'“‘(])([^_\n]*[^\s_])\1(?![^\s\"'”’).,:;!?])"), r"\2"),
    (regex.compile(r"`([^`\n]+)`"), r"\1"),
]
_CONTROLS = regex.compile(r"[^\P{Cc}\s]")
_ENDED = regex.compile(r"[.!?…:;,。！？][\"'”’»)\]]*$")


def to_running_text(text: str) -> str:
    """Turns an answer with lists, headings and other Markdown into one paragraph of sentences.

    Items of a list are parted by semicolons where they are no sentences. "Sure, here is the explanation:" and the like
    at the beginning, "Let me know if ..." at the end and what a reasoning model thought aloud are left out.
    """
    while (simpler := _simplify(text)) != text:
        text = simpler
    return text


def _simplify(text: str) -> str:
    text = _THOUGHT.sub("", text)
    text = _CLOSERS.sub("", _OPENERS.sub("", text))
    for pattern, replacement in _EMPHASIS:
        text = pattern.sub(replacement, text)
    return _join_lines(_CONTROLS.sub("", text))


def _join_lines(text: str) -> str:
    parts: list[str] = []
    former, gap = "", False
    for line in map(_without_inline_numbers, text.splitlines()):
        if not line.strip() or _FENCE.fullmatch(line) or _RULE.fullmatch(line):
            gap = True
            continue
        line = _QUOTED.sub("", line, count=1) if line.lstrip().startswith(">") else line
        heading, item = _HEADING.fullmatch(line), _ITEM.match(line)
        kind = "heading" if heading else "item" if item else "line"
        content = " ".join((heading[1] if heading else line[item.end() :] if item else line).split())
        if not content:
            continue
        if parts:
            parts.append(" " if _ENDED.search(parts[-1]) else _glue(former, kind, gap))
        parts.append(content)
        former, gap = kind, False
    return "".join(parts) + ("." if former == "item" and not _ENDED.search(parts[-1]) else "")


def _glue(former: str, kind: str, gap: bool) -> str:
    """What stands between two lines of which the former does not end a sentence or clause."""
    if former == "heading":
        return ": "
    if former == kind == "item":
        return "; "
    return ". " if gap or former == "item" or kind == "heading" else " "


def _without_inline_numbers(text: str) -> str:
    """Takes the numbers out of "1. one 2. two 3. three", where there are at least two in a row."""
    runs: list[list[regex.Match]] = []
    for match in _INLINE_NUMBER.finditer(text):
        if runs and int(match[1]) == len(runs[-1]) + 1:
            runs[-1].append(match)
        elif int(match[1]) == 1:
            runs.append([match])
    parts, position = [], 0
    for run in runs:
        for number, match in enumerate(run if len(run) > 1 else []):
            before = text[position : match.start()].rstrip()
            parts += [before, "" if not before else " " if number == 0 or _ENDED.search(before) else "; "]
            position = match.end()
    return "".join(parts) + text[position:]


# --- polarity words


def polarity_words(lexicon: str | Path | None = None) -> frozenset[str]:
    """Returns the words of a lexicon whose value is not 0, and the names of the polarities.

    Args:
        lexicon: as `processing.linguistics.read_lexicon` takes it; VADER's by default.

    Raises:
        PostError: VADER is not installed, or the lexicon can't be read.
    """
    from ..linguistics import read_lexicon, vader_lexicon

    try:
        values = read_lexicon(vader_lexicon() if lexicon is None else lexicon)
    except ImportError as error:
        raise PostError("VADER's lexicon is read: pip install lrsa[aom], or name a lexicon.") from error
    return frozenset(word for word, value in values.items() if value) | frozenset(DEFAULT_LABELS)


def mask_words(text: str, words: Collection[str], mask: str = "■") -> str:
    """Puts a mask in place of words, to see what a model learns from rationales without them.

    Runs of characters between white space, which emoticons are, and the words of `split_words` are looked up as they
    are written and in lower case.
    """

    def hit(word: str) -> bool:
        return word in words or word.lower() in words

    def masked(match: regex.Match) -> str:
        run = match[0]
        if hit(run):
            return mask
        parts, position = [], 0
        for start, end in split_words(run):
            if hit(run[start:end]):
                parts += [run[position:start], mask]
                position = end
        return "".join(parts) + run[position:]

    return regex.sub(rf"[^{_SPACE}]+", masked, text)
