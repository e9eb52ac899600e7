"""The card of a model: the `README.md` of its repository. Imports no torch."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .publishing import is_repo_id


# By this line a card that was written is told from one by hand, which is never written over.
WRITTEN = "<!-- Written by lrsa, which writes it anew unless you remove this line. -->"


def own_card(folder: Path) -> Path | None:
    """Returns the card in a folder, unless `render_card` wrote it."""
    path = folder / "README.md"
    return path if path.is_file() and WRITTEN not in path.read_text(encoding="utf-8") else None


def render_card(folder: str | Path, repo: str, license: str | None = None, base: str | None = None) -> str:
    """Returns the card of a model or adapter folder.

    Args:
        repo: id of the repository that it is published to.
        license: its licence, as the Hub writes it, such as `apache-2.0`.
        base: id of the model that an adapter is published for.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="token-classification",
        license=license,
        base_model=base or base_models(Path(folder)) or None,
        tags=["lrsa", "aspect-based-sentiment-analysis", "multimodal"],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {repo.rpartition('/')[2]}\n\n{WRITTEN}\n"))


def base_models(folder: Path) -> list[str]:
    """Ids of what a model was trained from; folders and embedded parts have none."""
    if not (folder / "config.json").is_file():
        return []
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = [(config.get(part) or {}).get("_name_or_path") for part in ("text_config", "vision_config")]
    return [name for name in names if name and is_repo_id(name) and not name.startswith("embedded/")]
