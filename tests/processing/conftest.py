"""Tiny tokenizers and processors built in memory, and strategies for any text that a post may hold."""

import os
import struct
import zlib


os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

from processing import LRSAProcessor


settings.register_profile("processing", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("processing")

CORPUS = [
    "the quick brown fox loves pizza and the lazy dog hates rain in Rotterdam",
    "Jeremy Lin scored again tonight , what a game ! battery dies after one hour",
    "the concert at Riverside Hall was great but the queue for coffee was not",
    "0 1 2 3 4 5 6 7 8 9 . , ! ? : ; # @ / _ - ' \" ( ) [ ] < > | a b c d e f g h i j k l m n o p q r s t u v w x y z",
]

# What tokenizers and word splitters trip over: joiners, modifiers, marks, controls, special tokens written out.
ODD_WORDS = [
    "👩🏽‍🚀",
    "👨‍👩‍👧‍👦",
    "🇵🇹",
    "👍🏿",
    "❤️",
    "1️⃣",
    "#OpenAir",
    "@jeremy_lin7",
    "https://t.co/a?b=c#d",
    "don't",
    "e\u0301",
    "Z\u0335\u0321a\u0301\u0328lgo",
    "東京タワー",
    "กรุงเทพ",
    "Здравствуйте",
    "مرحبا",
    "नमस्ते",
    "한국어",
    "ᄒᆞᆫ",
    "\u200b",
    "\u200d",
    "\u200e",
    "\ufeff",
    "\u0301",
    "\u0600",
    "\x00",
    "\x7f",
    "\ufffd",
    "\ue000",
    "[SEP]",
    "[CLS]",
    "[MASK]",
    "[PAD]",
    "[UNK]",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "a<mask>b",
    "##s",
    "Ġ",
]

ODD_GAPS = [" ", "  ", "\n", "\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\x1c", "\x1f", "\x85", "", "."]


@pytest.fixture(scope="session")
def any_text() -> st.SearchStrategy[str]:
    """Any Unicode text without surrogates, and texts put together of odd words and odd gaps."""
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)
    odd = st.lists(st.one_of(st.sampled_from(ODD_WORDS), st.sampled_from(ODD_GAPS), plain), max_size=8).map("".join)
    return st.one_of(plain, odd)


@pytest.fixture(scope="session")
def any_words() -> st.SearchStrategy[list[str]]:
    free = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)
    word = st.one_of(
        st.sampled_from(ODD_WORDS), st.sampled_from(["the", "pizza", "in", "Rotterdam", "scored"]), free
    ).filter(lambda word: word.split() == [word])
    return st.lists(word, min_size=1, max_size=10)


@pytest.fixture(scope="session")
def spans_of():
    """Non-overlapping spans (start, end exclusive) over `count` words, neighbours included, in any order."""

    def spans(count: int) -> st.SearchStrategy[list[tuple[int, int]]]:
        def read(tags: list[str]) -> list[tuple[int, int]]:
            found: list[tuple[int, int]] = []
            for index, tag in enumerate(tags):
                if tag == "begin" or (tag == "inside" and not (found and found[-1][1] == index)):
                    found.append((index, index + 1))
                elif tag == "inside":
                    found[-1] = (found[-1][0], index + 1)
            return found

        tags = st.lists(st.sampled_from(["begin", "inside", "outside"]), min_size=count, max_size=count)
        return tags.map(read).flatmap(st.permutations)

    return spans


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """`"wordpiece"` as BERT's, which drops what it takes for no text, and `"bpe"` as BART's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, wordpiece.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, bpe.token_to_id(name)) for name in ("<s>", "</s>")]
    )
    return {
        "wordpiece": PreTrainedTokenizerFast(
            tokenizer_object=wordpiece,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_max_length=512,
        ),
        "bpe": PreTrainedTokenizerFast(
            tokenizer_object=bpe,
            bos_token="<s>",
            pad_token="<pad>",
            eos_token="</s>",
            unk_token="<unk>",
            mask_token="<mask>",
            add_prefix_space=True,
            model_max_length=512,
        ),
    }


@pytest.fixture(scope="session", params=["wordpiece", "bpe"])
def tokenizer(request, tokenizers) -> PreTrainedTokenizerFast:
    return tokenizers[request.param]


@pytest.fixture(scope="session")
def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


@pytest.fixture(scope="session")
def processor(tokenizers) -> LRSAProcessor:
    """Without pictures."""
    return LRSAProcessor(None, tokenizers["wordpiece"])


@pytest.fixture(scope="session")
def image_text_processor(tokenizers, image_processor) -> LRSAProcessor:
    return LRSAProcessor(image_processor, tokenizers["bpe"])


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((20, 16)).convert("RGB")


@pytest.fixture(scope="session")
def blank_png():
    def make(width: int, height: int) -> bytes:
        """A black picture of one bit a pixel, written row by row: no memory for all of its pixels."""

        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        packer = zlib.compressobj(1)
        row = bytes(1 + (width + 7) // 8)
        pixels = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
        header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    return make
