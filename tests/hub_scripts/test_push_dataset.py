"""Data sets as they are published: the rows, the pictures, the card, and what is refused."""

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hub_scripts import push_dataset
from hub_scripts.cli import main
from hub_scripts.push_dataset import SUMMARY, dataset_publication, is_open
from processing import load_posts, save_posts
from processing.rationales.provenance import PROVENANCE


SOURCE = {
    "model": "a-model",
    "prompt": "text-rationale@1",
    "settings": {"max_new_tokens": 256, "temperature": 0.0},
    "date": "2026-01-31T12:00:00.000000Z",
    "finish_reason": "stop",
}
POSTS = [
    {
        "id": "a",
        "text": "Great gig at Riverbend Hall",
        "image": "red.png",
        "aspects": [{"start": 13, "end": 27, "polarity": "positive"}],
        "text_rationale": "Praise | of a concert",
        "rationale_provenance": {"text_rationale": SOURCE, "image_rationale": None},
        "case": "plain",
        "likes": 3,
        "tags": ["x"],
    },
    {"words": ["Rain", "again"], "image": "gone.png", "image_rationale": "Grey sky", "case": None, "likes": 2.5},
    {"text": "Northline Rail", "aspects": [{"start": 0, "end": 14, "polarity": "mixed"}], "text_rationale": "A firm"},
]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "posts"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (50, 30), "red").save(folder / "images" / "red.png")
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(post) + "\n" for post in POSTS))
    return folder


def published(folder: Path, work: Path, **options):
    work.mkdir()
    options = {"license": "cc-by-4.0"} | options
    publication, said = dataset_publication(folder, "someone/posts", work, **options)
    return publication.files, said


def front_matter(card: bytes) -> dict:
    return yaml.safe_load(re.match("---\n(.*?)\n---", card.decode(), re.S)[1])


def test_rows_come_back(folder, tmp_path):
    files, said = published(folder, tmp_path / "work")
    assert said == [
        "train: 3 posts, 1 pictures",
        "test: 3 posts, 1 pictures",
        "train: 1 pictures are not there; these posts go without.",
        "test: 1 pictures are not there; these posts go without.",
        "train: left out: tags",
        "test: left out: tags",
    ]
    rows = datasets.Dataset.from_parquet(str(files["data/train-00000-of-00001.parquet"]), cache_dir=str(tmp_path))
    assert isinstance(rows.features["image"], datasets.Image)
    plain = rows.cast_column("image", datasets.Image(decode=False))
    bytes_ = (folder / "images" / "red.png").read_bytes()
    assert plain["image"] == [{"bytes": bytes_, "path": "red.png"}, None, None]
    assert rows[0]["image"].size == (50, 30)
    names = ("id", "text", "words", "aspects", "text_rationale", "image_rationale", "case", "likes")
    wanted = [{name: post.get(name) for name in names} for post in POSTS]
    wanted[1]["id"], wanted[2]["id"] = "train-2", "train-3"
    assert [{name: row[name] for name in names} for row in plain] == wanted
    sources = [row["rationale_provenance"]["text_rationale"] for row in plain]
    assert sources[1:] == [None, None] and json.loads(sources[0].pop("settings")) == SOURCE["settings"]
    assert sources[0] == {name: SOURCE[name] for name in PROVENANCE if name != "settings"}


def test_parquet_is_published_with_its_pictures(folder, tmp_path):
    lines, _ = published(folder, tmp_path / "lines")
    other = tmp_path / "parquet"
    for split in ("train", "test"):
        save_posts(load_posts(folder / f"{split}.jsonl", labels=("positive", "mixed")), other / f"{split}.parquet")
    files, said = published(other, tmp_path / "work")
    assert said == ["train: 3 posts, 1 pictures", "test: 3 posts, 1 pictures"]
    rows, expected = (
        datasets.Dataset.from_parquet(str(found["data/train-00000-of-00001.parquet"]), cache_dir=str(tmp_path / name))
        for name, found in (("a", files), ("b", lines))
    )
    assert rows[0]["image"].size == (50, 30) and rows[1]["image"] is None
    assert rows["text"] == expected["text"] and rows["aspects"] == expected["aspects"]


def test_the_card_tells_where_rationales_came_from(folder, tmp_path):
    (folder / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n# My posts\n\nWritten by hand.\n")
    files, _ = published(folder, tmp_path / "work", license=None)
    data, card = front_matter(files["README.md"]), files["README.md"].decode()
    assert data["license"] == "cc-by-sa-4.0"
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": f"data/{split}-*"} for split in ("train", "test")],
        }
    ]
    settings = json.dumps(SOURCE["settings"], sort_keys=True)
    row = f"| train | text rationale | 1 | a-model | text-rationale@1 | {settings} | 2026-01-31 |"
    assert row in card and "| train | text rationale | 1 | not recorded |" in card
    assert "| train | 3 | 1 | 2 | 2 | 1 |" in card and card.endswith("Written by hand.\n")
    summary = json.loads(files[SUMMARY])["test"]["text_rationale"]
    assert [one["model"] for one in summary] == ["a-model", None] and summary[0]["first"] == "2026-01-31"


def test_the_same_posts_give_the_same_bytes(folder, tmp_path):
    first, second = (published(folder, tmp_path / name)[0] for name in "ab")
    read = [{p: f if isinstance(f, bytes) else f.read_bytes() for p, f in files.items()} for files in (first, second)]
    assert read[0] == read[1]


def test_large_splits_have_several_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(push_dataset, "SHARD_BYTES", 300)
    files, _ = published(folder, tmp_path / "work")
    shards = sorted(path for path in files if path.startswith("data/train-"))
    assert len(shards) > 1 and shards[0] == f"data/train-00000-of-{len(shards):05}.parquet"
    tables = [datasets.Dataset.from_parquet(str(files[path]), cache_dir=str(tmp_path / path)) for path in shards]
    assert [name for table in tables for name in table["id"]] == ["a", "train-2", "train-3"]


@pytest.mark.parametrize("license", ["apache-2.0", "mit", "cc0-1.0", "CC-BY-NC-SA-4.0", "odbl, cc-by-3.0"])
def test_licences_that_allow_changed_copies(license):
    assert is_open(license)


@pytest.mark.parametrize("license", ["other", "unknown", "no redistribution", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", ""])
def test_licences_that_do_not_say_so(license):
    assert not is_open(license)


@given(st.lists(st.sampled_from(["mit", "cc-by-4.0", "other", "cc-by-nd-4.0"]), min_size=1))
def test_all_of_several_licences_must_allow_it(names):
    assert is_open(", ".join(names)) == ({"other", "cc-by-nd-4.0"}.isdisjoint(names))


@pytest.mark.parametrize(
    ("front", "flags", "told"),
    [
        ("", [], "no licence is named"),
        ("license: other", [], "license: other: does not say that changed copies may be published"),
        ("license: [cc-by-4.0, no redistribution]", [], "does not say that changed copies"),
        ("license: [mit", [], "its front matter is no YAML mapping"),
        ("license: other", ["--redistribute"], None),
        ("license: other", ["--license", "cc-by-4.0"], None),
        ("", ["--redistribute"], None),
        ("license: cc-by-4.0", [], None),
    ],
)
def test_a_licence_is_asked_for(folder, capsys, front, flags, told):
    (folder / "README.md").write_text(f"---\n{front}\n---\n# Posts\n" if front else "# Posts\n")
    code = main(["push", "--dataset", str(folder), "someone/posts", "--dry-run", *flags])
    error = capsys.readouterr().err
    assert (code, bool(error)) == ((2, True) if told else (0, False))
    assert not told or (told in error and error.count("\n") == 1)


def spoil_json(folder):
    (folder / "test.jsonl").write_text('{"text": "x"}\n{')


def spoil_post(folder):
    (folder / "test.jsonl").write_text('{"text": 3}\n')


def spoil_picture(folder):
    (folder / "images" / "red.png").write_bytes(b"no picture")


def spoil_provenance(folder):
    (folder / "test.jsonl").write_text('{"text": "x", "rationale_provenance": {"text_rationale": "me"}}\n')


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_json, "test.jsonl:2: no JSON"),
        (spoil_post, "test.jsonl:1: text: a string is expected"),
        (spoil_picture, "Repair or remove it"),
        (spoil_provenance, "test.jsonl:1: rationale_provenance: an object"),
    ],
)
def test_bad_posts_are_named(folder, capsys, spoil, told):
    spoil(folder)
    assert main(["push", "--dataset", str(folder), "someone/posts", "--dry-run", "--license", "mit"]) == 2
    error = capsys.readouterr().err
    assert told in error and error.strip().count("\n") == 0


def test_a_data_set_is_pushed_once(lrsa, hub, folder):
    argv = ["push", "--dataset", folder, "posts", "--license", "cc-by-4.0"]
    assert lrsa(*argv).code == 0
    assert "nothing has changed" in lrsa(*argv).out
    assert [commit["summary"] for commit in hub.commits("someone/posts", "datasets")] == [
        "Posts with rationales",
        "initial commit",
    ]
    (folder / "test.jsonl").unlink()
    assert lrsa(*argv).code == 0
    files = hub.files("someone/posts", "datasets")
    assert sorted(files) == [
        ".gitattributes",
        "README.md",
        "data/train-00000-of-00001.parquet",
        "rationale_provenance.json",
    ]


def test_a_data_set_of_something_else_is_left_alone(lrsa, hub, folder):
    repository = hub.repository("someone/theirs", "datasets")
    repository.create(private=False)
    blob = {"data/train-00000-of-00001.parquet": repository.blob(b"rows")}
    repository.commit("refs/heads/main", "rows", blob, repository.resolve("main"))
    done = lrsa("push", "--dataset", folder, "someone/theirs", "--license", "mit")
    assert done.code == 2 and "the name is taken by something else" in done.err
    assert len(hub.commits("someone/theirs", "datasets")) == 2
