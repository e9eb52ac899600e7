"""Batches of posts: what the processor gives."""

from dataclasses import dataclass

from transformers.feature_extraction_utils import BatchFeature


@dataclass
class EncodedPost:
    """What `post_process_mabsa` needs of a post besides its tensors.

    Attributes:
        text: the original string, or the words joined by spaces.
        offsets: character offsets (start, end exclusive) of each word in `text`.
        word_ids: word of each text column, -1 at special tokens.
        is_words: whether the post was given as words.
        image_rationale, text_rationale: as they were given, for explanations.
    """

    text: str
    offsets: list[tuple[int, int]]
    word_ids: list[int]
    is_words: bool
    image_rationale: str | None = None
    text_rationale: str | None = None


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
