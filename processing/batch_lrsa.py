"""Batches of posts: what the processor gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers.feature_extraction_utils import BatchFeature

from .words_lrsa import split_words


@dataclass
class EncodedPost:
    """What `post_process_mabsa` needs of a post besides its tensors.

    Attributes:
        text: the original string, or the words joined by spaces.
        offsets: character offsets (start, end exclusive) of each word in `text`.
        is_words: whether the post was given as words.
        word_ids: word of each text column, -1 at special tokens.
        image_rationale, text_rationale: as they were given, for explanations.
    """

    text: str
    offsets: list[tuple[int, int]]
    is_words: bool
    word_ids: list[int] = field(default_factory=list)
    image_rationale: str | None = None
    text_rationale: str | None = None

    @classmethod
    def from_input(cls, text: str | Sequence[str]) -> "EncodedPost":
        """Makes the post of a string or of a list of words, as yet without columns.

        Raises:
            ValueError: a word is empty, or has white space inside.
        """
        if isinstance(text, str):
            return cls(text, split_words(text), is_words=False)
        offsets, position = [], 0
        for word in text:
            if not isinstance(word, str) or not word or word.split() != [word]:
                raise ValueError(f"{word!r} is no word: words are non-empty strings without white space.")
            offsets.append((position, position + len(word)))
            position += len(word) + 1
        return cls(" ".join(text), offsets, is_words=True)

    def word_spans(self, aspects: Sequence[dict]) -> list[tuple[int, int]]:
        """Returns the (start, end exclusive) words of aspects given in the units of the post.

        Raises:
            ValueError: a span lies outside the text, cuts a word, or overlaps another.
        """
        starts = {start: i for i, (start, _) in enumerate(self.offsets)}
        ends = {end: i + 1 for i, (_, end) in enumerate(self.offsets)}
        length = len(self.offsets) if self.is_words else len(self.text)
        unit = "words" if self.is_words else "characters"
        spans = []
        for aspect in aspects:
            start, end = aspect["start"], aspect["end"]
            if not 0 <= start < end <= length:
                raise ValueError(f"aspect {start}–{end} lies outside the text of {length} {unit}.")
            if not self.is_words:
                if start not in starts or end not in ends:
                    raise ValueError(
                        f"aspect {self.text[start:end]!r} ({start}–{end}) cuts a word or holds white space at its "
                        "edge: aspects start and end where words do."
                    )
                start, end = starts[start], ends[end]
            spans.append((start, end))
        for (_, former_end), (start, _) in zip(sorted(spans), sorted(spans)[1:]):
            if start < former_end:
                raise ValueError(f"aspects overlap at word {start}.")
        return spans


class MABSABatch(BatchFeature):
    """A `BatchFeature` of tensors alone, with the posts that they came from in `posts`.

    It survives `to` and pickling.
    """

    def __init__(self, data=None, tensor_type=None, posts: list[EncodedPost] | None = None, **kwargs):
        super().__init__(data, tensor_type, **kwargs)
        self.posts = posts or []

    def __getstate__(self):
        return {"data": self.data, "posts": self.posts}

    def __setstate__(self, state):
        self.data = state["data"]
        self.posts = state["posts"]

    def to(self, *args, **kwargs) -> "MABSABatch":
        moved = super().to(*args, **kwargs)
        moved.posts = self.posts
        return moved
