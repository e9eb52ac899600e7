"""Tiny models, tokenizers and posts, all in memory. Tests reach them through the fixture `tiny`."""

import random
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    RobertaConfig,
    ViTConfig,
)

from modeling_lrsa import LRSAConfig, LRSAForMABSA
from modeling_lrsa.fusion_lrsa import LRSADualCrossAttention
from modeling_lrsa.match_lrsa import LRSAMatchEmbeddings
from processing import LRSAProcessor
from processing.posts import FEATURES


VOCABULARY, HIDDEN, POSITIONS = 60, 32, 40
ENCODERS = ("bert", "roberta", "mpnet", "distilbert", "electra", "bart")
PICTURE_SIZE = {"vit": 8, "resnet": 32}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # Tiny tensors gain nothing from threads and lose a hundredfold where other processes hold the cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    """This module: tests get its functions without an import path of their own."""
    return sys.modules[__name__]


def text_config(kind="bert", **changes):
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS}
    layers = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    small = sizes | layers | {"initializer_range": 0.1}
    if kind == "bert":
        return BertConfig(**small | changes)
    if kind == "roberta":
        return RobertaConfig(**small | {"pad_token_id": 1} | changes)
    if kind == "mpnet":
        return MPNetConfig(**small | {"pad_token_id": 1} | changes)
    if kind == "electra":
        return ElectraConfig(**small | {"embedding_size": HIDDEN} | changes)
    if kind == "distilbert":
        names = {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 40, "initializer_range": 0.1}
        return DistilBertConfig(**sizes | names | changes)
    # The decoder is deeper than the encoder, so that a mix-up of the two shows.
    names = {"d_model": HIDDEN, "encoder_layers": 2, "decoder_layers": 3, "init_std": 0.1}
    for side in ("encoder", "decoder"):
        names |= {f"{side}_attention_heads": 2, f"{side}_ffn_dim": 40}
    return BartConfig(**sizes | names | changes)


def image_side(kind=None):
    """Fields of `LRSAConfig` for pictures as tokens, as a feature map, for region features, or for text alone."""
    if kind == "vit":
        vision = ViTConfig(
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=8,
            patch_size=4,
        )
        return {"vision_config": vision, "num_image_tokens": 5, "image_feature_size": 24}
    if kind == "resnet":
        vision = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
        return {"vision_config": vision, "num_image_tokens": 16, "image_feature_size": 12}
    return {"num_image_tokens": 4, "image_feature_size": 10} if kind == "regions" else {}


def config(text="bert", image=None, text_changes=None, **fields):
    fields = {"initializer_range": 0.1, "num_rationale_queries": 3} | fields
    return LRSAConfig(text_config=text_config(text, **text_changes or {}), **image_side(image) | fields)


def open_gates(model, std=1.0, seed=0):
    """Fusion's gates and match embeddings start at zero, where fusion changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LRSADualCrossAttention) and module.gate is not None:
            module.gate.data.normal_(std=std, generator=generator)
        if isinstance(module, LRSAMatchEmbeddings):
            for table in module.parameters():
                table.data.normal_(std=std, generator=generator)
    return model


def model(text="bert", image=None, seed=0, gates=True, text_changes=None, **fields):
    torch.manual_seed(seed)
    built = LRSAForMABSA(config(text, image, text_changes, **fields)).eval()
    return open_gates(built) if gates else built


def post(model, seed, length=None, picture=False, image_rationale=0, text_rationale=0):
    """One post as the model's inputs: ids, words of one or two columns, features or pixels, rationales, labels."""
    rng, config = random.Random(seed), model.config
    length = length or rng.randint(4, 11)
    word_ids = [0]
    while len(word_ids) < length:
        word_ids.append(word_ids[-1] + rng.randint(0, 1))
    words, triples = max(word_ids) + 1, []
    start = rng.randint(0, 1)
    while start < words:
        end = min(words - 1, start + rng.randint(0, 1))
        columns = [column for column, word in enumerate(word_ids, 1) if word == end]
        last = columns[0] if config.end_points_to == "first" else columns[-1]
        polarity = config.num_special_targets + rng.randrange(config.num_labels)
        triples += [word_ids.index(start) + 1 + config.pointer_offset, last + config.pointer_offset, polarity]
        start = end + 2
    generator, image = torch.Generator().manual_seed(seed), None
    if picture and config.vision_config is None:
        image = torch.randn(config.num_image_tokens, config.image_feature_size, generator=generator)
    elif picture:
        side = PICTURE_SIZE[config.vision_config.model_type]
        image = torch.randn(3, side, side, generator=generator)
    return {
        "input_ids": [2, *(rng.randrange(5, VOCABULARY) for _ in range(length)), 3],
        "word_ids": [-1, *word_ids, -1],
        "labels": [*triples, 1],
        "image": image,
        "image_rationale": [rng.randrange(5, VOCABULARY) for _ in range(image_rationale)],
        "text_rationale": [rng.randrange(5, VOCABULARY) for _ in range(text_rationale)],
    }


def mixed_posts(model, seed=0):
    """Eight posts: each with another subset of picture, image rationale and text rationale."""
    images, fusion = model.config.has_images, model.config.num_fusion_layers > 0
    rng = random.Random(seed)
    return [
        post(
            model,
            100 * seed + bits,
            picture=bool(images and bits & 1),
            image_rationale=rng.randint(2, 7) if fusion and bits & 2 else 0,
            text_rationale=rng.randint(2, 7) if fusion and bits & 4 else 0,
        )
        for bits in range(8)
    ]


def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def batch(posts, labels=False):
    """Pads posts into tensors; what no post has is left out."""
    inputs = {
        "input_ids": padded([p["input_ids"] for p in posts], 0),
        "attention_mask": padded([[1] * len(p["input_ids"]) for p in posts], 0),
        "word_ids": padded([p["word_ids"] for p in posts], -1),
    }
    given = [p["image"] for p in posts if p["image"] is not None]
    if given:
        blank = torch.zeros_like(given[0])
        name = "pixel_values" if blank.dim() == 3 else "image_features"
        inputs[name] = torch.stack([blank if p["image"] is None else p["image"] for p in posts])
        inputs["image_attention_mask"] = torch.tensor([int(p["image"] is not None) for p in posts])
    for kind in ("image_rationale", "text_rationale"):
        if any(p[kind] for p in posts):
            inputs[f"{kind}_input_ids"] = padded([p[kind] for p in posts], 0)
            inputs[f"{kind}_attention_mask"] = padded([[1] * len(p[kind]) for p in posts], 0)
    if labels:
        inputs["labels"] = padded([p["labels"] for p in posts], -100)
    return inputs


WORDS = "i love hate the a new in at cafe hall band phone river bend is was great awful fine so not good bad".split()


def tokenizer():
    """A word-piece tokenizer in memory; `riverbend` and `phones` have two pieces."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##bend", "##s", ".", "!"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        # A tokenizer with ids of its own for begin and end, which must never become target ids.
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=POSITIONS,
    )


def processor(model, image_processor=None):
    return LRSAProcessor.from_config(model.config, tokenizer(), image_processor, max_rationale_length=16)


def raw_posts():
    """Eight posts in characters whose polarity stands in the text, for training."""
    rows = []
    for sentence, name, polarity in (
        ("i love the new cafe", "cafe", "positive"),
        ("i hate the hall", "hall", "negative"),
        ("the band was great", "band", "positive"),
        ("awful phones at riverbend", "phones", "negative"),
        ("the phone is fine", "phone", "neutral"),
        ("riverbend was so good", "riverbend", "positive"),
        ("a river and a bend", None, None),
        ("not bad the hall", "hall", "neutral"),
    ):
        aspects = []
        if name is not None:
            start = sentence.index(name)
            aspects = [{"start": start, "end": start + len(name), "polarity": polarity}]
        row = dict.fromkeys(FEATURES)
        rows.append(row | {"id": str(len(rows)), "text": sentence, "aspects": aspects})
    for row in rows[::2]:
        row["text_rationale"] = "the text is so great ."
    for row in rows[::3]:
        row["image_rationale"] = "a band in the hall !"
    return rows
