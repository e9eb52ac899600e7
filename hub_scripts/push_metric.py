"""What is published of the metric: a Space that `evaluate.load` reads and that scores in the browser."""

import importlib.metadata
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

import processing
from processing import PostError

from .publishing import Publication


IMPORT = "from processing.metrics import"
NEEDED = ("evaluate", "datasets", "scikit-learn")


def metric_publication(repo: str, license: str) -> Publication:
    """Collects the files of the Space; `evaluate.load(repo)` looks for a module of the repository's name."""
    name = repo.rpartition("/")[2]
    if not name.isidentifier() or name in ("app", "metrics"):
        raise PostError(f"{repo}: `evaluate` imports a module {name!r}; take a name of letters, digits and _ "
                        "other than app and metrics.")  # fmt: skip
    source = Path(processing.__file__).parent
    module = (source / "mabsa_metric" / "mabsa_metric.py").read_text(encoding="utf-8")
    assert module.count(IMPORT) == 1
    files: dict[str, Path | bytes] = {
        f"{name}.py": module.replace(IMPORT, "from .metrics import").encode(),
        "metrics.py": source / "metrics.py",
        "app.py": Path(__file__).parent / "metric_space" / "app.py",
        "requirements.txt": "".join(f"{line}\n" for line in requirements()).encode(),
        "README.md": metric_card(repo, license).encode(),
    }
    return Publication("space", repo, files, (), f"{name}.py", "Metric")


def requirements() -> list[str]:
    """What the Space installs, in the versions that this package asks for."""
    asked = importlib.metadata.requires("lrsa") or []
    return sorted(line for line in asked if line.partition(">")[0].strip() in NEEDED)


def metric_card(repo: str, license: str) -> str:
    data = SpaceCardData(
        title="JMASA, MATE and MASC",
        sdk="gradio",
        app_file="app.py",
        license=license,
        tags=["evaluate", "metric", "lrsa"],
        short_description="Scores of multimodal aspect-based sentiment analysis",
    )
    text = f"""
# JMASA, MATE and MASC

Scores of multimodal aspect-based sentiment analysis, in percent:

- `jmasa`: micro precision, recall and F1 of exact spans with their polarity,
- `mate`: the same of exact spans,
- `masc`: accuracy, macro F1 and weighted F1 of the polarity of spans that were found.

```python
import evaluate

jmasa = evaluate.load("{repo}", "jmasa")
gold = [[{{"start": 13, "end": 27, "polarity": "positive"}}]]
print(jmasa.compute(predictions=gold, references=gold))
```

Predictions and references are lists of aspects, a list a post; `start` and `end` in characters or in
words, the same in both. Loading runs the Python code of this repository: read it first, and pin it by `revision`.
"""
    return str(SpaceCard(f"---\n{data.to_yaml()}\n---\n{text}"))
