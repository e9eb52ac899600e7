"""What a Space for a model consists of."""

import json
from pathlib import Path

from processing import PostError

from .publishing import Publication


HERE = Path(__file__).parent
ROOT = HERE.parent
SAMPLE_POSTS = ROOT / "examples" / "posts"
# Of the test split, with drawings for pictures.
EXAMPLES = ("test-001", "test-004", "test-006", "test-003")


def example_posts() -> list[dict]:
    """Returns the sample posts that the page shows, `image` being the path of the picture; none without a checkout."""
    path = SAMPLE_POSTS / "test.jsonl"
    if not path.is_file():
        return []
    posts = {post["id"]: post for post in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    return [{**posts[name], "image": str(SAMPLE_POSTS / "images" / posts[name]["image"])} for name in EXAMPLES]


def space_publication(repo: str, model: str) -> Publication:
    """Collects the files of a Space that tries `model`."""
    owned = ("app.py", "requirements.txt", "processing/*", "examples/*")
    return Publication("space", repo, space_files(model), owned, "processing/pipeline_lrsa.py", f"Try {model}")


def space_files(model: str) -> dict[str, bytes]:
    """Returns the files of a Gradio Space that tries a model, by their paths in its repository.

    Args:
        model: id of the model on the Hub.

    Raises:
        PostError: the id can be none.
    """
    if model.count("/") > 1 or not all(c.isalnum() or c in "/-_." for c in model) or not model.strip("/"):
        raise PostError(f"{model!r} is no id of a model on the Hub; one such as user/name is expected.")
    page = HERE / "space"
    files = {name: (page / name).read_bytes() for name in ("app.py", "requirements.txt")}
    files["README.md"] = (page / "README.md").read_text(encoding="utf-8").replace("MODEL`", f"{model}`").replace(
        "- MODEL\n", f"- {model}\n"
    ).encode()  # fmt: skip
    code = ROOT / "processing"
    for path in sorted(code.rglob("*")):
        if path.suffix in (".py", ".yaml") and "mabsa_metric" not in path.parts:
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    posts = example_posts()
    for post in posts:
        picture = Path(post["image"])
        files[f"examples/{picture.name}"] = picture.read_bytes()
    rows = [json.dumps({**post, "image": Path(post["image"]).name}, ensure_ascii=False) + "\n" for post in posts]
    if rows:
        files["examples/posts.jsonl"] = "".join(rows).encode()
    return files
