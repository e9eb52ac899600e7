"""Two drawings that stand in for photographs: a motorcycle in a garage and a portrait of an officer."""

import math

from .canvas import picture
from .relief import mirrored, smooth


@picture("motorcycle.jpg", 384, 288, "#8d8676", "#6c6557")
def motorcycle(c):
    garage(c)
    c.puff([(90 + 10 * k, 262, 9) for k in range(22)], "#000000", 0.75, 5)
    for x in (104, 286):
        wheel(c, x, 212)
    c.line([(104, 212), (172, 222)], "#2b2d31", 7)
    c.line([(104, 212), (152, 160)], "#33363b", 3)
    c.line([(110, 205), (146, 167)], "#17181a", 8)
    for k in range(10):
        x, y = 111 + 3.8 * k, 204 - 4 * k
        c.line([(x - 4.5, y - 3), (x + 4.5, y + 3)], "#e1e4e6", 1.6)
    c.line([(150, 158), (166, 224), (226, 226), (246, 150)], "#1d2024", 5)
    c.line([(150, 158), (246, 146)], "#1d2024", 6)
    c.line(smooth([(232, 190), (238, 214), (214, 236), (160, 238)], False), "#8f9499", 7)
    c.line(smooth([(232, 189), (237, 212), (213, 234), (160, 236)], False), "#e8ebee", 2)
    c.taper(120, 230, 46, 243, 50, "#70757a")
    c.gradient((70, 230, 168, 243), "#f1f3f5", "#6d7277")
    c.ellipse(70, 236.5, 2.5, 6.5, "#1a1b1e")
    c.rect(168, 206, 224, 234, "#5e6368", 7, "#33363a", 1)
    c.gradient((172, 208, 220, 220), "#aeb3b8", "#7a7f84")
    c.ellipse(184, 220, 13, 13, "#c8ccd0", "#5a5f64", 1)
    c.ellipse(184, 220, 8, 8, "#9ba0a5")
    c.ellipse(210, 221, 9, 9, "#b4b9be", "#5a5f64", 1)
    barrel = [(192, 208), (204, 164), (232, 168), (220, 212)]
    c.poly(barrel, "#3c4045")
    for k in range(8):
        x, y = 193 + 1.6 * k, 204 - 5.4 * k
        c.line([(x - 5, y), (x + 34, y + 4.4)], "#c2c7cb", 1.8)
    c.rect(168, 176, 190, 198, "#23262a", 5, "#777c81", 1)
    c.line([(158, 240), (142, 262)], "#2b2d31", 4)
    for x, y in ((244, 138), (251, 136)):
        c.line([(x, y), (x + 40, y + 75)], "#7e8489", 5)
        c.line([(x - 1, y), (x + 39, y + 75)], "#eef0f2", 1.6)
    c.line([(264, 166), (286, 212)], "#2b2d31", 7)
    for x, start, end in ((104, 196, 318), (286, 205, 325)):
        c.arc(x, 212, 53, 53, start, end, "#5c0d12", 9)
        c.arc(x, 212, 53, 53, start + 3, end - 3, "#c8202c", 6)
        c.arc(x, 212, 51.5, 51.5, start + 30, end - 50, "#ff8f8f", 1.2)
    seat = [(88, 150), (100, 141), (124, 147), (148, 150), (170, 140), (178, 152), (160, 164), (118, 163), (94, 158)]
    c.poly(smooth(seat), "#17120f")
    c.line(smooth([(98, 145), (124, 150), (148, 153), (168, 144)], False), "#5c4a3e", 1.6)
    c.rect(58, 163, 72, 173, "#ff3b2a", 3, "#d7dadd", 1.5)
    tank = smooth([(170, 150), (182, 130), (208, 122), (236, 127), (248, 142), (238, 154), (206, 160), (178, 160)])
    c.poly([(x, y + 1.5) for x, y in tank], "#4a070c")
    c.gradient((168, 120, 250, 162), "#ef3541", "#86121b", within=tank)
    c.line(smooth([(184, 136), (206, 127), (232, 131)], False), "#ffc9c9", 2.4)
    c.poly(smooth([(188, 146), (208, 139), (232, 144), (208, 152)]), "#f4e6c2")
    c.rect(204, 119, 216, 124, "#d7dadd", 2)
    c.line(smooth([(250, 140), (246, 116), (228, 104)], False), "#d9dcdf", 3.4)
    c.line([(233, 106), (214, 101)], "#141414", 6)
    c.line([(232, 111), (214, 109)], "#c5c9cd", 1.4)
    c.line([(244, 112), (238, 92)], "#b9bdc1", 1.6)
    c.ellipse(236, 88, 9, 6, "#2c3034", "#d7dadd", 1)
    c.ellipse(254, 122, 7, 6, "#22252a", "#d7dadd", 1.2)
    c.poly(smooth([(256, 132), (266, 126), (278, 128), (278, 152), (266, 154), (256, 148)]), "#2a2d31")
    c.ellipse(278, 140, 6, 14, "#e3e6e8", "#8b9095", 1)
    c.ellipse(279, 140, 4, 11, "#fff6cf")


def wheel(c, x, y):
    c.ellipse(x, y, 48, 48, None, "#131315", 10)
    c.ellipse(x, y, 46, 46, None, "#34353a", 1)
    c.ellipse(x, y, 38.5, 38.5, None, "#d5d9dc", 2.5)
    for k in range(28):
        a, hub = k * math.tau / 28, k * math.tau / 28 + (0.7 if k % 2 else -0.7)
        rim = (x + 37 * math.cos(a), y + 37 * math.sin(a))
        c.line([(x + 6 * math.cos(hub), y + 6 * math.sin(hub)), rim], "#cfd3d7", 0.7)
    c.ellipse(x, y, 14, 14, None, "#8e9398", 2)
    c.ellipse(x, y, 8, 8, "#b9bec2", "#4c5055", 1)
    c.ellipse(x, y, 3, 3, "#33363a")


def garage(c):
    for y in range(0, 196, 14):
        for x in range(-28 + 14 * (y // 14 % 2), 384, 28):
            c.rect(x, y, x + 27, y + 13, c.rng.choice(("#8f8878", "#968f7f", "#888171")), 1)
    c.gradient((0, 196, 384, 288), "#77736c", "#4d4a45")
    for _ in range(36):
        x, y = c.rng.uniform(0, 384), c.rng.uniform(204, 286)
        c.ellipse(x, y, c.rng.uniform(6, 30), c.rng.uniform(1, 4), c.rng.choice(("#00000024", "#ffffff12")))
    c.rect(134, 10, 262, 92, "#b98d58", 1, "#6e4f2c", 2)
    for k in range(20):
        for row in range(12):
            c.ellipse(140 + 6.2 * k, 17 + 6.2 * row, 0.7, 0.7, "#5d421f")
    for x, long, grip in ((148, 34, "#c2332b"), (160, 42, "#e0a020"), (172, 30, "#2d62a8"), (184, 38, "#2c7a3d")):
        c.line([(x, 30), (x, 22 + long)], "#c9cdd1", 2)
        c.rect(x - 3, 20, x + 3, 36, grip, 2)
    for k in range(4):
        x, size = 202 + 14 * k, 5.5 - 0.7 * k
        c.line([(x, 24), (x, 74 - 8 * k)], "#9ea4aa", 3)
        for y in (22, 76 - 8 * k):
            c.ellipse(x, y, size, size, "#9ea4aa")
            c.ellipse(x, y - 2 if y == 22 else y + 2, size / 2, size / 2, "#b98d58")
    c.rect(146, 76, 186, 81, "#8a5a30", 2)
    c.rect(178, 68, 188, 88, "#4a4e54", 2)
    for y in (42, 94, 146):
        for k in range(7):
            x, tall = 4 + 17 * k, c.rng.uniform(16, 34)
            colour = c.rng.choice(("#b0813f", "#a3743a", "#39608a", "#8a3a30", "#c9c4b4", "#4c6b4a", "#d0a23a"))
            c.rect(x, y - tall, x + c.rng.uniform(13, 16.5), y, colour, 1, "#00000060", 0.5)
            c.rect(x + 3, y - tall * 0.6, x + 11, y - tall * 0.3, "#f2eee080")
        c.rect(0, y, 124, y + 5, "#5a3f26")
        c.rect(0, y + 5, 124, y + 9, "#00000048")
    for x in (0, 118):
        c.rect(x, 0, x + 6, 200, "#6b4c2e")
    c.rect(282, 8, 372, 76, "#e8eef0", 1, "#d9d2c0", 4)
    c.gradient((286, 12, 368, 72), "#bfe0f2", "#f4f4e4")
    for k in range(14):
        c.ellipse(292 + 5.4 * k, 66 - 4 * math.sin(1.3 * k), 6, 7, ("#7fa765", "#6b9556")[k % 2])
    c.rect(278, 76, 376, 82, "#d9d2c0", 1)
    c.rect(278, 80, 376, 83, "#00000040", 1)
    for line in ([(327, 10), (327, 74)], [(284, 42), (370, 42)]):
        c.line(line, "#d9d2c0", 3)
    for x in (276, 378):
        c.rect(x - 3, 116, x + 3, 204, "#5f4226")
    c.rect(256, 116, 384, 124, "#9a6d3c", 1, "#5f4226", 1)
    for x, y, wide, colour in ((336, 98, 40, "#b5262c"), (330, 156, 48, "#a3743a"), (340, 184, 36, "#39608a")):
        c.rect(x, y, x + wide, y + (18 if y < 100 else 26), colour, 2, "#00000070", 1)
        c.rect(x + wide / 2 - 6, y + 4, x + wide / 2 + 6, y + 8, "#e6e0d0c0", 1)
    for x, colour in ((292, "#d0a23a"), (306, "#2c7a3d"), (320, "#c9ccd0")):
        c.rect(x, 102, x + 11, 116, colour, 2, "#00000060", 0.5)
    for x, y, size in ((366, 190, 32), (348, 218, 27)):
        c.ellipse(x + 2, y + size - 1, size, 5, "#00000060")
        c.ellipse(x, y, size, size, "#101012")
        c.ellipse(x, y, size - 2, size - 2, None, "#3a3a3f", 2)
        c.ellipse(x, y, size * 0.6, size * 0.6, "#2d2d31")
        c.ellipse(x + 3, y, size * 0.52, size * 0.54, "#57524a")
    c.line([(268, 66), (250, 232)], "#c79a5c", 3.4)
    c.poly([(246, 208), (258, 209), (262, 236), (236, 234)], "#d8b64a")
    for k in range(4):
        c.ellipse(122 + 1.4 * k, 64 + 1.5 * k, 13, 18, None, ("#e07a1f", "#b85a10")[k % 2], 1.6)
    for x, y, wide, tall, colour in ((4, 160, 54, 38, "#a97c45"), (50, 166, 36, 34, "#b98d58")):
        c.rect(x, y + 8, x + wide, y + tall + 8, colour, 1, "#5f4226", 1)
        c.rect(x + wide / 2 - 4, y + 8, x + wide / 2 + 4, y + tall + 8, "#dcc79a90")
    c.rect(8, 196, 46, 226, "#b5262c", 3, "#5c0f12", 1)
    c.rect(16, 190, 38, 198, None, 3, "#5c0f12", 2)
    for y in (204, 214):
        c.line([(9, y), (45, y)], "#5c0f12", 1)
    c.glow(328, 40, 150, "#fff3cf", 0.28)
    c.shadow(0, 190, 384, 200, 0.3, 5)


@picture("hopper.jpg", 288, 384, "#7f8fa3", "#39465a")
def hopper(c):
    c.glow(150, 150, 190, "#c8d2dc", 0.6)
    coat = [(14, 236), (40, 246), (76, 262), (110, 280), (128, 316), (140, 400), (0, 400)]
    c.puff([(152, 330, 120)], "#000000", 0.35, 10)
    c.gradient((0, 230, 288, 402), "#232b42", "#10141f", within=smooth(mirrored(144, coat)))
    for side in (-1, 1):
        c.line(smooth([(144 + side * x, y) for x, y in ((98, 296), (90, 330), (92, 384))], False), "#060810", 1.6)
        c.poly([(144 + side * x, y) for x, y in ((58, 257), (104, 277), (112, 289), (62, 268))], "#0b0e18")
        for k in range(4):
            x, y = 66 + 11 * k, 262 + 5.4 * k
            c.line([(144 + side * x, y), (144 + side * (x + 4), y + 9)], "#e3bb52", 3)
    # The neck, the shirt and the tie.
    c.gradient((112, 196, 176, 262), "#c58e6e", "#9c6a4e", within=mirrored(144, [(26, 196), (28, 240), (0, 264)]))
    c.puff([(128 + 8 * k, 218, 9) for k in range(5)], "#6f4630", 0.55, 4)
    c.poly(mirrored(144, [(6, 250), (30, 244), (34, 290), (0, 330)]), "#e9ecef")
    for side in (-1, 1):
        flap = [(144 + side * x, y) for x, y in ((29, 224), (33, 240), (18, 266), (0, 250))]
        c.poly(flap, "#fbfcfd")
        c.line(flap, "#aab2bc", 0.8)
    c.poly(mirrored(144, [(9, 250), (6, 264), (13, 320), (0, 340)]), "#0d0f16")
    c.poly(mirrored(144, [(9, 249), (5, 264)]), "#1f2330")
    for side in (-1, 1):
        lapel = ((30, 236), (56, 254), (66, 284), (50, 284), (54, 292), (2, 346), (8, 318))
        c.poly([(144 + side * x, y) for x, y in lapel], "#2b344e")
        c.line([(144 + side * x, y) for x, y in lapel[1:6]], "#080b13", 1)
        for y in (326, 356):
            c.ellipse(144 + side * 30, y + 1, 6, 6, "#05070c")
            c.ellipse(144 + side * 30, y, 6, 6, "#e8c25a", "#8a6a1c", 1)
            c.ellipse(144 + side * 30 - 1.5, y - 1.5, 2, 2, "#fff3c4")
    c.line([(146, 346), (146, 384)], "#060810", 1.4)
    for k, colours in enumerate(("#c8323a #f2f2f2 #2f5aa8", "#2f7a4a #f0c84a #2f7a4a", "#f0c84a #2f5aa8 #c8323a") * 2):
        x, y = 204 + 15 * (k % 3), 300 + 8 * (k // 3)
        for part, colour in enumerate(colours.split()):
            c.rect(x + 4.6 * part, y, x + 4.6 * part + 4.6, y + 6.5, colour)
    # The head: ears, face, hair at the temples.
    for side in (-1, 1):
        c.ellipse(144 + side * 47, 160, 8, 14, "#b57c5e")
        c.arc(144 + side * 47, 160, 4, 9, 0, 360, "#935f45", 1.4)
    head = [(44, 110), (47, 150), (45, 180), (36, 204), (17, 219), (0, 221)]
    face = smooth(mirrored(144, head))
    c.gradient((94, 104, 194, 226), "#e3b090", "#c98f70", within=face)
    side = [(191, 150), (189, 180), (180, 204), (161, 219), (146, 221), (164, 206), (176, 184), (183, 152)]
    c.poly(smooth(side), "#a86e5238")
    c.poly(smooth([(189, 160), (188, 182), (178, 205), (160, 219), (172, 204), (183, 182)]), "#a86e5248")
    c.puff([(120, 184, 8), (166, 184, 8)], "#d67f6a", 0.3, 5)
    for side in (-1, 1):
        hair = ((40, 118), (50, 122), (52, 148), (47, 160), (43, 146))
        c.poly(smooth([(144 + side * x, y) for x, y in hair]), "#5b4a40")
        x = 144 + side * 20
        c.poly(smooth([(x - 11, 154), (x, 148.5), (x + 11, 154), (x, 158.5)]), "#f4f1ec")
        c.ellipse(x, 153.3, 4.6, 4.8, "#4b5a5f")
        c.ellipse(x, 153.3, 2.2, 2.4, "#141414")
        c.ellipse(x - 1.5, 151.7, 1.1, 1.1, "#ffffff")
        c.line(smooth([(x - 12, 154.5), (x - 2, 148.2), (x + 11.5, 153.5)], False), "#3b2a22", 1.8)
        c.line(smooth([(x - 9, 162), (x, 164), (x + 9, 161.5)], False), "#a56c5080", 1)
        brow = ((7, 143), (20, 138.5), (34, 143), (20, 141.8))
        c.poly(smooth([(144 + side * bx, y) for bx, y in brow]), "#4a382e")
        c.line(smooth([(144 + side * bx, y) for bx, y in ((14, 184), (20, 192), (22, 200))], False), "#a56c5090", 1.2)
        c.ellipse(144 + side * 6, 184, 2.6, 1.6, "#8a5038")
    c.line(smooth([(150, 150), (151, 170), (156, 180), (150, 187)], False), "#a86e52", 1.6)
    c.poly(smooth([(141, 152), (145, 152), (147, 178), (144, 182), (140, 178)]), "#f6d3ba70")
    c.line(smooth([(136, 186), (144, 189), (152, 186)], False), "#9a6047", 1.4)
    c.poly(smooth([(126, 203), (138, 200), (144, 201), (150, 200), (162, 203), (144, 205)]), "#a9564a")
    c.poly(smooth([(128, 204), (144, 205), (160, 204), (144, 211)]), "#c26f60")
    c.line(smooth([(125, 202.5), (144, 205), (163, 202.5)], False), "#74362c", 1.2)
    c.line(smooth([(136, 216), (144, 217.5), (152, 216)], False), "#a56c5090", 1.4)
    # The cap: white top, black band with braid and badge, shining peak.
    c.puff([(112 + 8 * k, 128, 8) for k in range(9)], "#5a3626", 0.5, 4)
    crown = [(0, 34), (50, 40), (84, 62), (80, 80), (54, 94), (0, 98)]
    c.gradient((56, 30, 232, 100), "#ffffff", "#bcc4ce", within=smooth(mirrored(144, crown)))
    c.line(smooth([(66, 76), (104, 60), (144, 56), (184, 60), (222, 76)], False), "#9aa4b080", 1.4)
    c.poly(smooth(mirrored(144, [(0, 78), (40, 82), (51, 90), (50, 118), (30, 114), (0, 112)])), "#12151f")
    peak = smooth(mirrored(144, [(0, 112), (36, 114), (53, 118), (44, 130), (20, 135), (0, 136)]))
    c.gradient((88, 108, 200, 138), "#2c303c", "#050609", within=peak)
    c.poly(smooth([(102, 120), (122, 125.5), (152, 127), (122, 129.5)]), "#8d95a6")
    c.line(smooth([(94, 112), (118, 107), (144, 106), (170, 107), (194, 112)], False), "#d9ae42", 4)
    c.line(smooth([(94, 111), (118, 106), (144, 105), (170, 106), (194, 111)], False), "#fbe39a", 1)
    for side in (-1, 1):
        c.ellipse(144 + side * 49, 111, 3.4, 3.4, "#f0cb62", "#7a5a14", 0.8)
        for k in range(4):
            leaf = ((6 + 2 * k, 94 - 5 * k), (14 + k, 91 - 6 * k), (9 + k, 86 - 5 * k))
            c.poly([(144 + side * x, y) for x, y in leaf], "#dcb24a")
    c.ellipse(144, 84, 9, 11, "#f0cb62", "#8a6a1c", 1)
    c.line([(144, 77), (144, 91)], "#6e4f10", 1.6)
    c.line([(140, 80), (148, 80)], "#6e4f10", 1.4)
    c.arc(144, 86, 5, 5, 10, 170, "#6e4f10", 1.6)
