"""A processor and prepared rows in memory, of the lengths that are measured."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_lrsa import LRSAForMABSA
from processing import LRSAProcessor

from .models import FEATURE_SIZE, Sizes


def make_processor(model: LRSAForMABSA) -> LRSAProcessor:
    """A processor of whole words, numbers for words: what tokenises costs nothing here."""
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary = special | {str(number): number for number in range(4, 1000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>",
    )  # fmt: skip
    return LRSAProcessor.from_config(model.config, fast)


def prepared_rows(model: LRSAForMABSA, sizes: Sizes) -> list[dict]:
    """Rows of a prepared data set, with the features of their pictures as the cache holds them."""
    features = np.zeros((sizes.slots, FEATURE_SIZE), dtype=np.float16).tobytes()
    words = list(range(sizes.columns - 2))
    row = {
        "input_ids": [0, *range(10, 10 + len(words)), 2],
        "word_ids": [-1, *words, -1],
        "text": " ".join(map(str, words)),
        "offsets": [(0, 0)] * sizes.columns,
        "is_words": False,
        "labels": [7, 7, 4] * sizes.aspects + [1],
        "image_features": features,
    }
    return [row] * sizes.posts


def padding_waste(lengths: Sequence[int], batch_size: int) -> float:
    """Returns the share of padded positions when posts of these lengths, in this order, go into batches."""
    batches = [lengths[first : first + batch_size] for first in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)
