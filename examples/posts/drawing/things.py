"""Pictures of things: a poster, a cake, a receipt, a book, a pizza and a trophy."""

import math

from .canvas import Canvas, picture, star


@picture("concert_poster.jpg", 288, 384, "#12062e", "#5c1458")
def concert_poster(c):
    for x, lean, colour in ((30, 70, "#ff3d9a"), (100, 30, "#ffd23d"), (188, -30, "#3de0ff"), (258, -70, "#8dff5a")):
        for near, far in ((4, 46), (2, 22)):
            c.poly([(x - near, 0), (x + near, 0), (x + lean + far, 330), (x + lean - far, 330)], colour + "44")
        c.glow(x, 6, 40, colour, 0.95)
        c.rect(x - 11, 0, x + 11, 9, "#0b0418", 3)
    c.glow(144, 205, 120, "#ffb347", 0.6)
    guitar = Canvas(110, 260, mode="RGBA")
    for grow, colour in ((3, "#3a1606"), (0, "#d9772b")):
        guitar.ellipse(55, 205, 44 + grow, 40 + grow, colour)
        guitar.ellipse(55, 150, 33 + grow, 30 + grow, colour)
        guitar.rect(29 - grow, 158, 81 + grow, 192, colour, 8)
    guitar.ellipse(50, 198, 32, 29, "#e38a3c")
    guitar.ellipse(55, 163, 14, 14, "#2a0f04", "#f6d28a", 2)
    guitar.rect(49, 42, 61, 158, "#4a220e")
    guitar.poly([(47, 44), (44, 8), (66, 8), (63, 44)], "#2a0f04")
    guitar.rect(40, 212, 70, 219, "#2a0f04", 2)
    for i in range(9):
        guitar.line([(49, 50 + 11 * i), (61, 50 + 11 * i)], "#d8c8a0")
    for i in range(4):
        guitar.line([(51 + 2.7 * i, 10), (51 + 2.7 * i, 216)], "#fff4d8", 0.5)
        guitar.ellipse(42 if i % 2 else 68, 15 + 6 * i, 3, 2, "#f6d28a")
    c.stamp(guitar, 144, 190, -28)
    c.text(144, 52, "LIVE", 68, "#ffffff", bold=3, edge="#ff3d9a")
    for i in range(70):
        x, y, head = c.rng.uniform(-5, 293), 352 + 14 * (i // 24), c.rng.uniform(8, 11)
        c.ellipse(x, y, head, head + 1, "#08030f")
        c.rect(x - 13, y + 8, x + 13, 400, "#08030f", 6)
        if i % 4 == 0:
            c.line([(x + 9, y + 12), (x + 15, y - 22)], "#08030f", 4)
    c.text(144, 322, "TONIGHT", 50, "#ffe14d", bold=2.5, edge="#2a0636")


@picture("birthday_cake.jpg", 384, 288, "#fde3ef", "#f6b8d3")
def birthday_cake(c):
    for _ in range(130):
        x, y, turn, size = (
            c.rng.uniform(0, 384),
            c.rng.uniform(0, 250),
            c.rng.uniform(0, math.pi),
            c.rng.uniform(2.5, 5),
        )
        dx, dy = size * math.cos(turn), size * math.sin(turn)
        colour = c.rng.choice(("#ff5a7a", "#ffc83d", "#4fc3f7", "#7ed957", "#a77bff"))
        c.poly([(x - dx, y - dy), (x + dy / 2, y - dx / 2), (x + dx, y + dy), (x - dy / 2, y + dx / 2)], colour)
    c.gradient((0, 244, 384, 288), "#c98a5a", "#9a6038")
    c.ellipse(192, 256, 140, 18, "#00000030")
    c.ellipse(192, 250, 140, 16, "#ffffff", "#d8d0d8", 1)
    tiers = (
        (76, 308, 172, 246, "#8a5230", "#5f361e", "#fff6ee"),
        (114, 270, 112, 174, "#f2c078", "#d99c50", "#ff86ae"),
    )
    for x0, x1, top, low, sponge, shade, icing in tiers:
        middle, half = (x0 + x1) / 2, (x1 - x0) / 2
        c.ellipse(middle, low, half, 10, sponge)
        c.gradient((x0, top, x1, low), sponge, shade, across=True)
        c.rect(x0, top + 36, x1, top + 43, icing)
        for i in range(round(half / 9.5)):
            x = x0 + 9.5 + i * (x1 - x0 - 19) / (round(half / 9.5) - 1)
            c.rect(x - 9.5, top - 2, x + 9.5, top + c.rng.uniform(14, 30), icing, 9)
        c.ellipse(middle, top, half, 12, icing)
        c.ellipse(middle, top - 1, half - 8, 8, "#ffffff50")
    for i in range(12):
        c.ellipse(82 + 20 * i, 244, 9, 7, "#ffffff")
        c.ellipse(82 + 20 * i, 237, 4, 4, "#e8304f")
    for i, colour in enumerate(("#4fc3f7", "#ffc83d", "#7ed957", "#a77bff", "#ff5a5a")):
        x = 140 + 26 * i
        c.rect(x - 4, 66, x + 4, 112, colour, 2)
        for k in range(4):
            c.line([(x - 4, 78 + 10 * k), (x + 4, 72 + 10 * k)], "#ffffffc0", 2)
        c.glow(x, 54, 28, "#fff0a0", 0.9)
        c.line([(x, 66), (x, 60)], "#4a3020", 1.5)
        c.ellipse(x, 55, 4.5, 8, "#ff9a1f")
        c.taper(x, 38, 0, 52, 4, "#ff9a1f")
        c.ellipse(x, 57, 2.4, 4.5, "#fff7c0")


@picture("receipt.jpg", 272, 400, "#5c3d28", "#3d2617")
def receipt(c):
    for _ in range(60):
        x = c.rng.uniform(0, 272)
        c.line([(x, 0), (x + c.rng.uniform(-14, 14), 400)], "#1f110828", c.rng.uniform(0.5, 3))
    edge = [(44 + 8 * k, 12 + 6 * (k % 2)) for k in range(24)]
    c.shadow(50, 20, 236, 396, 0.6, 6)
    c.gradient((44, 8, 230, 396), "#fffefa", "#e9e6dc", within=[*edge, *((x, 400 - y) for x, y in reversed(edge))])
    c.text(136, 38, "RESTAURANT", 17, "#22201c", bold=0.5)
    c.text(136, 56, "Table 7   4 guests   21:48", 10, "#55514a")
    food = {"Lobster x4": 316, "Truffle pasta x3": 174, "Rib steak x2": 236, "Oysters x24": 132, "Caviar x1": 290}
    drinks = {"Champagne x3": 585, "Red wine 1996": 420, "Still water x4": 48, "Coffee x4": 36}
    bill = food | drinks | {"Dessert x4": 88, "Bread": 24}
    for i, (dish, price) in enumerate(bill.items()):
        y = 84 + 17 * i
        c.text(58, y, dish, 12, "#2c2a26", "lm")
        c.text(214, y, f"{price:,}.00", 12, "#2c2a26", "rm")
    total = sum(bill.values())
    for y in (70, 270, 346):
        for k in range(20):
            c.line([(56 + 8 * k, y), (60 + 8 * k, y)], "#6a665e", 0.8)
    c.text(58, 284, "Service 20 %", 12, "#2c2a26", "lm")
    c.text(214, 284, f"{total * 0.2:,.2f}", 12, "#2c2a26", "rm")
    c.text(58, 318, "TOTAL", 19, "#111111", "lm", 0.7)
    c.text(214, 318, f"{total * 1.2:,.2f}", 19, "#111111", "rm", 0.7)
    c.ellipse(174, 318, 48, 18, None, "#d8262ed0", 2)
    c.text(136, 362, "Thank you, come again!", 11, "#55514a")
    c.line([(44, 200), (228, 204)], "#00000010", 3)


@picture("book_cover.jpg", 272, 400, "#0d1b3d", "#3c5f8f")
def book_cover(c):
    for _ in range(90):
        c.ellipse(c.rng.uniform(0, 272), c.rng.uniform(0, 240), 0.7, 0.7, "#ffffffa0")
    c.poly([(180, 168), (180, 176), (0, 232), (0, 118)], "#fff2b050")
    c.poly([(180, 169), (180, 175), (0, 204), (0, 142)], "#fff2b060")
    c.poly([(180, 168), (180, 176), (272, 206), (272, 142)], "#fff2b048")
    c.gradient((0, 290, 272, 400), "#1e4468", "#081428")
    for _ in range(60):
        x, y, size = c.rng.uniform(0, 272), c.rng.uniform(294, 396), c.rng.uniform(6, 22)
        c.arc(x, y, size, 3, 190, 350, "#9fc4e070", 1)
    rocks = [(96, 330), (116, 306), (140, 298), (164, 288), (206, 288), (232, 300), (252, 316), (272, 322)]
    c.poly([*rocks, (272, 346), (110, 346)], "#10151f")
    c.poly([(164, 288), (206, 288), (200, 306), (158, 320)], "#232b38")
    tower = [(170, 190), (190, 190), (202, 292), (158, 292)]
    c.gradient((156, 188, 204, 294), "#f6f2e8", "#a8a49c", across=True, within=tower)
    for k in range(3):
        y0, y1 = 206 + 30 * k, 221 + 30 * k
        w0, w1 = 10 + 12 * (y0 - 190) / 102, 10 + 12 * (y1 - 190) / 102
        band = [(180 - w0, y0), (180 + w0, y0), (180 + w1, y1), (180 - w1, y1)]
        c.gradient((156, y0, 204, y1), "#d83a34", "#8c1c1c", True, band)
    c.rect(164, 184, 196, 190, "#1a1a20")
    c.rect(171, 160, 189, 184, "#fff2a8")
    c.line([(177, 160), (177, 184)], "#1a1a20", 1)
    c.line([(183, 160), (183, 184)], "#1a1a20", 1)
    c.taper(180, 146, 0, 161, 13, "#8c1c1c")
    c.glow(180, 172, 46, "#fff6c0", 0.85)
    for i in range(26):
        c.ellipse(108 + 6.2 * i + c.rng.uniform(-3, 3), 344 + c.rng.uniform(-4, 3), 6, 3, "#d8ecf8a0")
    c.text(136, 44, "THE LAST", 39, "#fff4d0", bold=0.8)
    c.text(136, 92, "LIGHT", 54, "#ffd75a", bold=1.4)
    c.text(136, 376, "A  N O V E L", 15, "#d8e4f4")
    c.rect(8, 8, 264, 392, None, 2, "#e8cf8a", 1)
    c.gradient((0, 0, 5, 400), "#060c1c", "#182846", across=True)


@picture("burnt_pizza.jpg", 384, 288, "#6e7074", "#4b4d52")
def burnt_pizza(c):
    c.grain(0.06)
    c.puff([(198, 166, 132)], "#000000", 0.5, 8)
    c.ellipse(192, 158, 142, 118, "#e4e2dc", "#bdbab2", 2)
    c.ellipse(192, 158, 128, 106, "#d2cfc7")

    def disc(reach, fill, wobble):
        rim = [(k * math.tau / 72, reach + c.rng.uniform(-wobble, wobble)) for k in range(72)]
        c.poly([(192 + r * math.cos(turn), 156 + 0.83 * r * math.sin(turn)) for turn, r in rim], fill)

    crust = ("#0b0908", "#1d130d", "#120c09", "#4a2a14", "#9a5a22", "#cf9438", "#e2b250")
    for fill, reach, wobble in zip(crust, (120, 110, 99, 90, 80, 68, 50), (2, 3, 4, 5, 6, 6, 8), strict=True):
        disc(reach, fill, wobble)

    def scatter(count, inner, outer):
        for _ in range(count):
            turn, far = c.rng.uniform(0, math.tau), outer * math.sqrt(c.rng.uniform((inner / outer) ** 2, 1))
            yield 192 + far * math.cos(turn), 156 + 0.83 * far * math.sin(turn)

    for x, y in scatter(14, 0, 78):
        c.ellipse(x, y, 13, 11, "#3a0f0a")
        c.ellipse(x - 1, y - 1, 11, 9, "#8c2a1c")
        c.ellipse(x + 3, y + 3, 6, 4, "#2a0c08a0")
    for x, y in scatter(16, 0, 76):
        c.ellipse(x, y, c.rng.uniform(2, 5), c.rng.uniform(2, 4), "#2f4a1c")
    for x, y in scatter(420, 55, 118):
        c.ellipse(
            x, y, c.rng.uniform(1, 4), c.rng.uniform(1, 3), c.rng.choice(("#050404c0", "#241a14a0", "#00000080"))
        )
    for x, y in scatter(110, 96, 118):
        c.ellipse(x, y, c.rng.uniform(1, 3), 1, "#6a625c80")
    for turn in range(4):
        dx, dy = 116 * math.cos(turn * math.pi / 4 + 0.3), 96 * math.sin(turn * math.pi / 4 + 0.3)
        c.line([(192 - dx, 156 - dy), (192 + dx, 156 + dy)], "#1a0f08b0", 1.6)
    for root, sway in ((110, 16), (190, -18), (268, 18)):
        trail = [(root + sway * math.sin(k / 5), 140 - 4.6 * k, 5 + 0.55 * k) for k in range(32)]
        c.puff(trail, "#e6e6e8", 0.42, 7)
        c.puff([(x + 7, y, size * 0.4) for x, y, size in trail], "#ffffff", 0.4, 4)


@picture("trophy.jpg", 320, 320, "#1c2f6e", "#0a1230")
def trophy(c):
    for k in range(18):
        turn = k * math.tau / 18
        ray = [(160 + 300 * math.cos(turn + d), 140 + 300 * math.sin(turn + d)) for d in (0, math.tau / 36)]
        c.poly([(160, 140), *ray], "#ffffff10")
    c.glow(160, 130, 150, "#ffdf80", 0.6)
    for side in (-1, 1):
        dark = ((0, 226), (74, 290), (52, 286), (38, 304), (-20, 232))
        bright = ((0, 222), (98, 262), (78, 270), (78, 290), (-10, 236))
        c.poly([(160 + side * x, y) for x, y in dark], "#a01f30")
        c.poly([(160 + side * x, y) for x, y in bright], "#e23b4a")
    for side in (-1, 1):
        c.arc(160 + side * 64, 104, 36, 40, 0, 360, "#8a5a08", 13)
        c.arc(160 + side * 64, 104, 35, 39, 0, 360, "#f0b92c", 9)
        c.arc(160 + side * 64, 103, 33, 37, 180, 300, "#fff0a8", 2)
    stem = [(148, 184), (172, 184), (166, 214), (175, 239), (145, 239), (154, 214)]
    bowl = [(66 * math.cos(k * math.pi / 40) ** 0.75, 52 + 138 * math.sin(k * math.pi / 40)) for k in range(20)]
    cup = [*((160 + x, y) for x, y in bowl), *((160 - x, y) for x, y in reversed(bowl))]
    c.gradient((145, 180, 175, 240), "#ffd84a", "#b87408", True, stem)
    c.gradient((92, 50, 228, 194), "#ffd84a", "#b87408", True, cup)
    c.poly([(108, 62), (124, 62), (136, 150), (150, 178), (128, 150)], "#fff6c0b0")
    c.ellipse(160, 52, 67, 11, "#ffe680", "#b87408", 2)
    c.ellipse(160, 53, 57, 7, "#8a5a08")
    c.gradient((126, 234, 194, 248), "#ffe27a", "#b87408", across=True)
    c.gradient((112, 248, 208, 286), "#3a2a22", "#18100c")
    c.rect(132, 256, 188, 278, "#f0c040", 2, "#8a5a08", 1)
    c.text(160, 267, "No. 1", 16, "#4a2c04", bold=0.4)
    c.poly(star(161, 113, 31), "#9a6206")
    c.poly(star(160, 111, 29), "#fff3b0")
    for away, y, size in ((112, 44, 15), (130, 180, 10), (76, 20, 8), (102, 236, 8)):
        for x in (160 - away, 160 + away):
            c.glow(x, y, size * 2, "#ffe27a", 0.5)
            c.poly(star(x, y, size), "#ffd84a")
