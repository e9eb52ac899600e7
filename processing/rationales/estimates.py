"""Guesses how many tokens a request has, where nobody has counted them."""

from io import BytesIO
from math import ceil
from typing import Any

from .writers import GenerationSettings, Request


CHARACTERS_A_TOKEN = 4  # of English, roughly, with today's tokenizers
PATCH = 28  # side in pixels of what becomes one token, as in Qwen2-VL; others are between half and three times that


def estimate_tokens(text: str) -> int:
    return ceil(len(text) / CHARACTERS_A_TOKEN)


def estimate_prompt_tokens(request: Request, settings: GenerationSettings) -> int:
    """Guesses the tokens of a request's texts and pictures."""
    tokens = 0
    for message in request.messages:
        for part in message["content"]:
            if part["type"] == "text":
                tokens += estimate_tokens(part["text"])
            else:
                tokens += estimate_picture_tokens(part["image"], settings.max_image_side)
    return tokens


def estimate_picture_tokens(picture: Any, max_side: int) -> int:
    """Guesses the tokens of a picture from its size; of one whose size can't be read, as if it were a full square."""
    from PIL import Image

    try:
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            sides = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        sides = (max_side, max_side)
    scale = min(1, max_side / max(sides)) / PATCH
    return ceil(sides[0] * scale) * ceil(sides[1] * scale)
