"""Shows predictions and their explanations as HTML; every string that comes from a post is escaped."""

import base64
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image


# A mark and a word beside the colour, for whoever does not see it.
MARKS = {"positive": "▲", "neutral": "●", "negative": "▼"}
HEAT = (214, 40, 0)
MAX_SIDE = 640  # pixels of a heat map
SHOWN_WORDS = 5

STYLE = """
.lrsa {font-size: 1rem; line-height: 1.6; color: var(--body-text-color)}
.lrsa h2, .lrsa h3 {font-size: 1.05rem; margin: 1.2rem 0 .4rem; color: inherit}
.lrsa .post {font-size: 1.15rem; line-height: 2.1; white-space: pre-wrap; overflow-wrap: anywhere}
.lrsa mark {color: #14171a; border-radius: .3rem; padding: .15rem .3rem; border-bottom: 3px solid; \
box-decoration-break: clone; -webkit-box-decoration-break: clone}
.lrsa .tag {font-size: .78rem; font-weight: 600; white-space: nowrap; margin-left: .3rem}
.lrsa .positive {background: #cdebd6; border-color: #12703a} .lrsa .positive .tag {color: #0b5129}
.lrsa .neutral {background: #dfe5ee; border-color: #51607a} .lrsa .neutral .tag {color: #35435b}
.lrsa .negative {background: #fbd7c8; border-color: #b3360b} .lrsa .negative .tag {color: #872504}
.lrsa details {border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .5rem .8rem; \
margin: .5rem 0}
.lrsa summary {cursor: pointer; overflow-wrap: anywhere} .lrsa summary:focus-visible {outline: 3px solid #1d5fd1}
.lrsa .rationale {line-height: 1.9; overflow-wrap: anywhere; margin: .2rem 0 .6rem}
.lrsa .rationale span {border-radius: .2rem; padding: .1rem .05rem}
.lrsa .rationale .top {font-weight: 700; text-decoration: underline}
.lrsa figure {margin: .6rem 0} .lrsa figure img {display: block; max-width: 100%; max-height: 24rem; \
border-radius: .4rem}
.lrsa figcaption, .lrsa .note {font-size: .88rem; font-weight: 400; opacity: .82; margin: .2rem 0}
.lrsa .error {border-left: 5px solid #b3360b; background: #fbd7c8; color: #14171a; padding: .6rem .9rem; \
border-radius: .3rem; overflow-wrap: anywhere}
"""


def render_error(message: str) -> str:
    return f'<div class="lrsa"><p class="error" role="alert"><strong>Error:</strong> {escape(message)}</p></div>'


def render_post(text: str, aspects: list[dict[str, Any]]) -> str:
    """Shows a post with its aspects marked, each with its polarity and score.

    Args:
        aspects: from `post_process_mabsa`, offsets in characters of `text`.
    """
    parts, position = [], 0
    for aspect in aspects:
        parts.append(escape(text[position : aspect["start"]]))
        tag = f'<span class="tag">{_tag(aspect)}</span>'
        parts.append(f'<mark class="{_class(aspect)}">{escape(text[aspect["start"] : aspect["end"]])}{tag}</mark>')
        position = aspect["end"]
    parts.append(escape(text[position:]))
    note = "" if aspects else '<p class="note" role="status">No aspect was found in this post.</p>'
    return f'<div class="lrsa"><p class="post">{"".join(parts)}</p>{note}</div>'


def render_explanations(aspects: list[dict[str, Any]], picture: Image.Image | None, seen: tuple | None) -> str:
    """Shows what each aspect drew on: words of the rationales and patches of the picture.

    Args:
        aspects: from the pipeline with `explain=True`.
        picture: that of the post.
        seen: the part of it that the model sees, from `seen_part`.
    """
    parts = []
    for index, aspect in enumerate(aspects):
        explanation = aspect["explanation"]
        texts = [
            _render_rationale(title, explanation[kind], _largest(explanation))
            for kind, title in (("text_rationale", "Text rationale"), ("image_rationale", "Picture rationale"))
            if explanation[kind]
        ]
        if picture and explanation["patches"]:
            texts.insert(0, _render_heat(explanation, picture, seen))
        body = "".join(texts)
        if not body:
            body = '<p class="note">There was no rationale and no picture to draw on.</p>'
        head = f'<strong>{escape(aspect["aspect"])}</strong> <span class="tag">{_tag(aspect)}</span>'
        parts.append(f"<details{' open' if index == 0 else ''}><summary>{head}</summary>{body}</details>")
    if not parts:
        return ""
    return f'<div class="lrsa"><h2>What each aspect drew on</h2>{"".join(parts)}</div>'


def _class(aspect: dict[str, Any]) -> str:
    return aspect["polarity"] if aspect["polarity"] in MARKS else "neutral"


def _tag(aspect: dict[str, Any]) -> str:
    return escape(f"{MARKS.get(aspect['polarity'], '●')} {aspect['polarity']} {aspect['score']:.2f}")


def _words(explanation: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(explanation["text_rationale"] or []), *(explanation["image_rationale"] or [])]


def _largest(explanation: dict[str, Any]) -> float:
    return max((word["weight"] for word in _words(explanation)), default=0.0)


def _render_rationale(title: str, words: list[dict[str, Any]], largest: float) -> str:
    """Shows the words of a rationale, darker with their weight, and names those with the most."""
    named = [index for index, word in enumerate(words) if any(map(str.isalnum, word["word"]))]
    top = sorted(named, key=lambda index: -words[index]["weight"])[:SHOWN_WORDS]
    parts, position = [], 0
    for index, word in enumerate(words):
        space = " " if word["start"] > position else ""
        strength = 0.75 * word["weight"] / largest if largest else 0.0
        style = f"background: rgba(214, 120, 0, {strength:.2f})"
        kind = ' class="top"' if index in top[:3] and strength > 0.1 else ""
        parts.append(f'{space}<span{kind} style="{style}">{escape(word["word"])}</span>')
        position = word["end"]
    share = sum(word["weight"] for word in words)
    most = ", ".join(f"“{words[index]['word']}” {words[index]['weight']:.0%}" for index in top)
    return (
        f'<h3>{title} <span class="note">{share:.0%} of what was drawn from rationales</span></h3>'
        f'<p class="rationale">{"".join(parts)}</p><p class="note">Most: {escape(most)}</p>'
    )


def _render_heat(explanation: dict[str, Any], picture: Image.Image, seen: tuple) -> str:
    patches = explanation["patches"]
    height, width = len(patches), len(patches[0])
    row, column = max(((r, c) for r in range(height) for c in range(width)), key=lambda at: patches[at[0]][at[1]])
    vertical = ("top", "middle", "bottom")[min(2, 3 * row // height)]
    horizontal = ("left", "centre", "right")[min(2, 3 * column // width)]
    place = f"row {row + 1} of {height}, column {column + 1} of {width}"
    most = f"{patches[row][column]:.0%} of it at the {vertical} {horizontal} ({place})"
    buffer = BytesIO()
    heat_map(picture, patches, seen).save(buffer, "JPEG", quality=85)
    source = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}" alt="Heat map over the picture: the most at the '
        f'{vertical} {horizontal}"><figcaption>{explanation["image_share"]:.0%} of the decoder’s attention went to '
        f"the picture; {most}. Red: most; grey: least.</figcaption></figure>"
    )


def heat_map(picture: Image.Image, patches: list[list[float]], seen: tuple) -> Image.Image:
    """Returns the picture in pale grey, made smaller, with the weights of its patches in red.

    Args:
        patches: rows of weights of patches of one size that cover the part of the picture that is seen.
        seen: that part (left, top, right, bottom) in shares of width and height.
    """
    scale = min(1.0, MAX_SIDE / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    grey = picture.resize(size).convert("L").point(lambda level: 80 + round(0.68 * level)).convert("RGB")
    left, top, right, bottom = (round(share * side) for share, side in zip(seen, size * 2))
    flat = [weight for row in patches for weight in row]
    low, high = min(flat), max(flat)
    spread = high - low or 1.0
    levels = bytes(round(255 * ((weight - low) / spread) ** 0.5) for weight in flat)  # the root shows small ones too
    small = Image.frombytes("L", (len(patches[0]), len(patches)), levels)
    warmth = Image.new("L", size, 0)
    warmth.paste(small.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC), (left, top))
    return Image.composite(Image.new("RGB", size, HEAT), grey, warmth.point(lambda level: round(0.75 * level)))


def seen_part(image_processor: Any, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns the part (left, top, right, bottom; shares of width and height) of a picture that a model sees.

    All of it, unless the image processor cuts out the centre.

    Args:
        image_processor: that of the model's processor, or `None`.
        size: width and height of the picture.
    """
    if not getattr(image_processor, "do_center_crop", False):
        return 0.0, 0.0, 1.0, 1.0
    crop, wanted = dict(image_processor.crop_size), dict(image_processor.size or {})
    width, height = size
    if getattr(image_processor, "do_resize", False):
        if wanted.get("shortest_edge"):
            scale = wanted["shortest_edge"] / min(size)
            width, height = width * scale, height * scale
        elif wanted.get("height") and wanted.get("width"):
            width, height = wanted["width"], wanted["height"]
    across, down = min(1.0, crop["width"] / width), min(1.0, crop["height"] / height)
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2
