"""Two drawings that stand in for photographs, lit from the side: old coins and the surface of the moon."""

import math

from PIL import Image

from .canvas import picture


def smooth(points, closed=True, steps=8):
    """The points with a soft curve run through them."""
    count, curve = len(points), []
    ring = [points[-1], *points, *points[:2]] if closed else [points[0], *points, points[-1]]
    for i in range(1, count + 1 if closed else count):
        for t in (k / steps for k in range(steps)):
            near, far = 2 * t**3 - 3 * t**2 + 1, 3 * t**2 - 2 * t**3
            out, into = (t**3 - 2 * t**2 + t) / 2, (t**3 - t**2) / 2
            a, b, c, d = ring[i - 1 : i + 3]
            curve.append(tuple(near * b[k] + far * c[k] + out * (c[k] - a[k]) + into * (d[k] - b[k]) for k in (0, 1)))
    return curve if closed else [*curve, points[-1]]


def mirrored(x, points):
    """A shape given by its right half, from top to bottom, as steps to the right of x."""
    return [*((x + dx, y) for dx, y in points), *((x - dx, y) for dx, y in reversed(points) if dx)]


HEAD = ((-5, 34), (-3, 18), (-16, 16), (-24, 2), (-22, -18), (-8, -30), (10, -29), (18, -18))
FACE = ((18, -10), (26, 0), (19, 4), (21, 9), (18, 12), (18, 19), (6, 20), (8, 30), (14, 36))
METALS = (
    ("#dcdad2", "#8d8b84", "#f7f5ee", "#55534e"),
    ("#c9b48a", "#7e683f", "#efe0b8", "#463716"),
    ("#b98558", "#6b4326", "#e2b68c", "#38200f"),
    ("#a9aaa0", "#63655c", "#d6d8cc", "#36382f"),
)


@picture("coins.jpg", 384, 288, "#232534", "#15161f")
def coins(c):
    for k in range(0, 384, 2):
        c.line([(k, 0), (k, 288)], "#00000030", 0.5)
        c.line([(0, k), (384, k)], "#ffffff0a", 0.5)
    for x, lean in ((96, 30), (300, -44)):
        c.puff([(x + lean * k / 20, 15 * k, 12) for k in range(20)], "#3a3d54", 0.35, 9)
    c.grain(0.035)
    laid = []
    for row, size in enumerate((24, 26, 27, 23)):
        for column in range(6):
            x, y = 42 + 60 * column + c.rng.uniform(-3, 3), 40 + 70 * row + c.rng.uniform(-3, 3)
            laid.append((x, y, size + c.rng.uniform(-2, 2)))
    c.puff([(x + 3, y + 4, size) for x, y, size in laid], "#000000", 0.85, 3)
    for x, y, size in laid:
        coin(c, x, y, size, c.rng.choice(METALS))
    for _ in range(500):
        x, y = c.rng.uniform(0, 384), c.rng.uniform(0, 288)
        c.ellipse(x, y, 0.5, 0.5, c.rng.choice(("#00000060", "#ffffff30")))


def coin(c, x, y, size, metal):
    """An old coin of a radius, worn and not quite round, lit from the upper left."""
    face, shade, light, dark = metal
    rim = [1 + c.rng.uniform(-0.03, 0.03) for _ in range(16)]
    turn, kind = c.rng.uniform(-0.35, 0.35), c.rng.choice(("head", "head", "head", "shield", "wreath"))

    def ring(reach, shift=0.0):
        spots = ((reach * size * r, k * math.tau / 16) for k, r in enumerate(rim))
        return smooth([(x + shift + r * math.cos(a), y + shift + r * math.sin(a)) for r, a in spots], steps=4)

    def place(points, shift=0.0):
        u, cos, sin = size / 52, math.cos(turn), math.sin(turn)
        return [(x + shift + u * (px * cos - py * sin), y + shift + u * (px * sin + py * cos)) for px, py in points]

    def raised(points):
        c.poly(place(points, 1), dark + "c0")
        c.poly(place(points, -0.8), light)
        c.gradient((x - size, y - size, x + size, y + size), face, shade, True, place(points))

    c.poly(ring(1, 0.7), dark)
    c.poly(ring(1), light)
    c.gradient((x - size, y - size, x + size, y + size), face, shade, within=ring(0.97, 0.3))
    c.poly(ring(0.89, -0.4), dark)
    c.gradient((x - size, y - size, x + size, y + size), shade, face, within=ring(0.885, 0.3))
    for k in range(26):
        bead = turn + k * math.tau / 26
        px, py = x + 0.8 * size * math.cos(bead), y + 0.8 * size * math.sin(bead)
        if c.rng.random() < 0.85:
            c.ellipse(px + 0.5, py + 0.5, 1.2, 1.2, dark + "b0")
            c.ellipse(px, py, 1.1, 1.1, light + "d0")
    if kind == "head":
        raised(smooth([*HEAD, *FACE]))
        for k in range(5):
            lock = smooth([(-18 + 8 * k, -22 - 4 * math.sin(k)), (-21 + 6 * k, -14), (-14 + 6 * k, -6 + k)], False)
            c.line(place(lock), dark, 0.8)
        raised(smooth([(-24, -6), (-4, -13), (17, -19), (19, -15), (-2, -8), (-23, 0)]))
        c.line(place([(-22, -2), (-34, 8)]), light, 1)
        c.line(place([(-22, -1), (-30, 15)]), light, 1)
        c.line(place(smooth([(-8, -2), (-3, 2), (-7, 7)], False)), dark, 0.9)
        c.line(place([(11, -5), (17, -5)]), dark + "d0", 1.2)
        c.line(place([(12, 13), (18, 13)]), dark + "b0", 0.8)
    elif kind == "shield":
        raised(smooth([(-20, -24), (0, -20), (20, -24), (19, 6), (0, 28), (-19, 6)]))
        for line in ([(0, -18), (0, 24)], [(-17, -2), (17, -2)]):
            c.line(place(line), dark + "b0", 1.4)
    else:
        for k in range(8):
            for side in (-1, 1):
                a = 0.35 + 0.32 * k
                px, py = 25 * math.sin(a), 25 * math.cos(a)
                raised([(side * (px + d), py + e) for d, e in ((-5, 3), (1, 5), (5, -6), (-2, -4))])
        raised([(-3, -14), (4, -14), (4, 14), (-3, 14)])
    for _ in range(16):
        a, r = c.rng.uniform(0, math.tau), size * 0.9 * math.sqrt(c.rng.random())
        px, py, wide = x + r * math.cos(a), y + r * math.sin(a), c.rng.uniform(0.4, 2.2)
        c.ellipse(px, py, wide, wide * 0.7, c.rng.choice((dark + "50", light + "40", "#3f5a4838")))
    c.glow(x - size * 0.35, y - size * 0.4, size * 0.55, "#ffffff", 0.35)


@picture("moon.jpg", 384, 288, "#020203")
def moon(c):
    """Heights are added up crater by crater on the near side of a ball and lit from the left."""
    wide, high, mid, foot, ball = 384, 288, 176, 372, 334
    height = [[0.0] * (wide + 1) for _ in range(high)]
    for step, rough in ((48, 9), (20, 3), (9, 1), (4, 0.5), (2, 0.25)):
        columns, rows = wide // step + 2, high // step + 2
        noise = Image.frombytes("L", (columns, rows), c.rng.randbytes(columns * rows))
        noise = noise.convert("F").resize((columns * step, rows * step), Image.Resampling.BICUBIC).load()
        for y in range(high):
            for x in range(wide + 1):
                height[y][x] += rough * (noise[x, y] / 128 - 1)
    pits = [(104, 176, 46), (262, 216, 38), (214, 108, 25), (318, 132, 22), (36, 252, 26), (176, 262, 20)]
    pits += [
        (c.rng.uniform(0, wide), c.rng.uniform(30, high), min(20, 1.6 * c.rng.random() ** -0.62)) for _ in range(900)
    ]
    for px, py, size in pits:
        dx, dy = (px - mid) / ball, (py - foot) / ball
        away = math.hypot(dx, dy)
        if away > 0.985:
            continue
        flat, dx, dy = math.sqrt(1 - away * away), dx / away, dy / away
        reach = math.ceil(1.7 * size)
        for y in range(max(0, int(py) - reach), min(high, int(py) + reach + 1)):
            for x in range(max(0, int(px) - reach), min(wide + 1, int(px) + reach + 1)):
                along, across = ((x - px) * dx + (y - py) * dy) / flat, (y - py) * dx - (x - px) * dy
                far = math.hypot(along, across) / size
                if far < 1.7:
                    bowl = max(-0.62, 1.5 * far**2.4 - 1.1) if far < 1 else 0.4 * (1.7 - far) ** 2 / 0.49
                    peak = 0.45 * max(0, 1 - far / 0.22) if size > 22 else 0
                    height[y][x] += 0.62 * size**0.92 * (bowl + peak)
    seas = [(330, 250, 70, 40), (130, 96, 74, 24), (10, 160, 50, 60)]
    shades = []
    for y in range(high):
        for x in range(wide):
            away = math.hypot(x - mid, y - foot) / ball
            if away >= 1:
                shades.append(2)
                continue
            slope = height[y][x + 1] - height[y][x] + 0.4 * (height[min(y + 1, high - 1)][x] - height[y][x])
            sea = sum(max(0, 1 - math.hypot((x - sx) / rx, (y - sy) / ry)) for sx, sy, rx, ry in seas)
            edge = min(1, (1 - away) * ball)
            ground = (160 - 66 * min(0.7, sea)) * (1 - 0.42 * x / wide) * (0.55 + 0.45 * min(1, 9 * (1 - away)))
            shades.append(round(min(250, max(8, ground * (1 + 0.74 * math.tanh(0.8 * slope)))) * edge))
    ground = Image.frombytes("L", (wide, high), bytes(shades)).resize(c.image.size, Image.Resampling.BICUBIC)
    c.image.paste(ground.convert("RGB"))
    for _ in range(60):
        x, y = c.rng.uniform(0, wide), c.rng.uniform(0, 110)
        if math.hypot(x - mid, y - foot) > ball + 6:
            c.ellipse(x, y, 0.5, 0.5, "#ffffff" + c.rng.choice(("50", "90", "c0")))
