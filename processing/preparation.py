"""Tokenises a data set of posts once, with a cache."""

import hashlib
import os
from pathlib import Path

from datasets import Dataset, config

from .processing_lrsa import LRSAProcessor


def cache_folder() -> Path:
    """Returns `LRSA_CACHE`, by default `lrsa` in the cache of `datasets`."""
    folder = Path(os.environ.get("LRSA_CACHE") or Path(config.HF_DATASETS_CACHE) / "lrsa")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_file(*parts: str) -> str:
    """Returns the path of the Arrow file that holds what is computed from `parts`."""
    return str(cache_folder() / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.arrow")


def fingerprint(processor: LRSAProcessor) -> str:
    """Returns a key that differs between processors that differ."""
    tokenizer = processor.tokenizer
    backend = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else str(tokenizer.get_vocab())
    return hashlib.sha256((processor.to_json_string() + backend).encode()).hexdigest()


def prepare_posts(posts: Dataset, processor: LRSAProcessor, task: str = "mabsa", rationales: bool = True) -> Dataset:
    """Tokenises posts (from `load_posts`) once: ids, words, labels and rationale ids as lists, unpadded.

    Args:
        task: `"masc"` gives `aspect_spans` in place of `labels`.
        rationales: whether the model takes rationales.

    Returns:
        A data set for `DataCollatorForMABSA`; `text`, `offsets` and `is_words` of each post come along for
        `post_process_mabsa`. Kept in an Arrow file, whose name follows from the posts' content and the processor.
    """

    def prepare(batch: dict) -> dict:
        columns: dict[str, list] = {}
        for index in range(len(batch["id"])):
            words, text, aspects = batch["words"][index], batch["text"][index], batch["aspects"][index]
            encoded = processor(
                text=[text if words is None else words],
                image_rationales=[batch["image_rationale"][index]] if rationales else None,
                text_rationales=[batch["text_rationale"][index]] if rationales else None,
                aspects=None if aspects is None else [aspects],
                task=task,
                padding=False,
            )
            post = encoded.posts[0]
            row = {
                "input_ids": encoded["input_ids"][0],
                "word_ids": encoded["word_ids"][0],
                "text": post.text,
                "offsets": post.offsets,
                "is_words": post.is_words,
            }
            if aspects is not None:
                row["labels"] = encoded.get("labels", [None])[0]
                row["aspect_spans"] = encoded.get("aspect_spans", [None])[0]
            if rationales:
                for kind in ("image", "text"):
                    # A missing rationale is an empty list.
                    row[f"{kind}_rationale_input_ids"] = encoded.get(f"{kind}_rationale_input_ids", [[]])[0]
            for name in ("labels", "aspect_spans"):
                if row.get(name) is None:
                    row.pop(name, None)
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        return columns

    path = cache_file("prepare", posts._fingerprint, fingerprint(processor), task, str(rationales))
    prepared = posts.select_columns([name for name in posts.column_names if name != "image"]).map(
        prepare,
        batched=True,
        batch_size=256,
        remove_columns=[name for name in posts.column_names if name not in ("id", "aspects", "image")],
        cache_file_name=path,
        desc="Tokenising",
    )
    if any_image(posts):
        prepared = prepared.add_column("image", posts.data.column("image"), feature=posts.features["image"])
    prepared._fingerprint = Path(path).stem
    return prepared


def any_image(posts: Dataset) -> bool:
    return posts.data.column("image").null_count < len(posts)
