"""Pictures of screens, boards and charts."""

import itertools
import math

from .canvas import picture


@picture("bar_chart.jpg", 384, 288, "#fbfbf8")
def bar_chart(c):
    c.text(30, 26, "Votes per party (%)", 18, "#222a33", "lm", 0.4)
    for i in range(7):
        y = 244 - 32 * i
        c.line([(52, y), (364, y)], "#d4d8dc" if i else "#333b44", 1 if i else 1.5)
        c.text(45, y, str(10 * i), 11, "#5a646e", "rm")
    shares = (("Green", 9, "#5aa860"), ("Blue", 58, "#2f6fc4"), ("Red", 16, "#cf4a43"), ("Yellow", 6, "#e3b431"))
    for i, (party, share, colour) in enumerate((*shares, ("Others", 11, "#8d949c"))):
        x, top = 70 + 60 * i, 244 - 3.2 * share
        c.rect(x + 3, top + 3, x + 45, 244, "#00000018")
        c.rect(x, top, x + 42, 243.5, colour)
        c.rect(x, top, x + 10, 243.5, "#ffffff28")
        c.text(x + 21, top - 9, str(share), 13, "#222a33", bold=0.4)
        c.text(x + 21, 258, party, 13, "#222a33")


def stock_chart(c, levels, colour, label):
    for i in range(1, 8):
        c.line([(24, 32 * i + 16), (328, 32 * i + 16)], "#ffffff1c")
        c.line([(38 * i + 24, 40), (38 * i + 24, 256)], "#ffffff12")
        c.text(336, 32 * i + 16, str(180 - 20 * i), 11, "#9aa6b8", "lm")
    points = []
    for i, (level, after) in enumerate(itertools.pairwise(levels)):
        for part in range(6):
            height = level + (after - level) * part / 6 + c.rng.uniform(-6, 6)
            points.append((24 + 296 * (6 * i + part) / (6 * len(levels) - 6), height))
    points.append((320, levels[-1]))
    c.poly([*points, (320, 256), (24, 256)], colour + "38")
    c.line(points, colour, 3)
    c.glow(*points[-1], 22, colour, 0.8)
    c.ellipse(*points[-1], 5, 5, "#ffffff", colour, 2)
    up = levels[-1] < levels[0]
    c.rect(236, 8, 364, 36, colour, 6)
    tip, foot = (15, 29) if up else (29, 15)
    c.poly([(246, foot), (254, tip), (262, foot)], "#ffffff")
    c.text(312, 22, label, 19, "#ffffff", bold=0.5)
    c.text(24, 22, "Share price, 6 months", 15, "#dfe6f0", "lm")
    for i, month in enumerate(("Jan", "Feb", "Mar", "Apr", "May", "Jun")):
        c.text(50 + 50 * i, 270, month, 11, "#9aa6b8")


@picture("stock_down.jpg", 384, 288, "#1a1420", "#0c0a12")
def stock_down(c):
    stock_chart(c, (66, 58, 72, 84, 78, 150, 172, 166, 214, 240), "#ff4545", "-64.2 %")


@picture("stock_up.jpg", 384, 288, "#10201c", "#08110f")
def stock_up(c):
    stock_chart(c, (236, 222, 226, 196, 182, 160, 148, 116, 96, 62), "#2fd67a", "+71.8 %")


def phone(c, x, y, width, height):
    """The body of a phone with a dark screen; returns the box of the screen."""
    c.shadow(x + 6, y + 10, x + width + 10, y + height + 10, 0.55, 7)
    c.rect(x + width - 2, y + 70, x + width + 3, y + 104, "#3b3f46", 2)
    c.rect(x, y, x + width, y + height, "#22252a", 20, "#70767f", 2)
    c.rect(x + 7, y + 7, x + width - 7, y + height - 7, "#050507", 15)
    return x + 7, y + 7, x + width - 7, y + height - 7


@picture("low_battery.jpg", 288, 384, "#b58a5e", "#8c6238")
def low_battery(c):
    for _ in range(70):
        y = c.rng.uniform(0, 384)
        c.line([(0, y), (288, y + c.rng.uniform(-8, 8))], "#5a391c2c", c.rng.uniform(0.5, 2))
    phone(c, 60, 22, 168, 340)
    c.rect(120, 36, 168, 46, "#1b1d22", 5)
    c.glow(140, 180, 76, "#ff2a2a", 0.45)
    c.rect(86, 148, 190, 210, None, 12, "#ff3b3b", 5)
    c.rect(193, 167, 201, 191, "#ff3b3b", 3)
    c.rect(95, 157, 102, 201, "#ff3b3b", 2)
    c.text(146, 179, "1 %", 34, "#ffffff", bold=0.6)
    c.text(144, 240, "Battery almost empty", 13, "#ff8d8d")
    c.text(144, 260, "Connect the charger", 12, "#8f949c")
    c.poly([(148, 290), (132, 316), (143, 316), (138, 336), (157, 308), (146, 308)], "#ff3b3b")


@picture("cracked_phone.jpg", 288, 384, "#8d9298", "#5c6066")
def cracked_phone(c):
    c.grain(0.12)
    x0, y0, x1, y1 = phone(c, 60, 22, 168, 340)
    c.gradient((x0 + 2, y0 + 16, x1 - 2, y1 - 16), "#3a6ea8", "#7d4f93")
    c.text(144, 66, "09:41", 34, "#ffffffe0")
    for i, colour in enumerate(
        ("#f2b134", "#4fc06a", "#ef5b5b", "#e8e8ee", "#4aa9e8", "#b06ce0", "#f58f3c", "#3fc0b0")
    ):
        x, y = 78 + 35 * (i % 4), 232 + 44 * (i // 4)
        c.rect(x, y, x + 27, y + 27, colour, 7)
    hit, webs = (172, 146), []
    for spoke in range(17):
        turn, far, web = spoke * math.tau / 17 + c.rng.uniform(-0.13, 0.13), 0.0, [hit]
        while x0 < web[-1][0] < x1 and y0 < web[-1][1] < y1:
            far, turn = far + c.rng.uniform(13, 24), turn + c.rng.uniform(-0.09, 0.09)
            x, y = hit[0] + far * math.cos(turn), hit[1] + far * math.sin(turn)
            web.append((min(max(x, x0), x1), min(max(y, y0), y1)))
        webs.append(web)
    for k, web in enumerate(webs):
        after = webs[(k + 1) % len(webs)]
        for ring in range(1, min(len(web), len(after), 7)):
            if c.rng.random() < 0.8:
                c.line([web[ring], after[ring]], "#f4f8ffd0", 0.8)
            if c.rng.random() < 0.35:
                c.poly([web[ring - 1], web[ring], after[ring], after[ring - 1]], "#ffffff38")
        c.line([(x + 1, y + 1) for x, y in web], "#00000090", 1.5)
        c.line(web, "#ffffff", 1.1)
    c.glow(*hit, 20, "#ffffff", 0.95)
    c.poly(
        [(hit[0] - 4, hit[1] - 1), (hit[0] + 1, hit[1] - 5), (hit[0] + 5, hit[1] + 2), (hit[0] - 1, hit[1] + 4)],
        "#111418",
    )


@picture("scoreboard.jpg", 384, 288, "#0a1430", "#2c4676")
def scoreboard(c):
    for row in range(9):
        for i in range(70):
            colour = c.rng.choice(("#c94f4f", "#d9d9de", "#4e76c4", "#caa24a", "#2b2f3d", "#3b4050"))
            c.ellipse(5.6 * i + c.rng.uniform(-1, 1), 182 + 6 * row, 2.4, 3, colour + "b0")
    c.gradient((0, 234, 384, 288), "#2f8a3c", "#17591f")
    for i in range(0, 12, 2):
        far = 77 + 19 * i
        c.poly([(32 * i, 288), (32 * i + 32, 288), (far + 19, 234), (far, 234)], "#ffffff14")
    c.line([(0, 246), (384, 246)], "#e8f2e8", 1.5)
    for x in (26, 358):
        c.rect(x - 3, 40, x + 3, 234, "#3a4152")
        c.glow(x, 34, 66, "#fff6d0", 0.8)
        for i in range(6):
            c.ellipse(x - 12 + 12 * (i % 3), 28 + 12 * (i // 3), 5, 5, "#ffffff")
    for x in (110, 274):
        c.rect(x - 5, 170, x + 5, 236, "#20242e")
    c.rect(62, 38, 322, 180, "#0b0d12", 6, "#59606e", 4)
    c.rect(190, 96, 194, 170, "#59606e")
    for x, team, goals in ((130, "HOME", "4"), (254, "GUEST", "0")):
        c.text(x, 74, team, 28, "#ffffff", bold=0.8)
        c.text(x, 132, goals, 82, "#ffb020", bold=2)
    c.text(192, 54, "FULL TIME  90:00", 12, "#66e08a")
    for y in range(42, 178, 3):
        c.line([(66, y), (318, y)], "#0b0d1290", 0.7)
    for x in range(66, 320, 3):
        c.line([(x, 42), (x, 176)], "#0b0d1290", 0.7)


@picture("departures.jpg", 384, 288, "#2a2d33", "#17191d")
def departures(c):
    c.rect(10, 8, 374, 280, "#0d0e11", 6, "#4a4e57", 3)
    c.text(24, 30, "DEPARTURES", 22, "#ffd84a", "lm", 0.8)
    c.text(360, 30, "18:42", 22, "#ffffff", "rm", 0.5)
    for x, head in ((24, "Time"), (80, "Destination"), (214, "Plat."), (254, "Remarks")):
        c.text(x, 56, head, 12, "#8f98a8", "lm")
    towns = ("Northfield", "Harbour East", "Old Mill", "Kingsbridge", "Lake View", "Airport", "Westwood", "Central")
    for i, town in enumerate(towns):
        y, minute = 78 + 26 * i, 45 + 9 * i
        for x0, x1 in ((18, 72), (76, 208), (212, 246), (250, 366)):
            c.rect(x0, y - 11, x1, y + 11, "#1d2026", 3)
        c.text(24, y, f"{18 + minute // 60}:{minute % 60:02}", 16, "#ffffff", "lm", 0.2)
        c.text(82, y, town, 16, "#ffffff", "lm", 0.2)
        c.text(229, y, str(c.rng.randint(1, 12)), 16, "#ffd84a")
        c.text(308, y, "CANCELLED", 17, "#ff4d42", bold=0.6)
        c.line([(18, y), (366, y)], "#0d0e11a0", 0.5)


GLYPHS = {
    "G": ".####|#....|#..##|#...#|.####",
    "A": ".###.|#...#|#####|#...#|#...#",
    "M": "#...#|##.##|#.#.#|#...#|#...#",
    "E": "#####|#....|####.|#....|#####",
    "O": ".###.|#...#|#...#|#...#|.###.",
    "V": "#...#|#...#|#...#|.#.#.|..#..",
    "R": "####.|#...#|####.|#..#.|#...#",
    "heart": ".##.##.|#..#..#|#.....#|.#...#.|..#.#..|...#...",
    "alien": "..#...#..|...#.#...|..#####..|.##.#.##.|#########|#.#####.#|#.#...#.#|...#.#...",
}


def pixels(c, glyph, x, y, size, colour):
    for row, line in enumerate(GLYPHS[glyph].split("|")):
        for column, dot in enumerate(line):
            if dot == "#":
                left, top = x + size * column, y + size * row
                c.rect(left, top, left + size - 0.5, top + size - 0.5, colour)


@picture("game_over.jpg", 384, 288, "#0b0b1e")
def game_over(c):
    for _ in range(90):
        x, y = 4 * c.rng.randrange(96), 4 * c.rng.randrange(60)
        c.rect(x, y, x + 3.5, y + 3.5, c.rng.choice(("#2c2c5a", "#4a4a80", "#20203f")))
    for i in range(3):
        pixels(c, "heart", 16 + 34 * i, 14, 4, "#6a3048")
    for i in range(5):
        pixels(c, "alien", 46 + 64 * i, 52 + 8 * (i % 2), 4, ("#6de06d", "#56c8ff")[i % 2])
    for word, y in (("GAME", 104), ("OVER", 166)):
        for i, letter in enumerate(word):
            pixels(c, letter, 76 + 60 * i + 4, y + 4, 10, "#6a0f1f")
            pixels(c, letter, 76 + 60 * i, y, 10, "#ff3b4e")
    for x in range(0, 384, 8):
        top = 248 + 8 * c.rng.randrange(2)
        c.rect(x, top, x + 7.5, 288, "#7a4a24")
        c.rect(x, top, x + 7.5, top + 7.5, "#3faa45")
    for y in range(0, 288, 4):
        c.line([(0, y), (384, y)], "#00000048", 1)


@picture("error_screen.jpg", 384, 288, "#d9d4cc", "#b8b0a4")
def error_screen(c):
    c.gradient((0, 236, 384, 288), "#8a6244", "#5f3f28")
    c.ellipse(196, 262, 84, 9, "#00000050")
    c.taper(192, 214, 24, 258, 32, "#2c2f34")
    c.rect(132, 252, 252, 262, "#3a3e45", 5)
    c.shadow(42, 30, 352, 224, 0.4, 6)
    c.rect(36, 16, 348, 218, "#15171b", 10, "#3d4149", 2)
    c.gradient((46, 26, 338, 204), "#1c6fd6", "#0d4fae")
    c.ellipse(98, 86, 34, 34, None, "#ffffff", 4)
    for x in (86, 110):
        c.ellipse(x, 78, 4, 5.5, "#ffffff")
    c.arc(98, 108, 17, 14, 200, 340, "#ffffff", 4)
    c.text(146, 68, "Oh no!", 28, "#ffffff", "lm", 0.5)
    c.text(146, 96, "Something went badly wrong.", 13, "#ffffff", "lm")
    c.text(146, 114, "Your work was not saved.", 13, "#ffffff", "lm")
    c.text(64, 148, "ERROR 0x7F3A", 17, "#ffffff", "lm", 0.4)
    c.rect(64, 168, 320, 178, "#ffffff38", 5)
    c.rect(64, 168, 112, 178, "#ffffff", 5)
    c.text(64, 190, "Restarting ... 17 %", 11, "#d8e8ff", "lm")
    c.poly([(250, 26), (338, 26), (338, 150)], "#ffffff14")
    c.rect(330, 209, 338, 212, "#ff9a3d", 1)
    c.rect(92, 268, 292, 288, "#2c2f34", 4)
    for k in range(18):
        for row in range(2):
            c.rect(97 + 10.7 * k, 271 + 9 * row, 105 + 10.7 * k, 278 + 9 * row, "#4b5059", 1)
