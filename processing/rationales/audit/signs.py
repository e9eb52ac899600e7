"""What can be seen of one rationale without a model: refusals, cuts, languages, aspects named, polarities named."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache


# Frequent words of running text. One that two languages share decides nothing between them.
_STOP_WORDS = {
    "English": "the and of to is in that with for are this it was as on an by its who which",
    "German": "der die das und ist ein eine nicht mit von den zu auf für dem auch sich wird im",
    "French": "le la les et des une est dans pour qui pas sur du avec ce cette sont au par",
    "Spanish": "el los las y que es una con para del por se como está son su esta al lo",
    "Italian": "il che di è una con per gli della non sono nel questo alla dei anche lo si",
    "Portuguese": "o os as e que uma com para do da não em por é são como dos no na",
    "Dutch": "de het een en van is niet met voor op zijn dat te aan bij ook wordt die naar",
    "Polish": "i w na z się nie jest to że do przez od jak oraz dla jego po",
    "Turkish": "ve bir bu için ile da de olarak olan gibi çok daha ne kadar",
    "Indonesian": "yang dan di ini itu dengan untuk dari pada adalah tidak dalam oleh akan",
}
_STOP_WORDS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "CYRILLIC", "ARABIC", "DEVANAGARI", "GREEK", "HEBREW", "THAI")

_NAMED = re.compile(r"(?<!\w)(positive|neutral|negative)(?!\w)", re.I)
_DERIVED = re.compile(r"(?<!\w)(?:positiv|neutral|negativ)\w*", re.I)
_LABEL = r"(?:positive|neutral|negative|pos|neu|neg)(?!\w)"
_STATEMENT = re.compile(
    rf"[(\[{{<]\s*{_LABEL}\s*[)\]}}>]"
    rf"|\b(?:sentiment|polarity|label|class|category|annotation|ground[ -]truth|gold)s?\b[^.!?\n]{{0,40}}?"
    rf"(?:\b(?:is|are|was|as)\b(?:\s\w+)?|=|:)\s*[\"'“‘*(\[]*{_LABEL}"
    rf"|\b(?:label+|classifi|annotat)ed\s+(?:as\s+)?[\"'“‘]?{_LABEL}"
    rf"|(?<!\w){_LABEL}(?:\s+(?:sentiment|polarity|label|class))?\W*$",
    re.I,
)

_SELF = r"(?:i|we)(?:\s+am|['’]m|\s+was|['’]re)?"
_REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]m|i am|we['’]re|we are)\s+(?:very |so |really )?sorry|sorry|(?:my )?apologies|i apologi[sz]e)\b"
    r"|\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    rf"|\b{_SELF}\s+(?:cannot|can['’]t|can not|could not|couldn['’]t|unable to|not able to|do not|don['’]t)\s+"
    r"(?:\w+\s+){0,2}?(?:see|view|access|open|assist|help|provide|identify|comply|fulfil+|process|analy[sz]e|create|generate"
    r"|describe|interpret|discuss)\b"
    r"|\bno (?:image|picture|photo) (?:was|is|has been|were) (?:provided|given|attached|included|uploaded)\b",
    re.I,
)
_ENDED = re.compile(r"[.!?…。！？؟।][\"'”’»›)\]}*」』）\s]*$")
_LIST = re.compile(r"(.*?)\breasoning\s*:", re.I | re.S)
_WORD = re.compile(r"\w+")


def is_refusal(rationale: str) -> bool:
    """Whether a model says that it won't or can't: "I'm sorry", "As an AI", "I cannot see the image"."""
    return _REFUSAL.search(rationale) is not None


def is_unfinished(rationale: str) -> bool:
    """Whether no sentence ends where the rationale ends."""
    return _ENDED.search(rationale) is None


def named_polarities(rationale: str) -> frozenset[str]:
    """Returns the polarities that are named by the label's own word, as a planted label would be, in any case."""
    return frozenset(word.lower() for word in _NAMED.findall(rationale))


def has_polarity_stem(rationale: str) -> bool:
    """Whether a polarity is named by its label or by a word derived from it, such as "positivity" or "negatively"."""
    return _DERIVED.search(rationale) is not None


def states_label(rationale: str) -> bool:
    """Whether a label is stated outright: "(positive)", "sentiment: negative", "labelled as neutral", as last word."""
    return _STATEMENT.search(rationale) is not None


def names(text: str, aspect: str) -> bool:
    """Whether an aspect stands in a text: in any case, between word borders, whatever white space parts its words."""
    pattern = r"\s+".join(map(re.escape, aspect.split()))
    return re.search(rf"(?<!\w){pattern}(?!\w)", text, re.I) is not None


def entity_list(rationale: str) -> str:
    """Returns the list that stands before "Reasoning:", `""` where there is none."""
    match = _LIST.match(rationale)
    return match[1] if match else ""


def guess_language(rationale: str) -> str:
    """Guesses the language by script, and in Latin script by the stop words of ten languages.

    Returns:
        Name of a language or, where the script is no Latin, of the script; `"unknown"` where neither shows.
    """
    scripts = Counter(_script(letter) for letter in rationale if letter.isalpha())
    if scripts and (script := scripts.most_common(1)[0][0]) != "LATIN":
        return script if script == "CJK" else script.capitalize()
    words = [word.lower() for word in _WORD.findall(rationale)]
    counts = {language: sum(word in stop for word in words) for language, stop in _STOP_WORDS.items()}
    first, second = sorted(counts.values(), reverse=True)[:2]
    return max(counts, key=counts.get) if first > second else "unknown"


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return next((script for script in _SCRIPTS if name.startswith(script)), "LATIN")


class Examples:
    """Finds rationales that repeat a few-shot example.

    Args:
        texts: the answers of a prompt's examples.
        share: of the word trigrams of a rationale, how many must stand in one example.
    """

    def __init__(self, texts: Collection[str], share: float = 0.8):
        self.trigrams = [_trigrams(text) for text in texts]
        self.share = share

    def repeats(self, rationale: str) -> bool:
        found = _trigrams(rationale)
        return any(len(found & example) >= self.share * len(found) for example in self.trigrams if found)


def _trigrams(text: str) -> frozenset[Sequence[str]]:
    words = [word.lower() for word in _WORD.findall(text)]
    return frozenset(tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1))) if words else frozenset()
