"""The published forms of Twitter-2015 and Twitter-2017, written here as their descriptions say, and read back."""

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from processing import PostError, load_posts, save_posts
from processing.posts import FEATURES, iterate_posts


DATA = Path(os.environ.get("LRSA_TWITTER_DATA", Path(__file__).parents[3] / "shared" / "data"))
HEADER = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String\n"
NUMBERS = {"negative": 0, "neutral": 1, "positive": 2}
TAGS = {"negative": "NEG", "neutral": "NEU", "positive": "POS"}


# --- writers of each form; a post is {"words", "image", "aspects"}


def masked(post: dict) -> list[tuple[str, str, int, str]]:
    """Sentence with the aspect left out, aspect, number of the polarity and picture, of each aspect."""
    rows = []
    for aspect in post["aspects"]:
        words, start, end = post["words"], aspect["start"], aspect["end"]
        sentence = " ".join([*words[:start], "$T$", *words[end:]])
        rows.append((sentence, " ".join(words[start:end]), NUMBERS[aspect["polarity"]], post["image"]))
    return rows


def write_tsv(path: Path, posts: list[dict]) -> None:
    rows = [row for post in posts for row in masked(post)]
    lines = [
        f"{n}\t{polarity}\t{image}\t{sentence}\t{aspect}\n"
        for n, (sentence, aspect, polarity, image) in enumerate(rows, 1)
    ]
    path.write_bytes((HEADER + "".join(lines)).encode())


def write_txt(path: Path, posts: list[dict]) -> None:
    rows = [row for post in posts for row in masked(post)]
    lines = [f"{sentence}\n{aspect}\n{polarity - 1}\n{image}\n" for sentence, aspect, polarity, image in rows]
    path.write_bytes("".join(lines).encode("utf-8-sig"))  # the mark in front keeps one that a post begins with


def write_json(path: Path, posts: list[dict]) -> None:
    objects = [
        {
            "words": post["words"],
            "image_id": post["image"],
            "aspects": [
                {
                    "from": aspect["start"],
                    "to": aspect["end"],
                    "polarity": TAGS[aspect["polarity"]],
                    "term": post["words"][aspect["start"] : aspect["end"]],
                }
                for aspect in post["aspects"]
            ],
            "opinions": [{"term": []}],
        }
        for post in posts
    ]
    path.write_text(json.dumps(objects), encoding="utf-8")


WRITERS = {".tsv": write_tsv, ".txt": write_txt, ".json": write_json}


def read(path: Path) -> list[dict]:
    """The posts as they were given to a writer."""
    return [{name: row[name] for name in ("words", "image", "aspects")} for _, row, _ in iterate_posts(path)]


def in_order(post: dict) -> dict:
    return {**post, "aspects": sorted(post["aspects"], key=lambda aspect: aspect["start"])}


# --- any posts


@pytest.fixture(scope="session")
def any_posts(any_words, spans_of) -> st.SearchStrategy[list[dict]]:
    few = st.lists(st.sampled_from(["Ajax", "ajax", "Ajax", ",", '"', "'", "$", "$T", "T$", "-1", "0"]), min_size=1)
    words = st.one_of(few, any_words.filter(lambda words: not any("$T$" in word for word in words)))

    @st.composite
    def posts(draw) -> list[dict]:
        drawn = []
        for number, words_ in enumerate(draw(st.lists(words, min_size=1, max_size=5))):
            spans = draw(spans_of(len(words_)).filter(len))
            polarities = draw(st.lists(st.sampled_from([*NUMBERS]), min_size=len(spans), max_size=len(spans)))
            aspects = [{"start": a, "end": b, "polarity": p} for (a, b), p in zip(spans, polarities)]
            # Pictures are shared by posts of other words; the same words stand beside other pictures.
            image = draw(st.sampled_from(["1.jpg", "17_06_2.jpg", "O_3.jpg"]))
            if all((image, words_) != (post["image"], post["words"]) for post in drawn):
                drawn.append({"words": words_, "image": image, "aspects": aspects})
        return drawn

    return posts()


@pytest.mark.parametrize("ending", WRITERS)
def test_any_posts_come_back(ending, any_posts, tmp_path):
    path = tmp_path / f"train{ending}"

    @given(posts=any_posts)
    def check(posts):
        WRITERS[ending](path, posts)
        expected = [in_order(post) for post in posts]
        found = [{name: post[name] for name in ("words", "aspects")} for _, _, post in iterate_posts(path)]
        assert found == [{name: post[name] for name in ("words", "aspects")} for post in expected]
        assert [row["image"] for _, row, _ in iterate_posts(path)] == [post["image"] for post in posts]

    check()


@pytest.mark.parametrize("ending", [".tsv", ".txt"])
def test_rows_of_a_tweet_may_lie_apart(ending, any_posts, tmp_path):
    path = tmp_path / f"train{ending}"

    @given(posts=any_posts, data=st.data())
    def check(posts, data):
        single = [{**post, "aspects": [aspect]} for post in posts for aspect in post["aspects"]]
        mixed = data.draw(st.permutations(single))
        WRITERS[ending](path, mixed)
        first = sorted(posts, key=lambda post: next(i for i, row in enumerate(mixed) if same(row, post)))
        assert [
            {"words": post["words"], "image": row["image"], "aspects": post["aspects"]}
            for _, row, post in iterate_posts(path)
        ] == [in_order(post) for post in first]

    def same(row, post):
        return (row["image"], row["words"]) == (post["image"], post["words"])

    check()


# --- files as published


TSV = HEADER + (
    "1\t2\t17.jpg\tRT @ Marta : $T$ beats $T , Ajax !\t# Ajax Amsterdam\n"
    "2\t0\t17.jpg\tRT @ Marta : # Ajax Amsterdam beats $T , $T$ !\tAjax\n"
    "3\t1\t17.jpg\tRT @ $T$ : # Ajax Amsterdam beats $T , Ajax !\tMarta\n"
    "4\t1\t18.jpg\t$T$\tSherlock Holmes\n"
)
TXT = (
    "RT @ Marta : $T$ beats $T , Ajax !\n# Ajax Amsterdam\n1\n17.jpg\n"
    "RT @ Marta : # Ajax Amsterdam beats $T , $T$ !\nAjax\n-1\n17.jpg\n"
    "RT @ $T$ : # Ajax Amsterdam beats $T , Ajax !\nMarta\n0\n17.jpg\n"
    "$T$\nSherlock Holmes\n0\n18.jpg\n"
)
WORDS = "RT @ Marta : # Ajax Amsterdam beats $T , Ajax !".split()
JSON = [
    {
        "words": WORDS,
        "image_id": "17.jpg",
        "aspects": [
            {"from": 4, "to": 7, "polarity": "POS", "term": ["#", "Ajax", "Amsterdam"]},
            {"from": 10, "to": 11, "polarity": "NEG", "term": ["Ajax"]},
            {"from": 2, "to": 3, "polarity": "NEU", "term": ["Marta"]},
        ],
        "opinions": [{"term": []}],
        "noun": [["Marta"], ["Ajax", "Amsterdam"]],
    },
    {
        "words": ["Sherlock", "Holmes"],
        "image_id": "18.jpg",
        "aspects": [{"from": 0, "to": 2, "polarity": "NEU", "term": ["Sherlock", "Holmes"]}],
        "opinions": [{"term": []}],
        "noun": [],
    },
]
PUBLISHED = {".tsv": TSV, ".txt": TXT, ".json": json.dumps(JSON)}
ASPECTS = [
    {"start": 2, "end": 3, "polarity": "neutral"},
    {"start": 4, "end": 7, "polarity": "positive"},
    {"start": 10, "end": 11, "polarity": "negative"},
]


@pytest.mark.parametrize("ending", PUBLISHED)
def test_a_published_folder(ending, tmp_path, picture):
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "17.jpg")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}{ending}").write_bytes(PUBLISHED[ending].encode())
    posts = load_posts(tmp_path, labelled=True)
    assert isinstance(posts, DatasetDict) and list(posts) == ["train", "validation", "test"]
    for name, rows in posts.items():
        stem = "dev" if name == "validation" else name
        assert rows.features == FEATURES
        assert rows["words"] == [WORDS, ["Sherlock", "Holmes"]] and rows["text"] == [None, None]
        assert rows["aspects"] == [ASPECTS, [{"start": 0, "end": 2, "polarity": "neutral"}]]
        numbers = {".tsv": (2, 5), ".txt": (1, 13), ".json": (1, 2)}[ending]
        assert rows["id"] == [f"{stem}-{number}" for number in numbers]
        assert rows[0]["image"].size == picture.size and rows[1]["image"] is None
        assert rows["text_rationale"] == rows["image_rationale"] == [None, None]
    save_posts(posts, tmp_path / "parquet")
    for name, rows in load_posts(tmp_path / "parquet").items():
        kept = [column for column in rows.column_names if column != "image"]
        assert rows.select_columns(kept).to_list() == posts[name].select_columns(kept).to_list()
        assert rows[0]["image"].tobytes() == posts[name][0]["image"].tobytes() and rows[1]["image"] is None
    (tmp_path / f"dev{ending}").rename(tmp_path / f"val{ending}")
    assert load_posts(tmp_path, "validation")["words"] == posts["validation"]["words"]


def test_line_ends_other_headers_and_json_over_many_lines(tmp_path):
    files = {
        "ends.tsv": "\ufeff" + TSV.replace("\n", "\r\n") + "\r\n",
        "test.tsv": TSV.replace("#3 String", "#2 String"),  # so in the published test.tsv
        "ends.txt": "\ufeff" + TXT.replace("\n", "\r\n") + "\r\n \r\n",
        "cut.txt": TXT.rstrip("\n"),
        "lines.json": "\n\n" + json.dumps(JSON, indent=2).replace("\n", "\r\n"),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content.encode())
        (_, row, post), (_, other, _) = iterate_posts(path)
        assert (post["words"], post["aspects"], row["image"], other["image"]) == (WORDS, ASPECTS, "17.jpg", "18.jpg")
    lines = [number for number, line in enumerate(content.splitlines(), 1) if line == "  {"]
    assert [where for where, _, _ in iterate_posts(path)] == [
        f"{path}:{lines[0]}: post 1",
        f"{path}:{lines[1]}: post 2",
    ]


def test_one_form_of_a_folder_is_read(tmp_path):
    """TomBERT's folders hold `.tsv` and `.txt` of the same."""
    for ending in (".tsv", ".txt"):
        (tmp_path / f"train{ending}").write_text(PUBLISHED[ending])
    (tmp_path / "dev.txt").write_text(TXT)
    assert load_posts(tmp_path, "train")["id"] == ["train-2", "train-5"]
    with pytest.raises(PostError, match="there is no validation.tsv; found train"):
        load_posts(tmp_path, "validation")
    (tmp_path / "train.jsonl").write_text('{"text": "a"}')
    assert load_posts(tmp_path)["train"]["text"] == ["a"]


def test_a_tweet_that_was_taken_up_twice(tmp_path):
    lines = TSV.splitlines(keepends=True)
    (tmp_path / "train.tsv").write_text("".join(lines + lines[1:4]))
    posts = load_posts(tmp_path / "train.tsv")
    assert posts["id"] == ["train-2", "train-5", "train-6"]
    assert posts["aspects"][0] == posts["aspects"][2] == ASPECTS and posts["words"][2] == WORDS


# --- bad input


def tsv(*columns: str) -> str:
    return HEADER + "1\t1\t1.jpg\t$T$ wins\tAjax\n" + "\t".join(columns) + "\n"


def txt(*lines: str) -> str:
    return "$T$ wins\nAjax\n0\n1.jpg\n" + "".join(line + "\n" for line in lines)


def aspect(**changes) -> str:
    fields = {"from": 0, "to": 1, "polarity": "POS", "term": ["Ajax"]} | changes
    return json.dumps([JSON[1], {"words": ["Ajax", "wins"], "image_id": "1.jpg", "aspects": [fields]}])


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        (".tsv", "", ": the file is empty"),
        (".tsv", HEADER, ": the file is empty"),
        (".tsv", "1\t1\t1.jpg\t$T$ wins\tAjax\n", ":1: the header is expected, five columns"),
        (".tsv", "index\t#1 Label\t#2 String\t#2 String\n", ":1: the header is expected, five columns"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$ wins"), ":3: five columns split by tabs are expected, here are 4"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$ wins", "PSV", ""), ":3: five columns .* here are 6"),
        (".tsv", tsv("2", "3", "1.jpg", "$T$ wins", "PSV"), r":3: label: '3' is unknown; one of 0 \(negative\), 1 "),
        (".tsv", tsv("2", "-1", "1.jpg", "$T$ wins", "PSV"), ":3: label: '-1' is unknown"),
        (".tsv", tsv("2", "1", "1.jpg", "PSV wins", "PSV"), r":3: sentence: holds no \$T\$; put it in"),
        (".tsv", tsv("2", "1", "1.jpg", "@$T$ wins", "PSV"), r":3: sentence: \$T\$ is a part of '@\$T\$'"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$ and $T$ win", "PSV"), r":3: sentence: holds \$T\$ 2 times"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$ wins", " "), ":3: aspect: is empty"),
        (".tsv", tsv("2", "1", "", "$T$ wins", "PSV"), ":3: image: is empty"),
        (".tsv", tsv("2", "2", "1.jpg", "$T$ wins", "Ajax"), ":3: aspect: 'Ajax' at words 0–1 has come in line 2"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$", "Ajax wins"), ":2: aspects: 0–1 and 0–2 overlap"),
        (".tsv", tsv("2", "1", "1.jpg", "$T$ wins", "a " * 6000), ":3: words: 12,005 characters"),
        (".txt", " \n", ": the file is empty"),
        (".txt", txt("$T$ wins", "PSV", "1"), ":5: the last 3 of 7 lines are no four"),
        (".txt", txt("$T$ wins", "PSV", "1.jpg", "$T$ fails"), ":7: label: '1.jpg' is unknown; one of -1 "),
        (".txt", txt("$T$ wins", "PSV", "2", "1.jpg"), ":7: label: '2' is unknown"),
        (".txt", txt("PSV wins", "PSV", "1", "1.jpg"), r":5: sentence: holds no \$T\$"),
        (".txt", txt("$T$ wins", "", "1", "1.jpg"), ":6: aspect: is empty"),
        (".txt", txt("$T$ wins", "PSV", "1", "", "x"), ":8: image: is empty"),
        (".txt", txt("", "$T$ wins", "PSV", "1", "1.jpg"), r":5: sentence: holds no \$T\$"),
        (".txt", txt("$T$ wins", "Ajax", "1", "1.jpg"), ":5: aspect: 'Ajax' at words 0–1 has come in line 1"),
        (".json", "", ": the file is empty"),
        (".json", "[]", ": the file is empty"),
        (".json", '{"text": "a"}\n{"text": "b"}\n', ":2: no JSON"),
        (".json", '{"text": "a"}', r":1: a list .* is expected; a file with one object a line ends in \.jsonl"),
        (".json", '[\n{"words": [}]', ":2: no JSON"),
        (".json", "[" * 100_000, ":1: no JSON"),
        (".json", "[\n3]", ":2: post 1: an object"),
        (".json", '[{"words": "Ajax wins", "aspects": []}]', ":1: post 1: an object"),
        (".json", '[{"words": ["Ajax"]}]', ":1: post 1: aspects: a list is expected"),
        (".json", '[{"words": ["Ajax"], "aspects": [3]}]', r":1: post 1: aspects\[0\]: an object"),
        (".json", '[{"words": ["Ajax wins"], "aspects": []}]', r":1: post 1: words\[0\]: 'Ajax wins' is no word"),
        (".json", '[{"words": ["A"], "image_id": 3, "aspects": []}]', ":1: post 1: image: a string"),
        (
            ".json",
            aspect(polarity="positive"),
            r":1: post 2: aspects\[0\].polarity: 'positive' is unknown; one of NEG",
        ),
        (".json", aspect(polarity=None), r":1: post 2: aspects\[0\].polarity: None is unknown"),
        (".json", aspect(to="1"), r":1: post 2: aspects\[0\].to: '1' is no whole number"),
        (".json", aspect(**{"from": True}), r":1: post 2: aspects\[0\].from: True is no whole number"),
        (".json", aspect(to=3), r":1: post 2: aspects\[0\]: 0–3 lies outside the text of 2 words"),
        (".json", aspect(**{"from": -1}), r":1: post 2: aspects\[0\]: -1–1 lies outside"),
        (".json", aspect(to=2), r":1: post 2: aspects\[0\].term: is \['Ajax'\], but the words 0–2 are"),
    ],
)
def test_bad_files(ending, content, message, tmp_path):
    path = tmp_path / f"train{ending}"
    path.write_bytes(content.encode())
    with pytest.raises(PostError, match=f"^{path}{message}") as error:
        load_posts(path)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value).encode()) < 400


@pytest.mark.parametrize("ending", WRITERS)
def test_bytes_that_are_no_text(ending, tmp_path):
    path = tmp_path / f"train{ending}"
    path.write_bytes(b"index\n\n\xff")
    with pytest.raises(PostError, match=f"^{path}:(3: byte 0 is no UTF-8|1: the header)"):
        load_posts(path)


@given(content=st.one_of(st.text(), st.text(alphabet='$T\t\n1a[]{}",:0 ')), ending=st.sampled_from([*WRITERS]))
def test_any_file_is_read_or_refused(content, ending, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes((HEADER * (ending == ".tsv") + content).encode("utf-8", "surrogatepass"))
    try:
        Dataset.from_list([post for _, _, post in iterate_posts(path)], features=FEATURES)
    except PostError as error:
        assert str(error).startswith(f"{path}:")


# --- the Twitter sets


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data does not lie beside the checkout (LRSA_TWITTER_DATA)")
@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("name", ["twitter2015", "twitter2017"])
def test_the_twitter_sets_come_back(name, ending, tmp_path):
    counts = {"twitter2015": (3179, 1122, 1037), "twitter2017": (3562, 1176, 1234)}[name]
    posts = load_posts(DATA / name, images=tmp_path)
    for split, stem, count in zip(posts, ("train", "dev", "test"), counts):
        rows = [json.loads(line) for line in (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        WRITERS[ending](tmp_path / f"{stem}{ending}", rows)
        assert read(tmp_path / f"{stem}{ending}") == [
            {field: row[field] for field in ("words", "image", "aspects")} for row in rows
        ]
        found = load_posts(tmp_path, split, labelled=True)
        assert found["words"] == posts[split]["words"] and found["aspects"] == posts[split]["aspects"]
        assert sum(map(len, found["aspects"])) == count
