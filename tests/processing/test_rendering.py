"""Predictions and explanations as HTML."""

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from processing import split_words
from processing.rendering import heat_map, render_error, render_explanations, render_post, seen_part


TAGS = {"div", "p", "mark", "span", "strong", "h2", "h3", "details", "summary", "figure", "img", "figcaption"}
ATTRIBUTES = {"class", "style", "src", "alt", "open", "role"}


class Reader(HTMLParser):
    """Collects what a browser would show, and checks that nothing but our own elements is there."""

    def __init__(self, html: str):
        super().__init__()
        self.shown, self.marked, self.inside = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS and {name for name, _ in attributes} <= ATTRIBUTES
        assert dict(attributes).get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        if tag != "img":
            self.inside.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        assert self.inside.pop()[0] == tag

    def handle_data(self, data):
        if ("span", "tag") not in self.inside and ("p", "note") not in self.inside:
            self.shown += data
            if any(tag == "mark" for tag, _ in self.inside):
                self.marked.append(data)


hostile = st.lists(
    st.sampled_from(["<script>x()</script>", "<img src=x onerror=y>", "&lt;", "</p>", '"', "'", "${a}", "{{b}}", "`"])
    | st.text(max_size=6),
    max_size=8,
).map("".join)


@given(hostile, st.data())
def test_a_post_is_shown_as_it_stands(text, data):
    spans = split_words(text)
    chosen = [span for span in spans if data.draw(st.booleans())]
    aspects = [{"aspect": text[a:b], "polarity": "positive", "score": 0.5, "start": a, "end": b} for a, b in chosen]
    reader = Reader(render_post(text, aspects))
    normal = text.replace("\r\n", "\n").replace("\r", "\n")
    assert reader.shown.replace("\r\n", "\n").replace("\r", "\n") == normal and not reader.inside
    assert reader.marked == [text[a:b] for a, b in chosen]


@given(hostile, hostile)
def test_explanations_hold_no_markup_of_the_post(text, polarity):
    words = [{"word": text[a:b], "start": a, "end": b, "weight": 0.1} for a, b in split_words(text)]
    explanation = {
        "text_rationale": words or None,
        "image_rationale": None,
        "patches": [[0.9, 0.1]],
        "image_share": 0.2,
    }
    aspect = {"aspect": text, "polarity": polarity, "score": 0.5, "start": 0, "end": 1, "explanation": explanation}
    html = render_explanations([aspect], Image.new("RGB", (20, 10)), (0, 0, 1, 1))
    assert not Reader(html).inside
    assert not Reader(render_error(text)).inside


def test_what_an_aspect_drew_on_is_told_without_colour():
    words = [
        {"word": "so", "start": 0, "end": 2, "weight": 0.1},
        {"word": "great", "start": 3, "end": 8, "weight": 0.9},
    ]
    explanation = {"text_rationale": words, "image_rationale": None, "image_share": 0.25}
    explanation["patches"] = [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.2]]
    aspect = {"aspect": "Hall", "polarity": "negative", "score": 0.7, "start": 0, "end": 4, "explanation": explanation}
    html = render_explanations([aspect], Image.new("RGB", (20, 10)), (0, 0, 1, 1))
    assert "▼ negative 0.70" in html and "Most: “great” 90%, “so” 10%" in html
    assert 'alt="Heat map over the picture: the most at the bottom right"' in html
    assert "25% of the decoder’s attention went to the picture; 20% of it at the bottom right (row 3 of 3" in html
    bare = {**explanation, "text_rationale": None, "patches": None}
    assert "no rationale and no picture" in render_explanations([{**aspect, "explanation": bare}], None, None)


def test_the_hottest_patch_is_the_reddest_place():
    picture = Image.new("RGB", (1400, 700), (90, 200, 90))
    weights = [[0.02] * 7 for _ in range(7)]
    weights[5][1] = 0.5
    heated = heat_map(picture, weights, (0.1, 0.0, 0.9, 1.0))
    assert heated.size == (640, 320)
    redness = {(x, y): heated.getpixel((x, y))[0] - heated.getpixel((x, y))[2] for x in range(640) for y in range(320)}
    x, y = max(redness, key=redness.get)
    assert abs(x - (64 + 512 * 1.5 / 7)) < 20 and abs(y - 320 * 5.5 / 7) < 20
    assert {redness[x, y] for x in (0, 63, 577, 639) for y in (0, 319)} == {0}
    even = heat_map(picture, [[0.25, 0.25]], (0, 0, 1, 1))
    assert len(even.getcolors()) == 1


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"do_center_crop": False}, (0, 0, 1, 1)),
        ({"size": {"height": 256, "width": 256}}, (1 / 16, 1 / 16, 15 / 16, 15 / 16)),
        ({"size": {"shortest_edge": 224}}, (0.25, 0, 0.75, 1)),
        ({"size": {"shortest_edge": 448}}, (0.375, 0.25, 0.625, 0.75)),
        ({"size": {}, "do_resize": False}, (0.22, -0.06, 0.78, 1.06)),
    ],
    ids=range(5),
)
def test_the_part_that_is_seen(settings, part):
    crop = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_resize": True}
    found = seen_part(SimpleNamespace(**crop | settings), (400, 200))
    assert found == pytest.approx([max(0, min(1, share)) for share in part])
    assert seen_part(None, (400, 200)) == (0, 0, 1, 1)
