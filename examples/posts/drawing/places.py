"""Pictures of places: streets, a beach, mountains and a city."""

import math

from PIL import Image, ImageFilter

from .canvas import SCALE, picture


def ridge(c, left, right, base, rough, steps=40):
    """A jagged line from left to right around the height `base`."""
    xs = [left + (right - left) * i / steps for i in range(steps + 1)]
    return [(x, base + c.rng.uniform(-rough, rough)) for x in xs]


@picture("rain_street.jpg", 384, 288, "#7f8790", "#aab0b5")
def rain_street(c):
    for side in (-1, 1):
        for i, shade in enumerate(("#8b9299", "#767d85", "#5f666e", "#4b5259")):
            near, far = 60 + 44 * i, 26 + 42 * i
            top = 96 - 34 * i + c.rng.uniform(-10, 10)
            x0, x1 = sorted((192 + side * far, 192 + side * (near + 30)))
            c.rect(x0, top, x1, 190 + 10 * i, shade)
            for row in range(6):
                for x in range(round(x0) + 6, round(x1) - 6, 12 + i):
                    lit = c.rng.random() < 0.14
                    c.rect(x, top + 10 + 22 * row, x + 6, top + 22 + 22 * row, "#f3dfa0c0" if lit else "#2f363d70")
    c.gradient((0, 186, 384, 288), "#8f969c", "#3f454b")
    for side in (-1, 1):
        c.poly([(192 + side * x, y) for x, y in ((24, 186), (400, 186), (400, 288), (170, 288))], "#565c63")
        c.line([(192 + side * 24, 186), (192 + side * 170, 288)], "#a9afb4", 2)
    for i in range(5):
        y, size = 194 + 4.2 * i * i, 1 + 0.9 * i
        c.taper(192, y, size, y + 3 * size, 1.6 * size, "#d0d4d8")
    for _ in range(26):
        x, y = c.rng.uniform(0, 384), c.rng.uniform(200, 286)
        c.ellipse(x, y, c.rng.uniform(8, 30), c.rng.uniform(1, 3), "#d5dbe040")
    c.taper(243, 262, 19, 288, 28, "#7a2a2e60")
    c.taper(244, 196, 12, 240, 18, "#23272e")
    for x in (236, 248):
        c.rect(x, 236, x + 6, 262, "#15181d", 2)
    c.ellipse(244, 188, 8, 9, "#1c1f25")
    c.line([(248, 146), (248, 214)], "#14161a", 2)
    c.pen.chord([v * SCALE for v in (192, 136, 304, 220)], 180, 360, "#d0262f")
    c.pen.chord([v * SCALE for v in (222, 136, 274, 220)], 180, 360, "#ee4a4a")
    for i in range(4):
        c.ellipse(206 + 28 * i, 179, 14, 5, "#a81c26")
    c.line([(248, 130), (248, 138)], "#14161a", 2)
    for _ in range(420):
        x, y, size = c.rng.uniform(-10, 394), c.rng.uniform(-10, 288), c.rng.uniform(8, 22)
        c.line([(x, y), (x - size * 0.25, y + size)], c.rng.choice(("#eef3f850", "#eef3f890")), c.rng.choice((0.5, 1)))
    for _ in range(60):
        c.ellipse(c.rng.uniform(0, 384), c.rng.uniform(205, 288), 4, 1.4, None, "#eef3f890", 0.5)


@picture("beach_sunset.jpg", 384, 288, "#5a2a6e", "#ffb04a")
def beach_sunset(c):
    c.gradient((0, 0, 384, 110), "#4b2670", "#e8583e")
    c.gradient((0, 110, 384, 180), "#e8583e", "#ffc95c")
    c.glow(190, 160, 150, "#ffe08a", 0.85)
    c.ellipse(190, 158, 34, 34, "#fff3bf")
    for x, y, wide in ((70, 66, 80), (120, 78, 60), (250, 46, 100), (330, 96, 70), (30, 118, 60), (230, 108, 46)):
        c.ellipse(x, y, wide, 3.5, "#ffb38a58")
        c.ellipse(x + wide / 4, y - 4, wide / 2, 3, "#ffb38a48")
    c.gradient((0, 172, 384, 240), "#e0703c", "#5a2f6a")
    for _ in range(150):
        y = 174 + 62 * c.rng.random() ** 1.3
        x, size = 190 + c.rng.gauss(0, 14 + (y - 172) * 0.9), c.rng.uniform(4, 16)
        c.line([(x - size, y), (x + size, y)], "#ffe9a8" + c.rng.choice(("60", "90", "c0")), 1)
    shore = [(x, 236 + 6 * math.sin(x / 50)) for x in range(0, 400, 8)]
    c.poly([*shore, (392, 288), (0, 288)], "#a8623e")
    c.poly([*((x, y + 10) for x, y in shore), (392, 288), (0, 288)], "#7d452f")
    c.line(shore, "#fff0d8c0", 2)
    for root, lean, height in ((316, -52, 208), (346, 14, 168), (44, 26, 150)):
        bow = [(root + lean * (k / 12) ** 1.8, 276 - height * k / 12) for k in range(13)]
        for k, (x, y) in enumerate(bow[:-1]):
            c.line([(x, y), bow[k + 1]], "#1e0f1c", 7 - 0.32 * k)
        x, y = bow[-1]
        for turn in (-175, -150, -115, -75, -40, -8, 18, 158):
            dx, dy = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            spine = [(x + dx * 10 * k, y + dy * 9 * k + 0.95 * k * k) for k in range(7)]
            leaf = [(px, py + 7 * math.sin(math.pi * k / 6)) for k, (px, py) in enumerate(spine)]
            c.poly([*spine, *reversed(leaf)], "#1e0f1c")
            for px, py in leaf[1:-1]:
                c.line([(px, py - 4), (px - 3 * dx - 2, py + 9)], "#1e0f1c", 1.4)
        c.ellipse(x - 3, y + 4, 4, 4, "#1e0f1c")


@picture("mountain_trail.jpg", 384, 288, "#2f80d6", "#cfe8fa")
def mountain_trail(c):
    for x, y in ((40, 44), (286, 36)):
        c.puff(
            [(x, y, 11), (x + 17, y - 9, 16), (x + 38, y - 5, 14), (x + 56, y + 2, 9), (x + 28, y + 4, 10)],
            "#ffffff",
            0.9,
            2,
        )
    hills = (
        (70, 84, 130, "#8596ad", "#66778f"),
        (312, 70, 150, "#7c8da4", "#5c6d85"),
        (196, 40, 150, "#6d7f97", "#4d5e76"),
    )
    for peak, top, half, rock, dark in hills:
        foot, height = 206, 206 - top
        left, right = [(peak - half, foot)], [(peak + half, foot)]
        for k in range(9, 0, -1):
            wave = c.rng.uniform(-5, 5)
            left.append((peak - half * k / 10 + wave, foot - height * (1 - k / 10) + c.rng.uniform(-4, 4)))
            right.append((peak + half * k / 10 + wave, foot - height * (1 - k / 10) + c.rng.uniform(-4, 4)))
        fold = [(peak + (12 if k % 2 else -9) + 3 * k, top + height * k / 8) for k in range(1, 9)]
        c.poly([*left, (peak, top), *reversed(right)], dark)
        c.poly([*left, (peak, top), *fold], rock)
        edge = [(peak - half * 0.4 + half * 0.08 * k, top + height * (0.4 if k % 2 else 0.28)) for k in range(1, 10)]
        c.poly([(peak, top), left[6], *edge, right[6]], "#dfe8f2")
        c.poly([(peak, top), left[6], *edge[:4], fold[1]], "#ffffff")
    for base, rough, colour in ((196, 5, "#3f7f4a"), (212, 3, "#4f9a4a")):
        c.poly([*ridge(c, 0, 384, base, rough), (384, 288), (0, 288)], colour)
    c.gradient((0, 216, 384, 288), "#5cae4c", "#2f7a2f")
    for _ in range(500):
        x, y = c.rng.uniform(0, 384), 218 + 70 * c.rng.random()
        c.line([(x, y), (x + c.rng.uniform(-2, 2), y - (y - 205) / 14)], c.rng.choice(("#7cc85a90", "#256b2a90")), 0.7)
    path = [
        (200 + (46 * math.sin(4.8 * t) + 8) * t, 210 + 78 * t**1.5, 2 + 30 * t**1.8)
        for t in (k / 20 for k in range(21))
    ]
    c.poly([*((x - w, y) for x, y, w in path), *((x + w, y) for x, y, w in reversed(path))], "#d2b583")
    c.line([(x - w, y) for x, y, w in path], "#a5854f", 1.5)
    for _ in range(34):
        x, y = c.rng.choice((c.rng.uniform(-5, 140), c.rng.uniform(270, 390))), c.rng.uniform(206, 250)
        size = 12 + (y - 200) * 0.75
        c.rect(x - 1.5, y - 3, x + 1.5, y + 4, "#4a3320")
        for k in range(3):
            wide, low = size * (0.42 - 0.1 * k), y - size * 0.42 * k
            c.taper(x, low - size * 0.75, 0, low, wide, ("#1d5230", "#246238", "#2b7040")[k])


@picture("traffic_jam.jpg", 384, 288, "#41406a", "#e8946a")
def traffic_jam(c):
    c.poly([*ridge(c, 0, 384, 84, 8, 18), (384, 120), (0, 120)], "#2e2c46")
    c.gradient((0, 100, 384, 288), "#4a4a54", "#2a2a31")
    c.poly([(0, 100), (138, 100), (0, 190)], "#37523a")
    c.poly([(384, 100), (246, 100), (384, 190)], "#37523a")
    for low in (-50, 111, 273, 434):
        c.line([(192 + (low - 192) * 0.2, 100), (low, 288)], "#d8d8de90", 2)
    for far in range(9, -1, -1):
        depth = 1 / (1 + 0.36 * far)
        for lane in (-1, 0, 1):
            shift = c.rng.uniform(-0.035, 0.035)
            colour = c.rng.choice(("#7a2230", "#c9ccd2", "#33465f", "#22252b", "#8a8f98", "#5b4a3a", "#2f5d50"))
            y = 86 + 196 * (depth + shift * depth)
            car(c, 192 + lane * 146 * (y - 56) / 230, y, 112 * (y - 56) / 230, colour)


def car(c, x, y, width, colour):
    """A car seen from behind, standing on the line y."""
    u = width / 100
    c.ellipse(x, y, 52 * u, 6 * u, "#00000080")
    for side in (-1, 1):
        c.rect(x + side * 37 * u - 8 * u, y - 16 * u, x + side * 37 * u + 8 * u, y + 2 * u, "#0d0d10", 3 * u)
    c.taper(x, y - 74 * u, 29 * u, y - 46 * u, 40 * u, colour)
    c.taper(x, y - 70 * u, 25 * u, y - 47 * u, 33 * u, "#1a222e")
    c.poly([(x + dx * u, y + dy * u) for dx, dy in ((-20, -49), (-14, -68), (-2, -68), (-8, -49))], "#ffffff28")
    c.rect(x - 48 * u, y - 48 * u, x + 48 * u, y - 8 * u, colour, 8 * u)
    c.rect(x - 48 * u, y - 20 * u, x + 48 * u, y - 8 * u, "#00000060", 4 * u)
    c.rect(x - 14 * u, y - 34 * u, x + 14 * u, y - 24 * u, "#f0f0e6", 1 * u)
    for side in (-1, 1):
        c.glow(x + side * 38 * u, y - 35 * u, 24 * u, "#ff2a1a", 0.85)
        c.rect(x + side * 38 * u - 8 * u, y - 41 * u, x + side * 38 * u + 8 * u, y - 29 * u, "#ff3a2a", 3 * u)
        c.rect(x + side * 38 * u - 4 * u, y - 38 * u, x + side * 38 * u + 4 * u, y - 32 * u, "#ffd0c0", 2 * u)


@picture("city_night.jpg", 384, 288, "#060a20", "#38406e")
def city_night(c):
    for _ in range(120):
        size = c.rng.choice((0.4, 0.6, 0.9))
        c.ellipse(c.rng.uniform(0, 384), c.rng.uniform(0, 170), size, size, "#ffffffb0")
    c.glow(296, 60, 96, "#cfd8ff", 0.55)
    c.ellipse(296, 60, 31, 31, "#f6f2dc")
    for x, y, size in ((285, 52, 7), (306, 66, 9), (300, 44, 4), (288, 74, 5), (314, 52, 3)):
        c.ellipse(x, y, size, size, "#dcd6bc")
    for low, high, colour, lit in ((70, 150, "#232a52", 0.25), (40, 200, "#141932", 0.5), (20, 90, "#0a0d1e", 0.4)):
        x = -10
        while x < 384:
            wide, top = c.rng.randrange(22, 50), 258 - c.rng.randrange(low, high)
            c.rect(x, top, x + wide - 1, 262, colour)
            if c.rng.random() < 0.3:
                c.taper(x + wide / 2, top - 22, 0, top, 6, colour)
                c.ellipse(x + wide / 2, top - 23, 1.5, 1.5, "#ff4d4d")
            for wx in range(x + 4, x + wide - 6, 7):
                for wy in range(top + 6, 252, 9):
                    if c.rng.random() < lit:
                        c.rect(wx, wy, wx + 3.5, wy + 5, c.rng.choice(("#ffdc82", "#ffc04d", "#fff2c4", "#9fd0ff")))
            x += wide
    mirror = c.image.crop((0, 190 * SCALE, c.image.width, 258 * SCALE)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirror = mirror.resize((c.image.width, 32 * SCALE)).filter(ImageFilter.BoxBlur((0, 6)))
    c.image.paste(mirror, (0, 256 * SCALE))
    c.rect(0, 256, 384, 288, "#0a143880")
    for _ in range(90):
        x, y, size = c.rng.uniform(0, 384), c.rng.uniform(258, 288), c.rng.uniform(3, 14)
        c.line([(x - size, y), (x + size, y)], c.rng.choice(("#ffdc8238", "#0408188c")), 0.8)
