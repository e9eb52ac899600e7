"""Features of pictures that were computed elsewhere, as those of detected regions: an array file a picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np


def find_features(picture: Path) -> str | None:
    """Returns the file of a picture's features: its name, or its name without ending, and `.npy` or `.npz`."""
    if picture.name in ("", ".."):  # no file's name
        return None
    places = (picture, picture.with_suffix(""))
    files = [Path(f"{place}{ending}") for place in places for ending in (".npy", ".npz")]
    return next((str(file) for file in files if os.path.isfile(file)), None)


def read_features(path: str | Path) -> np.ndarray:
    """Reads the features (N, D) of one picture as float32.

    An `.npz` file holds them alone, or under the name `features` or, as bottom-up attention saves them, `x`.

    Raises:
        ValueError: the file holds something else; nothing in it is run.
    """
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                names = loaded.files if len(loaded.files) == 1 else [n for n in ("features", "x") if n in loaded.files]
                if not names:
                    raise ValueError(f"it holds {', '.join(loaded.files) or 'nothing'}; name the array `features`")
                loaded = loaded[names[0]]
        if loaded.ndim != 2 or loaded.dtype.kind != "f":
            raise ValueError(f"floating-point numbers (N, D) are expected, these are {loaded.dtype} {loaded.shape}")
        return loaded.astype(np.float32)
    except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path}: features can't be read: {error}") from error


def stack_features(features: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """Returns the features (N, D) of posts as `image_features` (batch, N, D), zeros where there are none, with
    `image_attention_mask`; nothing where no post has some.
    """
    given = [feature is not None for feature in features]
    if not any(given):
        return {}
    blank = np.zeros_like(features[given.index(True)])
    return {
        "image_features": np.stack([blank if feature is None else feature for feature in features]),
        "image_attention_mask": np.array(given, dtype=np.int64),
    }
