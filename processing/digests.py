"""Names files by their content, so that what was made of them can be told apart."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


# What decides on the answers of a checkpoint, beside notes, logs and the optimizer's state.
CHECKPOINT_SUFFIXES = {".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".onnx", ".txt"}


def name_with_digest(source: str | Path) -> str:
    """Returns `name@digest` of a checkpoint, a folder or one file, and any other name as it is."""
    path = Path(source)
    if path.is_dir():
        return f"{path.resolve().name}@{digest_of_checkpoint(path)}"
    return f"{path.stem}@{digest_of_files([path])}" if path.is_file() else str(source)


def digest_of_checkpoint(folder: Path) -> str:
    """Twelve hexadecimal digits of configuration, tokenizer, template and weights in a folder."""
    return digest_of_files(file for file in folder.iterdir() if file.is_file() and file.suffix in CHECKPOINT_SUFFIXES)


def digest_of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        with open(file, "rb") as opened:
            digest.update(file.name.encode() + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def digest_of_states(files: Iterable[Path]) -> str:
    """The same of files that are too large to be read: of their names, sizes and times of change."""
    states = [(file.name, (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:12]
