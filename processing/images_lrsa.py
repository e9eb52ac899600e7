"""Opens pictures."""

import os
from io import BytesIO
from typing import Any


MIN_IMAGE_SIDE, MAX_IMAGE_SIDE = 8, 10_000  # pixels


def open_image(image: Any):
    """Opens a picture given as PIL image, path, URL, base64 string or bytes, as RGB, turned as its camera was held.

    Raises:
        ValueError: it can't be read, or a side has fewer than 8 or more than 10,000 pixels.
    """
    name = image if isinstance(image, str | os.PathLike) else f"<{type(image).__name__}>"
    try:
        from PIL import Image, ImageOps  # in here, so that loading a model of text alone does not ask for it

        if isinstance(image, bytes):
            image = Image.open(BytesIO(image))
        elif isinstance(image, str | os.PathLike):
            if os.path.isabs(image) and os.path.splitext(image)[1] and not os.path.exists(image):
                raise ValueError("there is no such file")
            if os.path.isfile(image):
                image = Image.open(image)
            else:
                from transformers.image_utils import load_image  # brings torch, which reading files does without

                image = load_image(os.fspath(image), timeout=30)
        elif not isinstance(image, Image.Image):
            raise ValueError("a PIL image, path, URL or bytes is expected")
        sides = image.size
        if min(sides) < MIN_IMAGE_SIDE or max(sides) > MAX_IMAGE_SIDE:
            raise ValueError(
                f"it has {sides[0]} × {sides[1]} pixels, each side must have {MIN_IMAGE_SIDE} to {MAX_IMAGE_SIDE}"
            )
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # decoders and transports raise whatever they like
        raise ValueError(f"picture {str(name)[:200]} can't be read: {error}") from error


def one_image(image: Any) -> Any:
    """Returns the picture of a post that is given as a list, as processors of many pictures take it; `None` for `[]`.

    Raises:
        ValueError: the list has more than one.
    """
    if not isinstance(image, list | tuple):
        return image
    if len(image) > 1:
        raise ValueError(f"a post has one picture, here are {len(image)}: give one, or None.")
    return image[0] if image else None
