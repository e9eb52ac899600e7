"""A canvas that scales coordinates and blends translucent fills, and the list of the pictures drawn on it."""

import math
import random

from PIL import Image, ImageDraw, ImageFilter, ImageFont


SCALE = 2
PICTURES = {}


def picture(name, width, height, top, bottom=None):
    """Register a drawing function under a file name, with its size and the two colours of its background."""

    def register(draw):
        PICTURES[name] = (draw, width, height, top, bottom or top)
        return draw

    return register


class Canvas:
    """A picture under construction: thin wrappers around Pillow that scale coordinates and blend translucent fills."""

    def __init__(self, width, height, top="#00000000", bottom=None, seed="", mode="RGB"):
        self.width, self.height = width, height
        self.image = Image.new(mode, (width * SCALE, height * SCALE), top)
        self.pen = ImageDraw.Draw(self.image, "RGBA")
        self.rng = random.Random(seed)
        if bottom is not None and bottom != top:
            self.gradient((0, 0, width, height), top, bottom)

    def rect(self, x0, y0, x1, y1, fill, radius=0.0, outline=None, line=1.0):
        box, line = (x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), round(line * SCALE)
        self.pen.rounded_rectangle(box, radius * SCALE, fill, outline, line)

    def ellipse(self, x, y, rx, ry, fill, outline=None, line=1.0):
        box = ((x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE)
        self.pen.ellipse(box, fill, outline, round(line * SCALE))

    def poly(self, points, fill):
        self.pen.polygon([(x * SCALE, y * SCALE) for x, y in points], fill)

    def line(self, points, fill, width=1.0):
        self.pen.line([(x * SCALE, y * SCALE) for x, y in points], fill, max(1, round(width * SCALE)), joint="curve")

    def arc(self, x, y, rx, ry, start, end, fill, width=1.0):
        box = ((x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE)
        self.pen.arc(box, start, end, fill, round(width * SCALE))

    def text(self, x, y, words, size, fill, anchor="mm", bold=0.0, edge=None):
        font = ImageFont.load_default(size=size * SCALE)
        self.pen.text((x * SCALE, y * SCALE), words, fill, font, anchor, stroke_width=bold * SCALE, stroke_fill=edge)

    def gradient(self, box, start, end, across=False, within=None):
        """Fill a box, or the polygon `within` it, with a run of colour from top to bottom or from left to right."""
        x0, y0, x1, y1 = (round(value * SCALE) for value in box)
        ramp = Image.linear_gradient("L")
        ramp = (ramp.transpose(Image.Transpose.ROTATE_90) if across else ramp).resize((x1 - x0, y1 - y0))
        colours = Image.composite(Image.new("RGB", ramp.size, end), Image.new("RGB", ramp.size, start), ramp)
        mask = Image.new("L", ramp.size, 255 if within is None else 0)
        if within is not None:
            ImageDraw.Draw(mask).polygon([(x * SCALE - x0, y * SCALE - y0) for x, y in within], 255)
        self.image.paste(colours, (x0, y0), mask)

    def glow(self, x, y, radius, fill, strength=0.8):
        size, corner = round(2 * radius * SCALE), (round((x - radius) * SCALE), round((y - radius) * SCALE))
        mask = Image.radial_gradient("L").point(lambda far: round(255 * strength * max(0, 1 - far / 180) ** 1.6))
        self.image.paste(fill, (*corner, corner[0] + size, corner[1] + size), mask.resize((size, size)))

    def taper(self, x, y0, half0, y1, half1, fill):
        """An upright shape around x: half0 to each side at the height y0, half1 at y1."""
        self.poly([(x - half0, y0), (x + half0, y0), (x + half1, y1), (x - half1, y1)], fill)

    def shadow(self, x0, y0, x1, y1, strength=0.5, blur=6.0):
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).rectangle([v * SCALE for v in (x0, y0, x1, y1)], round(255 * strength))
        self.image.paste("#000000", mask=mask.filter(ImageFilter.GaussianBlur(blur * SCALE)))

    def puff(self, balls, fill, strength=0.6, blur=4.0):
        """Blurred balls (x, y, radius) in one colour: clouds and smoke."""
        mask = Image.new("L", self.image.size)
        pen = ImageDraw.Draw(mask)
        for x, y, radius in balls:
            pen.circle((x * SCALE, y * SCALE), radius * SCALE, round(255 * strength))
        self.image.paste(fill, mask=mask.filter(ImageFilter.GaussianBlur(blur * SCALE)))

    def stamp(self, other, x, y, angle=0.0):
        """Put another, see-through canvas on this one, turned by `angle` degrees, its middle at (x, y)."""
        turned = other.image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        self.image.paste(turned, (round(x * SCALE - turned.width / 2), round(y * SCALE - turned.height / 2)), turned)

    def grain(self, strength=0.05):
        noise = Image.frombytes("L", (self.width, self.height), self.rng.randbytes(self.width * self.height))
        noise = noise.resize(self.image.size).convert("RGB")
        self.image.paste(Image.blend(self.image, noise, strength))

    def finished(self):
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)


def star(x, y, radius, inner=0.42):
    corners = ((radius * (inner if i % 2 else 1), math.radians(36 * i - 90)) for i in range(10))
    return [(x + r * math.cos(turn), y + r * math.sin(turn)) for r, turn in corners]
