"""Questions as the OpenAI format has them."""

import base64
import os
from io import BytesIO
from typing import Any

from anyio import CapacityLimiter, to_thread

from ..images_lrsa import open_image


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


async def chat_message(message: dict[str, Any], max_side: int, limiter: CapacityLimiter) -> dict[str, Any]:
    """Returns a message as the OpenAI format has it; text alone as a string, which every server takes."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):
        return {"role": message["role"], "content": "\n".join(part["text"] for part in parts)}
    content = []
    for part in parts:
        if part["type"] == "image":
            url = await to_thread.run_sync(data_url, part["image"], max_side, limiter=limiter)
            part = {"type": "image_url", "image_url": {"url": url}}
        content.append(part)
    return {"role": message["role"], "content": content}


def data_url(image: Any, max_side: int) -> str:
    """Returns a picture as JPEG in a data URL, no side longer than `max_side` pixels."""
    if isinstance(image, str) and not image.startswith(("http://", "https://", "data:")):
        image = os.path.abspath(image)  # a file's name and nothing else
    picture = open_image(image)
    picture.thumbnail((max_side, max_side))
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=90, comment=b"")  # Pillow would take over a comment
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
