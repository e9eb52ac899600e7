"""What is published of posts with rationales: Parquet with the pictures in it, and a card. Imports no torch."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import RepoCard

from processing import PostError
from processing.images_lrsa import open_image
from processing.posts import FEATURES, iterate_posts, split_files
from processing.rationales.post_questions import RATIONALES
from processing.rationales.provenance import PROVENANCE, provenance_of, summarize

from .dataset_card import dataset_card
from .publishing import Publication


SUMMARY = "rationale_provenance.json"
SHARD_BYTES = 400 << 20
# Licences, as the Hub names them, that allow to publish changed copies.
OPEN = (
    "apache-2.0",
    "mit",
    "cc",
    "cc0-*",
    "cc-by*",
    "pddl",
    "odc-by",
    "odbl",
    "cdla-*",
    "c-uda",
    "gfdl",
    "etalab-2.0",
)
OPEN += ("bsd*", "gpl*", "lgpl*", "agpl*", "mpl-2.0", "isc", "unlicense", "wtfpl", "zlib", "afl-3.0", "artistic-2.0")


def dataset_publication(
    folder: Path,
    repo: str,
    work: Path,
    images: str | None = None,
    license: str | None = None,
    redistribute: bool = False,
) -> tuple[Publication, list[str]]:
    """Writes the splits of a folder as Parquet to `work`, and collects what is published.

    Args:
        folder: with `train.jsonl`, `validation.jsonl`, `test.jsonl`, any of them; its `README.md` goes into the card.
        images: folder of the pictures; `images/` in `folder` by default.
        license: of the data set, in place of the one that the front matter of that `README.md` names.
        redistribute: publish, whatever the licence says.

    Returns:
        The publication, and lines that say what was done.

    Raises:
        PostError: bad posts, or a licence that does not allow it.
    """
    if not folder.is_dir():
        raise PostError(f"{folder}: no such folder; one with train.jsonl, validation.jsonl or test.jsonl is expected.")
    source, named = read_source(folder)
    license = allowed_license(folder, license, named, redistribute)
    written = {name: write_split(file, name, images, work) for name, file in split_files(folder).items()}
    provenance = {name: summarize(file) for name, file in split_files(folder).items()}
    files: dict[str, Path | bytes] = {}
    for split, (shards, _, _) in written.items():
        files |= {f"data/{split}-{index:05}-of-{len(shards):05}.parquet": shard for index, shard in enumerate(shards)}
    counts = {split: count for split, (_, count, _) in written.items()}
    files["README.md"] = dataset_card(repo, license, counts, provenance, source).encode()
    files[SUMMARY] = (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode()
    said = [f"{split}: {count['posts']:,} posts, {count['image']:,} pictures" for split, count in counts.items()]
    said += [
        f"{split}: {count['missing']:,} pictures are not there; these posts go without."
        for split, count in counts.items()
        if count["missing"]
    ]
    said += [f"{split}: left out: {', '.join(left)}" for split, (_, _, left) in written.items() if left]
    return Publication("dataset", repo, files, ("data/*.parquet",), SUMMARY, "Posts with rationales"), said


def read_source(folder: Path) -> tuple[str, str | None]:
    """Returns the text of the folder's `README.md` without front matter, and the licence that this names."""
    readme = folder / "README.md"
    if not readme.is_file():
        return "", None
    try:
        found = RepoCard(readme.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise PostError(f"{readme}: its front matter is no YAML mapping: {' '.join(str(error).split())}") from error
    license = found.data.to_dict().get("license")
    return found.text.strip(), ", ".join(map(str, license)) if isinstance(license, list) else license


def allowed_license(folder: Path, given: str | None, named: str | None, redistribute: bool) -> str | None:
    """Returns the licence to publish under.

    Raises:
        PostError: there is none, or it does not allow to publish posts with rationales added.
    """
    license = given or named
    if redistribute:
        return license
    if license is None:
        raise PostError(
            f"{folder}: no licence is named; give the one of the posts by --license or in the front matter of "
            "README.md (license: ...), or say --redistribute if you may publish them without."
        )
    if given is None and not is_open(license):
        raise PostError(
            f"{folder / 'README.md'}: license: {license}: does not say that changed copies may be published; say "
            "--redistribute, or another --license, if you may."
        )
    return license


def is_open(license: str) -> bool:
    """Whether all of the named licences are known to allow changed copies; Creative Commons' ND do not."""
    names = [name.strip().lower() for name in license.split(",")]
    return all("nd" not in name.split("-") and any(fnmatch(name, known) for known in OPEN) for name in names)


def write_split(file: Path, split: str, images: str | None, work: Path) -> tuple[list[Path], Counter, list[str]]:
    """Writes one split. Returns its files, what it holds, and the fields that do not fit into columns."""
    extras, left = extra_columns(file)
    features = Features({name: kind for name, kind in FEATURES.items() if name != "image_features"} | extras)
    features["rationale_provenance"] = {name: {field: Value("string") for field in PROVENANCE} for name in RATIONALES}
    counts: Counter = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        counts.clear()
        for where, row, post in iterate_posts(file, images, labels=None):
            picture = post["image"]
            if isinstance(picture, str):
                path = Path(picture)
                picture = {"bytes": path.read_bytes() if path.is_file() else None, "path": path.name}
            if picture and not picture["bytes"]:
                counts["missing"] += 1
                picture = None
            if picture:
                try:
                    open_image(picture["bytes"])
                except ValueError as error:
                    raise PostError(f"{where}: image: {error}. Repair or remove it.") from error
            counts.update(posts=1, image=int(picture is not None), aspects=len(post["aspects"] or []))
            counts.update({name: 1 for name in RATIONALES if post[name]})
            post |= {"image": picture, **{name: row.get(name) for name in extras}}
            post["rationale_provenance"] = provenance_of(row, where)
            yield {name: post[name] for name in features}

    try:
        table = Dataset.from_generator(rows, features=features, cache_dir=str(work / "cache"), split=split)
    except DatasetGenerationError as error:
        raise error.__cause__ if isinstance(error.__cause__, PostError) else error
    number = max(1, -(-table.data.nbytes // SHARD_BYTES))
    shards = [work / f"{split}-{index}.parquet" for index in range(number)]
    for index, shard in enumerate(shards):
        table.shard(number, index, contiguous=True).to_parquet(shard)
    return shards, counts, left


def extra_columns(file: Path) -> tuple[dict[str, Value], list[str]]:
    """Returns the columns of what else the posts hold: strings, numbers or truth values; and what is none of these."""
    kinds: dict[str, set] = defaultdict(set)
    for _, row, _ in iterate_posts(file, labels=None):
        for name in row.keys() - FEATURES.keys() - {"rationale_provenance"}:
            kinds[name].add(type(row[name]))
    dtypes = {str: "string", bool: "bool", int: "int64", float: "float64"}
    columns, left = {}, []
    for name, found in sorted(kinds.items()):
        found = found - {type(None)}
        kind = float if found == {int, float} else next(iter(found)) if len(found) == 1 else None
        if kind in dtypes:
            columns[name] = Value(dtypes[kind])
        else:
            left.append(name)
    return columns, left
