"""Tokenises a data set of posts once, with a cache."""

import hashlib
import json
from pathlib import Path

from datasets import Dataset, Features, List, Value

from .cache import cache_file
from .chosen_inputs import RATIONALES
from .processing_lrsa import LRSAProcessor


# Declared, since a file is written a thousand rows at a time, and the first thousand may hold empty lists alone.
_IDS = List(Value("int32"))
_FEATURES = {
    "input_ids": _IDS,
    "word_ids": _IDS,
    "text": Value("string"),
    "offsets": List(_IDS),
    "is_words": Value("bool"),
    "labels": _IDS,
    "aspect_spans": List(_IDS),
    "image_rationale_input_ids": _IDS,
    "text_rationale_input_ids": _IDS,
}
# Go into batches as they are.
PICTURES = ("image", "image_features")


def fingerprint(processor: LRSAProcessor) -> str:
    """Returns a key that differs between processors that make different rows, whatever they did before."""
    settings = json.loads(processor.to_json_string())
    tokenizer = processor.tokenizer
    if hasattr(tokenizer, "backend_tokenizer"):
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
    else:
        backend = {"vocab": tokenizer.get_vocab()}
    # What saving and the last call leave behind, and what makes pixels alone.
    for name in ("auto_map", "image_processor"):
        settings.pop(name, None)
    for name in ("truncation", "padding"):
        backend.pop(name, None)
    return hashlib.sha256(json.dumps([settings, backend], sort_keys=True).encode()).hexdigest()


def prepare_posts(posts: Dataset, processor: LRSAProcessor, task: str = "mabsa", rationales: bool = True) -> Dataset:
    """Tokenises posts (from `load_posts`) once: ids, words, labels and rationale ids as lists, unpadded.

    Args:
        task: `"masc"` gives `aspect_spans` in place of `labels`.
        rationales: whether the model takes rationales.

    Returns:
        A data set for `DataCollatorForMABSA`, with `labels` where every aspect of every post has its polarity; `text`,
        `offsets` and `is_words` of each post come along for `post_process_mabsa`, its rationales for explanations.
        Kept in an Arrow file, whose name follows from the posts' content and the processor.
    """
    labelled = task != "masc" and all(
        row is not None and all(aspect["polarity"] is not None for aspect in row) for row in posts["aspects"]
    )
    new = ["input_ids", "word_ids", "text", "offsets", "is_words"]
    new += ["aspect_spans"] if task == "masc" else ["labels"] if labelled else []
    new += ["image_rationale_input_ids", "text_rationale_input_ids"] if rationales else []

    def prepare(batch: dict) -> dict:
        encoded = encode_posts(batch, processor, task, rationales, labelled)
        return {name: encoded[name] for name in new}

    kept = [name for name in ("id", "aspects", *RATIONALES * rationales) if name in posts.column_names]
    path = cache_file("prepare", posts._fingerprint, fingerprint(processor), task, *kept)
    prepared = posts.select_columns([name for name in posts.column_names if name not in PICTURES]).map(
        prepare,
        batched=True,
        batch_size=256,
        remove_columns=[name for name in posts.column_names if name not in (*kept, *PICTURES)],
        features=Features({name: posts.features[name] for name in kept} | {name: _FEATURES[name] for name in new}),
        cache_file_name=path,
        new_fingerprint=Path(path).stem,
        desc="Tokenising",
    )
    for name in PICTURES:
        if any_given(posts, name):
            prepared = prepared.add_column(name, posts.data.column(name), feature=posts.features[name])
    prepared._fingerprint = Path(path).stem
    return prepared


def encode_posts(
    posts: dict[str, list], processor: LRSAProcessor, task: str, rationales: bool, labelled: bool = False
) -> dict[str, list]:
    """Tokenises a batch of posts, given by columns; see `prepare_posts` for what comes out.

    Args:
        labelled: whether every aspect has its polarity, and `labels` are wanted.
    """
    encoded = processor(
        text=[text if words is None else words for text, words in zip(posts["text"], posts["words"])],
        image_rationales=posts["image_rationale"] if rationales else None,
        text_rationales=posts["text_rationale"] if rationales else None,
        aspects=[aspects or [] for aspects in posts["aspects"]] if labelled or task == "masc" else None,
        task=task,
        padding=False,
    )
    columns = {name: encoded[name] for name in ("input_ids", "word_ids")}
    columns |= {name: encoded[name] for name in ("labels", "aspect_spans") if name in encoded}
    columns |= {name: [getattr(post, name) for post in encoded.posts] for name in ("text", "offsets", "is_words")}
    if rationales:
        for name in RATIONALES:  # a missing one is an empty list
            columns[f"{name}_input_ids"] = encoded.get(f"{name}_input_ids", [[]] * len(encoded.posts))
    return columns


def any_given(posts: Dataset, name: str) -> bool:
    return name in posts.column_names and posts.data.column(name).null_count < len(posts)
