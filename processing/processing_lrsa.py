"""Processor: texts, pictures and rationales in; tensors out, and target sequences back to aspects."""

from transformers.utils.versions import require_version


require_version("transformers>=5.22,<6")  # before imports that others lack

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs, Unpack
from transformers.utils import logging

from .batch_lrsa import EncodedPost, MABSABatch
from .decoding_lrsa import read_aspects, step_probabilities
from .images_lrsa import one_image, open_image
from .indexing_lrsa import IndexFormat, default_id2label
from .linguistic_columns_lrsa import check_linguistics, linguistic_columns
from .words_lrsa import split_words


if TYPE_CHECKING:
    # Files of relative imports travel with a saved processor, and the pipeline is to travel.
    from .pipeline_lrsa import MABSAPipeline  # noqa: F401

logger = logging.get_logger(__name__)


class LRSATextKwargs(TextKwargs, total=False):
    """
    task (`str`, defaults to `"mabsa"`):
        `"masc"` gives `aspect_spans` in place of `labels`.
    on_long_text (`str`, defaults to `"warn"`):
        `"warn"` cuts a text longer than the model with a warning, `"error"` refuses it.
    """

    task: str
    on_long_text: str


class LRSAProcessorKwargs(ProcessingKwargs, total=False):
    text_kwargs: LRSATextKwargs
    _defaults = {"text_kwargs": {"padding": True, "task": "mabsa", "on_long_text": "warn"}}


class _PartsInUse:
    """`get_attributes` of an [`LRSAProcessor`]: an instance without image processor has one less than its class."""

    def __get__(self, processor, cls):
        if processor is not None and processor.image_processor is None:
            return lambda: ["tokenizer"]
        return lambda: ["image_processor", "tokenizer"]


def begins_words(tokenizer) -> bool:
    """Whether a word that is tokenised by itself gets the tokens that it has behind a space."""
    settings = {"add_special_tokens": False, "padding": False, "truncation": False}
    alone = tokenizer(["a"], is_split_into_words=True, **settings).input_ids
    return alone[-1:] == tokenizer("a a", **settings).input_ids[-1:]


class LRSAProcessor(ProcessorMixin):
    r"""
    Turns posts into tensors for [`LRSAForMABSA`], and what it generates back into aspects.

    Args:
        image_processor: any image processor, or `None` where pictures are not used.
        tokenizer: the text model's tokenizer.
        num_special_targets, id2label, pointer_offset, end_points_to:
            The index format; the same values as in the model's configuration.
        max_text_length (`int`, *optional*):
            Text columns that the model takes, special tokens included (`LRSAConfig.max_text_length`). Defaults to the
            tokenizer's own.
        max_rationale_length (`int`, *optional*, defaults to 128):
            Tokens kept of a rationale, special tokens included.
    """

    valid_processor_kwargs = LRSAProcessorKwargs
    get_attributes = _PartsInUse()

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        num_special_targets: int = 2,
        id2label: dict[int, str] | None = None,
        pointer_offset: int | None = None,
        end_points_to: str = "first",
        max_text_length: int | None = None,
        max_rationale_length: int = 128,
        **kwargs,
    ):
        index_format = IndexFormat(num_special_targets, id2label or default_id2label(), pointer_offset, end_points_to)
        self.num_special_targets = index_format.num_special_targets
        self.id2label = index_format.id2label
        self.pointer_offset = index_format.pointer_offset
        self.end_points_to = index_format.end_points_to
        if max_text_length is None:
            max_text_length = min(tokenizer.model_max_length, 512) if tokenizer is not None else 512
        self.max_text_length = max_text_length
        self.max_rationale_length = max_rationale_length
        self.image_processor = image_processor
        if tokenizer is not None and not begins_words(tokenizer):
            logger.warning(
                f"{type(tokenizer).__name__} takes a word by itself for the rest of one, so the text model would read "
                "texts as it never did: load the tokenizer with `add_prefix_space=True`."
            )
        parts = {"image_processor": image_processor, "tokenizer": tokenizer}
        super().__init__(*(parts[name] for name in self.get_attributes()), **kwargs)
        if tokenizer is not None:
            self._rationale_frame()  # which refuses a length that is too short

    @classmethod
    def from_config(cls, config, tokenizer, image_processor=None, **kwargs) -> "LRSAProcessor":
        """Makes the processor of a model: its index format and lengths are those of the [`LRSAConfig`]."""
        names = ("num_special_targets", "id2label", "pointer_offset", "end_points_to", "max_text_length")
        return cls(image_processor, tokenizer, **{name: getattr(config, name) for name in names}, **kwargs)

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        if (processor_dict or {}).get("image_processor") is not None:
            return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, processor_dict, **kwargs)
        return [None, cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs)]

    def to_dict(self) -> dict[str, Any]:
        own_code = {"auto_map": {"AutoProcessor": "processing_lrsa.LRSAProcessor"}}
        return {name: value for name, value in super().to_dict().items() if value is not None} | own_code

    @property
    def index_format(self) -> IndexFormat:
        return IndexFormat(self.num_special_targets, self.id2label, self.pointer_offset, self.end_points_to)

    def check_fits(self, config) -> None:
        """Checks that this processor is one for models with `config`, an [`LRSAConfig`].

        Raises:
            ValueError: they differ in an index format value, or the tokenizer has more tokens than the model embeds.
        """
        for name in ("num_special_targets", "id2label", "pointer_offset", "end_points_to"):
            own, theirs = getattr(self, name), getattr(config, name)
            if own != theirs:
                raise ValueError(
                    f"The processor has {name}={own!r} and the model {theirs!r}: take the processor that was saved "
                    "with the model, or make one with the model's values."
                )
        if len(self.tokenizer) > config.text_config.vocab_size:
            raise ValueError(
                f"The tokenizer has {len(self.tokenizer)} tokens and the model embeds "
                f"{config.text_config.vocab_size}: take the text model's own tokenizer, or "
                f"`model.resize_token_embeddings({len(self.tokenizer)})`."
            )

    @property
    def model_input_names(self) -> list[str]:
        images = [] if self.image_processor is None else ["pixel_values", "image_attention_mask"]
        return ["input_ids", "attention_mask", "word_ids", *images]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        images: Any = None,
        image_rationales: str | None | Sequence[str | None] = None,
        text_rationales: str | None | Sequence[str | None] = None,
        aspects: Sequence | None = None,
        linguistics: dict | None | Sequence[dict | None] = None,
        **kwargs: Unpack[LRSAProcessorKwargs],
    ) -> MABSABatch:
        """
        Args:
            text: one post or a batch: a string, or a list of words (non-empty, no white space inside). A flat list of
                strings is a batch of strings, unless `is_split_into_words=True` says that it is one post's words.
            images: for each post a PIL image, path, URL, bytes, or `None`; a list of one of them or of none is taken
                too.
            image_rationales, text_rationales: for each post a string or `None`.
            aspects: for each post a list of `{"start", "end", "polarity"}`, in the units of `text`: characters, end
                exclusive, for a string, and words for words. With polarities in all of them the result holds `labels`.
            linguistics: for each post `{"nouns", "heads", "sentiment"}` with one entry a word, or `None`, for models
                with AoM's modules; what `Annotator` of `processing.linguistics` gives.
            kwargs: those of [`LRSATextKwargs`], and what other processors take. `padding="max_length"` gives texts
                `max_length` columns and rationales `max_rationale_length`.

        Returns:
            Tensors under the names that the model takes, and the posts in `.posts`.

        Raises:
            ValueError: a word, an aspect, a polarity, a picture or a length that does not fit; the message says what.
        """
        init_kwargs = dict(self.tokenizer.init_kwargs)
        if init_kwargs.get("padding") != "max_length":
            init_kwargs.pop("max_length", None)  # some are saved with the length that they were trained at
        merged = self._merge_kwargs(LRSAProcessorKwargs, tokenizer_init_kwargs=init_kwargs, **kwargs)
        text_kwargs = merged["text_kwargs"]
        task, on_long_text = text_kwargs["task"], text_kwargs["on_long_text"]
        if task not in ("mabsa", "mate", "masc") or on_long_text not in ("warn", "error"):
            raise ValueError(
                f'task={task!r} is "mabsa", "mate" or "masc"; on_long_text={on_long_text!r} "warn" or "error".'
            )
        is_split_into_words = text_kwargs.get("is_split_into_words")
        single = isinstance(text, str) or bool(is_split_into_words and text and isinstance(text[0], str))
        if single:
            text, images, aspects = [text], [images], None if aspects is None else [aspects]
            image_rationales, text_rationales, linguistics = [image_rationales], [text_rationales], [linguistics]
        if text is None or not len(text):
            raise ValueError("LRSAProcessor needs `text`, a post or more; pictures alone have no aspects to point at.")
        number = len(text)
        columns = {"images": images, "image_rationales": image_rationales, "text_rationales": text_rationales}
        columns["linguistics"] = linguistics
        columns = {name: [None] * number if value is None else value for name, value in columns.items()}
        for name, value in {**columns, **({} if aspects is None else {"aspects": aspects})}.items():
            if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != number:
                raise ValueError(f"`{name}` must have one entry for each of the {number} posts.")

        max_length = text_kwargs.get("max_length") or self.max_text_length
        posts = [EncodedPost.from_input(entry) for entry in text]
        for post, of_image, of_text in zip(posts, columns["image_rationales"], columns["text_rationales"]):
            post.image_rationale, post.text_rationale = of_image, of_text
        ids = self._encode_texts(posts, max_length, on_long_text)
        data: dict[str, list] = {
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "word_ids": [post.word_ids for post in posts],
        }
        if aspects is not None:
            data.update(self._encode_aspects(aspects, posts, task))
        for kind in ("image", "text"):
            data.update(self._encode_rationales(kind, columns[f"{kind}_rationales"]))
        data.update(self.encode_images(columns["images"], **merged["images_kwargs"]))
        return_tensors, padding = text_kwargs.get("return_tensors"), text_kwargs.get("padding")
        if padding or return_tensors is not None:
            data = self.pad(data, max_length if padding == "max_length" else None)
        if any(row is not None for row in columns["linguistics"]):
            check_linguistics(columns["linguistics"], [len(post.offsets) for post in posts])
            data.update(linguistic_columns(columns["linguistics"], data["word_ids"]))
        if single and not padding and return_tensors is None:
            data = {name: value[0] for name, value in data.items()}
        return MABSABatch(data, tensor_type=return_tensors, posts=posts)

    def _special_ids(self) -> tuple[list[int], list[int]]:
        """Special tokens in front of and behind a text."""
        ids = self.tokenizer("a").input_ids
        inner = self.tokenizer("a", add_special_tokens=False).input_ids
        first = next(i for i in range(len(ids)) if ids[i : i + len(inner)] == inner)
        return ids[:first], ids[first + len(inner) :]

    def _rationale_frame(self) -> tuple[list[int], int, list[int]]:
        """Special tokens in front of a rationale, how many of its own there may be, and those behind it."""
        before, after = self._special_ids()
        special = len(before) + len(after)
        if self.max_rationale_length <= special:
            raise ValueError(
                f"max_rationale_length={self.max_rationale_length} leaves no room beside {special} special tokens: it "
                f"must be at least {special + 1}."
            )
        return before, self.max_rationale_length - special, after

    def _encode_texts(self, posts: list[EncodedPost], max_length: int, on_long_text: str) -> list[list[int]]:
        """Returns the token ids of each post and sets its `word_ids`. Each word is tokenised alone."""
        unique = sorted({post.text[start:end] for post in posts for start, end in post.offsets})
        tokens: dict[str, list[int]] = {}
        if unique:
            encoded = self.tokenizer(
                [[word] for word in unique],
                is_split_into_words=True,
                add_special_tokens=False,
                split_special_tokens=True,
                padding=False,
                truncation=False,
            )
            tokens = dict(zip(unique, encoded.input_ids))
        before, after = self._special_ids()
        rows = []
        for post in posts:
            ids, words = list(before), [-1] * len(before)
            for index, (start, end) in enumerate(post.offsets):
                pieces = tokens[post.text[start:end]] or [self.tokenizer.unk_token_id]
                if len(ids) + len(pieces) + len(after) > max_length:
                    message = (
                        f"A text of {len(post.offsets)} words is longer than the model's {max_length} tokens: "
                        f"the last {len(post.offsets) - index} words, from {post.text[start : start + 30]!r} on, "
                        "are cut."
                    )
                    if on_long_text == "error":
                        raise ValueError(message)
                    logger.warning(message)
                    break
                ids += pieces
                words += [index] * len(pieces)
            rows.append(ids + after)
            post.word_ids = words + [-1] * len(after)
        return rows

    def _encode_aspects(self, aspects: Sequence, posts: list[EncodedPost], task: str) -> dict[str, list]:
        index_format = self.index_format
        label2target = index_format.label2target
        labels, spans = [], []
        for row, post in zip(aspects, posts):
            if row is None:  # this post has no gold, so the batch has no labels
                spans.append([])
                continue
            words = post.word_spans(row)
            columns = [index_format.span_columns(start, end, post.word_ids) for start, end in sorted(words)]
            spans.append([list(pair) for pair in columns if pair is not None])
            polarities = [aspect.get("polarity") for aspect in row]
            known = [None, *label2target]  # a list: what is given may be anything
            if unknown := [polarity for polarity in polarities if polarity not in known]:
                raise ValueError(f"unknown polarity {unknown[0]!r}: one of {', '.join(label2target)} is expected.")
            if all(polarity is not None for polarity in polarities):
                triples = [(start, end, polarity) for (start, end), polarity in zip(words, polarities)]
                labels.append(index_format.encode(triples, post.word_ids))
        if task == "masc":
            return {"aspect_spans": spans}
        return {"labels": labels} if len(labels) == len(posts) else {}

    def _encode_rationales(self, kind: str, rationales: Sequence[str | None]) -> dict[str, list]:
        if not any(rationales):
            return {}
        given = [rationale for rationale in rationales if rationale]
        # Cut here: a tokenizer that cuts keeps the length, and writes it into what it saves.
        encoded = self.tokenizer(
            given, truncation=False, padding=False, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        before, room, after = self._rationale_frame()
        encoded_rows = iter(encoded.input_ids)
        rows = [before + next(encoded_rows)[:room] + after if rationale else [] for rationale in rationales]
        masks = [[1] * len(ids) for ids in rows]
        return {f"{kind}_rationale_input_ids": rows, f"{kind}_rationale_attention_mask": masks}

    def rationale_words(self, rationale: str) -> tuple[list[dict[str, Any]], list[int]]:
        """Returns the words of a rationale as `{"word", "start", "end"}`, offsets in characters, end exclusive; and
        which of them each of its tokens belongs to, as the model gets them, -1 for special tokens.

        Raises:
            ValueError: the tokenizer is a slow one, which does not tell where its tokens lie.
        """
        if not self.tokenizer.is_fast:
            raise ValueError("Explanations need a fast tokenizer, which tells where its tokens lie in a rationale.")
        spans = split_words(rationale)
        word_at = [-1] * len(rationale)
        for index, (start, end) in enumerate(spans):
            word_at[start:end] = [index] * (end - start)
        encoded = self.tokenizer(
            rationale,
            truncation=False,
            padding=False,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        # A token begins with the white space in front of its word, with some tokenizers.
        inner = [max(word_at[start:end], default=-1) for start, end in encoded.offset_mapping]
        before, room, after = self._rationale_frame()
        words = [{"word": rationale[start:end], "start": start, "end": end} for start, end in spans]
        return words, [-1] * len(before) + inner[:room] + [-1] * len(after)

    def encode_images(self, images: Sequence, **kwargs) -> dict[str, list]:
        """Returns the pictures of posts as `pixel_values`, zeros where there is none, with `image_attention_mask`."""
        images = [one_image(image) for image in images]
        if all(image is None for image in images):
            return {}
        if self.image_processor is None:
            logger.warning_once("The pictures are left out: this processor has no image processor.")
            return {}
        loaded = [open_image(image) for image in images if image is not None]
        kwargs["return_tensors"] = "np"
        pixels = self.image_processor(loaded, **kwargs)["pixel_values"]
        given = iter(pixels)
        rows = [pixels[0] * 0 if image is None else next(given) for image in images]
        return {"pixel_values": rows, "image_attention_mask": [int(image is not None) for image in images]}

    def pad(self, data: dict[str, list], max_length: int | None = None) -> dict[str, list]:
        """Pads every ragged entry to its longest row; given `max_length`, texts to it and rationales to theirs.

        Ids with the tokenizer's padding, labels with -100, others so that they say "not there".
        """
        pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        values = {"word_ids": -1, "labels": -100, "aspect_spans": [-1, -1]}
        padded = {}
        for name, rows in data.items():
            if name in ("pixel_values", "image_features", "image_attention_mask"):
                padded[name] = rows
                continue
            value = pad_id if name.endswith("input_ids") else values.get(name, 0)
            longest = max(1, max(len(row) for row in rows))
            if max_length is not None and "rationale" in name:
                longest = max(longest, self.max_rationale_length)
            elif max_length is not None and name in ("input_ids", "attention_mask", "word_ids"):
                longest = max(longest, max_length)
            padded[name] = [list(row) + [value] * (longest - len(row)) for row in rows]
        return padded

    def post_process_mabsa(self, outputs: Any, inputs: MABSABatch, task: str = "mabsa") -> list[list[dict]]:
        """Reads aspects off generated sequences.

        Args:
            outputs: what `generate` returned: target ids (rows, length), or its output object; with
                `output_scores=True` each prediction has a score, the product of its three step probabilities.
            inputs: the batch that was generated from. Where several sequences were returned for a post, each has a
                row.
            task: `"mate"` leaves out the polarity.

        Returns:
            One list of `{"aspect", "polarity", "score", "start", "end"}` a row, sorted by start, offsets in
            characters, end exclusive; for words with `"word_start"` and `"word_end"` (exclusive) besides, offsets in
            `" ".join(words)`.
        """
        sequences = getattr(outputs, "sequences", outputs).tolist()
        return read_aspects(self.index_format, sequences, step_probabilities(outputs), inputs.posts, task)


LRSAProcessor.register_for_auto_class()
