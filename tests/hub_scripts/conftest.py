"""A tiny text model in a folder, a few posts, and a model that `lrsa train` made of them."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, ViTImageProcessorPil

from hub_scripts.cli import main


POSTS = [
    ("Great gig at Riverbend Hall", [("Riverbend Hall", "positive")]),
    ("Never again Northline Rail", [("Northline Rail", "negative")]),
    ("Riverbend Hall opens in May", [("Riverbend Hall", "neutral")]),
    ("Love Marta , hate Northline Rail", [("Marta", "positive"), ("Northline Rail", "negative")]),
]


def lines(posts) -> str:
    rows = []
    for index, (text, aspects) in enumerate(posts):
        spans = [{"start": text.index(a), "end": text.index(a) + len(a), "polarity": p} for a, p in aspects]
        rationale = None if index % 2 else f"It is about {aspects[0][0]}"
        rows.append({"id": f"p{index}", "text": text, "aspects": spans, "text_rationale": rationale})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session")
def maker():
    """Makes tiny checkpoints of the baselines' form."""
    path = Path(__file__).parents[1] / "checkpoint_maker.py"
    spec = importlib.util.spec_from_file_location("checkpoint_maker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_model")
    words = sorted({word.lower() for text, _ in POSTS for word in text.split()} | {"it", "is", "about"})
    words += ["positive", "neutral", "negative"]  # or polarities start as the same unknown token, and tie
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def posts_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("posts")
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text(lines(POSTS))
    return folder


@pytest.fixture(scope="session")
def run_folder(text_folder, posts_folder, tmp_path_factory):
    """Output folder of `lrsa train` with a recipe and flags."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"data: {posts_folder}\ntext_model: {text_folder}\nnum_fusion_layers: 1\ndecoder_layers: 1\n"
        "num_train_epochs: 1\neval_strategy: epoch\nlearning_rate: 1.0e-3\nseed: 7\n"
    )
    assert main(["train", str(recipe), "--output_dir", str(folder / "out"), "--num_train_epochs", "2"]) == 0
    return folder / "out"


def local_hub_module():
    """`tests/local_hub.py`, which has no import path of its own."""
    if "local_hub" not in sys.modules:
        spec = importlib.util.spec_from_file_location("local_hub", Path(__file__).parents[1] / "local_hub.py")
        sys.modules["local_hub"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["local_hub"])
    return sys.modules["local_hub"]


@pytest.fixture(scope="session")
def local_hub():
    return local_hub_module()


@pytest.fixture(scope="module")
def running_hub(local_hub, tmp_path_factory):
    with local_hub.LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(running_hub, local_hub):
    running_hub.faults = local_hub.Faults()
    running_hub.requests.clear()
    yield running_hub
    running_hub.faults = local_hub.Faults()


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def lrsa(running_hub, local_hub, tmp_path_factory):
    """Runs `lrsa` commands against the local Hub, in a process whose client knows it."""
    environment = os.environ | running_hub.environment(tmp_path_factory.mktemp("home")) | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_lrsa.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )

    def run(*argv, token=local_hub.WRITER) -> Done:
        process.stdin.write(json.dumps({"argv": [str(argument) for argument in argv], "token": token}) + "\n")
        process.stdin.flush()
        return Done(**json.loads(process.stdout.readline()))

    yield run
    process.stdin.close()
    process.wait(30)


@pytest.fixture(scope="session")
def tiny_models():
    """The tiny models of `tests/modeling_lrsa`."""
    path = Path(__file__).parents[1] / "modeling_lrsa" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def picture_model(tiny_models, tmp_path_factory):
    """Folder of an untrained model with pictures and both rationales, which finds aspects in nearly any post."""
    folder = tmp_path_factory.mktemp("picture_model") / "model"
    model = tiny_models.model("bert", "vit", seed=5, num_fusion_layers=2)
    model.save_pretrained(folder)
    pictures = ViTImageProcessorPil(size={"height": 8, "width": 8})
    tiny_models.processor(model, pictures).save_pretrained(folder)
    return folder


def png_bomb(side: int) -> bytes:
    """A small PNG file of `side` × `side` pixels, in black and white."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (side // 8 + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def bomb():
    return png_bomb
