"""The card of a model as it is published: what its folder tells, examples, and what a benchmark found."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.model_tables import benchmark_of
from modeling_lrsa.loading import load_model
from modeling_lrsa.model_card import EXAMPLE_POSTS, read_record, render_card
from processing import MABSAPipeline


@dataclass(frozen=True)
class Told:
    """What whoever publishes a model tells of it: its licence, the id of the data set that it was trained on, that of
    a Space that tries it, tags, and the id of the adapter whose untrained base it is.
    """

    license: str | None = None
    datasets: str | None = None
    space: str | None = None
    tags: tuple[str, ...] = ()
    adapter: str | None = None


def model_card(folder: Path, repo: str, told: Told = Told(), base: str | None = None) -> str:
    """Returns the card of a model folder, or of the folder of an adapter to `base`.

    Raises:
        PostError: the model can't be loaded, or a file of results is damaged.
    """
    record = read_record(folder)
    found = benchmark_of(record)
    return render_card(
        folder,
        repo,
        **asdict(told),
        base=base,
        endpoint=not base,
        record=found.test | record,
        examples=() if base or told.adapter else example_outputs(folder),
        benchmark=found.tables,
        caveats=found.caveats,
    )


def example_outputs(folder: Path) -> list[dict[str, Any]]:
    """Returns what a model finds in the example posts, text alone."""
    model, processor = load_model(str(folder))
    pipe = MABSAPipeline(model=model, processor=processor, device="cpu")
    return [{"text": text, "aspects": pipe(text)} for text in EXAMPLE_POSTS]
