"""Draw the invented pictures of the sample posts.

    python examples/posts/draw_pictures.py [OUT_DIR]

Needs Pillow only. Every picture has its own small function in one of the modules of `drawing`, registered under its
file name, and its own fixed seed, so that drawing again gives the same picture. Coordinates are pixels of the finished
picture; the canvas is twice as large and is scaled down at the end, which smooths the edges.
"""

import sys
from pathlib import Path

from drawing import places, portraits, relief, screens, things  # noqa: F401  (an import registers the pictures)
from drawing.canvas import PICTURES, Canvas


def main(out_dir):
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, (draw, width, height, top, bottom) in PICTURES.items():
        canvas = Canvas(width, height, top, bottom, seed=name)
        draw(canvas)
        canvas.finished().save(out_dir / name, quality=85, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
