"""The card of a model: the `README.md` of its repository, rendered from `model_card.md`."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from processing import PostError
from processing.rationales.provenance import cell, origins

from .configuration_lrsa import LRSAConfig
from .pretrained_parts import HUB_IDS


TEMPLATE = Path(__file__).with_name("model_card.md")
# By this line a card that was written is told from one by hand, which is never written over.
WRITTEN = "<!-- Written by lrsa, which writes it anew unless you remove this line. -->"
TAGS = ("lrsa", "aspect-based-sentiment-analysis", "multimodal")
EXAMPLE_POSTS = (
    "The new menu at Blue Kettle is a joy",
    "Two hours in the queue at Riverbend Hall, great sound though",
    "Lovely, Northline Rail has cancelled my train again",
)
# Names in results, types and names in the card's `model-index`.
METRICS = {
    "jmasa_precision": ("precision", "JMASA precision"),
    "jmasa_recall": ("recall", "JMASA recall"),
    "jmasa_f1": ("f1", "JMASA F1"),
    "mate_precision": ("precision", "MATE precision"),
    "mate_recall": ("recall", "MATE recall"),
    "mate_f1": ("f1", "MATE F1"),
    "masc_accuracy": ("accuracy", "MASC accuracy"),
    "masc_macro_f1": ("f1", "MASC macro F1"),
    "masc_weighted_f1": ("f1", "MASC weighted F1"),
}


def own_card(folder: Path) -> Path | None:
    """Returns the card in a folder, unless `render_card` wrote it."""
    path = folder / "README.md"
    return path if path.is_file() and WRITTEN.encode() not in path.read_bytes() else None


def render_card(
    folder: str | Path,
    repo: str,
    license: str | None = None,
    *,
    base: str | None = None,
    datasets: str | None = None,
    space: str | None = None,
    tags: Sequence[str] = (),
    adapter: str | None = None,
    endpoint: bool = False,
    record: Mapping[str, Any] | None = None,
    examples: Sequence[Mapping[str, Any]] = (),
    benchmark: str | None = None,
    caveats: str | None = None,
) -> str:
    """Returns the card of a model or adapter folder. What is not known it says to be so.

    Args:
        repo: id of the repository that it is published to.
        license: its licence, as the Hub writes it, such as `apache-2.0`.
        base: id of the model that an adapter is published for.
        datasets: id of the data set that it was trained on.
        space: id of a Space that tries it.
        tags: besides those of all these models.
        adapter: id of the adapter of which it is the base, untrained.
        endpoint: whether `handler.py` goes with it.
        record: what is known of its training, in place of the `results.json` of the folder.
        examples: `{"text": post, "aspects": its predictions}`.
        benchmark: tables over seeds, as Markdown.
        caveats: what is to be said of the training posts, as Markdown.
    """
    folder = Path(folder)
    config = LRSAConfig.from_pretrained(folder) if (folder / "config.json").is_file() else None
    record = read_record(folder) if record is None else record
    scores = {split: record[split] for split in ("validation", "test") if record.get(split)}
    data, seed = record.get("data"), record.get("seed")
    data_card = ModelCardData(
        library_name="transformers",
        pipeline_tag="token-classification",
        license=license,
        base_model=base or base_models(config) or None,
        datasets=[datasets] if datasets else None,
        metrics=["f1", "precision", "recall", "accuracy"],
        tags=[*TAGS, *tags],
        widget=[widget(example) for example in examples] or None,
        co2_eq_emissions=emissions(folder),
        model_name=repo.rpartition("/")[2] if scores else None,
        eval_results=eval_results(scores, data, datasets) or None,
    )
    card = ModelCard.from_template(
        data_card,
        str(TEMPLATE),
        name=repo.rpartition("/")[2],
        written=WRITTEN,
        repo=repo,
        base=base,
        loadable=bool(base) or not (folder / "adapter_config.json").is_file(),
        datasets=datasets,
        space=space,
        adapter=adapter,
        endpoint=endpoint,
        license=license,
        posts=EXAMPLE_POSTS,
        parts=parts(config, record),
        examples=[{"text": cell(one["text"]), "found": told(one["aspects"])} for one in examples],
        data=data and {"name": cell(data["name"]), "splits": splits(data), "selected": selected(record)},
        origins=data and "\n".join(origins({name: split["sources"] for name, split in named_splits(data).items()})),
        caveats=caveats,
        arguments=", ".join(f"`{name}={value}`" for name, value in record.get("arguments", {}).items()),
        seed=seed,
        scores=[[split, *(f"{found[name]:.2f}" if name in found else "–" for name in METRICS)]
                for split, found in scores.items()],
        benchmark=benchmark,
        time=time_told(record),
        carbon=carbon_told(emissions(folder)),
        versions=", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
    )  # fmt: skip
    return str(card).rstrip() + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where there is no file.

    Raises:
        PostError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PostError(f"{path}: can't be read as JSON ({error}); make it anew or remove it.") from error
    if not isinstance(found, dict):
        raise PostError(f"{path}: a JSON object is expected; make it anew or remove it.")
    return found


def places(folder: Path) -> tuple[Path, ...]:
    """Folders in which results of a model lie: its own, and of one that `lrsa train` wrote, the one around it."""
    folder = folder.absolute()
    around = folder.parent
    trained = folder.name in ("model", "adapter") and "parameters" in read_json(around / "results.json")
    return (around, folder) if trained else (folder,)


def read_record(folder: Path) -> dict[str, Any]:
    """Reads `results.json` of `lrsa train` and, where it lies beside it, `test_results.json` of `lrsa evaluate`."""
    record: dict[str, Any] = {}
    for place in places(folder):
        record |= read_json(place / "results.json")
        if test := read_json(place / "test_results.json"):
            record["test"] = test
    return record


def base_models(config: LRSAConfig | None) -> list[str]:
    """Ids of what a model was built from; folders of this machine have none."""
    built = [part for part in (config.text_config, config.vision_config) if part is not None] if config else []
    return [name for name in (HUB_IDS.get(part._name_or_path, part._name_or_path) for part in built) if is_id(name)]


def is_id(name: str | None) -> bool:
    """Whether it can be the id of a repository of the Hub."""
    known = name and name.count("/") == 1 and not name.startswith(("embedded/", "/", ".", "~"))
    return bool(known) and not Path(name).exists()


def parts(config: LRSAConfig | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is made of; of an adapter whose folder holds no configuration it is not known."""
    if config is None:
        return {"fusion_layers": None, "sees_pictures": False, "rows": []}
    text, vision, layers = config.text_config, config.vision_config, config.num_fusion_layers
    picture = "none: it reads no pictures"
    if vision is not None:
        picture = f"`{vision.model_type}`{named(vision)}{', not trained' if config.freeze_vision else ''}"
    elif config.has_images:
        picture = f"none: it takes precomputed features of regions, {config.image_feature_size:,} numbers each"
    fusion = "none: it is a baseline, and reads no rationales"
    if layers and config.fusion_position == "input":
        fusion = "rationales follow the text into the encoder"
    elif layers:
        fusion = f"dual cross-attention {config.fusion_position} the text encoder, layers: {layers}"
    rows = [
        ("Text model", f"`{text.model_type}`{named(text)}"),
        ("Vision model", picture),
        ("Fusion", fusion),
        ("Decoder", "points to words of the text; a grammar makes every sequence valid"),
        ("Polarities", ", ".join(config.id2label.values())),
    ]
    if config.reads_linguistics:
        graph = f"graph convolution (layers: {config.num_graph_layers})"
        rows.append(("Besides", f"aspect-aware attention and {graph}, which read `linguistics` of a post"))
    if count := record.get("parameters"):
        rows.append(("Parameters", f"{count['total']:,}, of which {count['trainable']:,} were trained"))
    return {"fusion_layers": layers, "sees_pictures": vision is not None, "rows": rows}


def named(part: PreTrainedConfig) -> str:
    name = HUB_IDS.get(part._name_or_path, part._name_or_path)
    return f" of [{name}](https://huggingface.co/{name})" if is_id(name) else ""


def widget(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example for the Hub's page of the model, with its output."""
    labels = [
        {"label": f"{aspect['aspect']}: {aspect['polarity']}", "score": round(aspect["score"], 2)}
        for aspect in example["aspects"]
    ]
    return {"text": example["text"], "output": labels or {"text": "no aspect"}}


def told(aspects: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{cell(one['aspect'])}: {one['polarity']} ({one['score']:.2f})" for one in aspects)


def named_splits(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: split for name, split in data.items() if name != "name"}


def splits(data: Mapping[str, Any]) -> list[dict[str, str]]:
    counts = ("posts", "images", "text_rationales", "image_rationales")
    return [
        {"name": name, "sha256": split["sha256"][:16] + "…", **{count: f"{split[count]:,}" for count in counts}}
        for name, split in named_splits(data).items()
    ]


def selected(record: Mapping[str, Any]) -> bool:
    return record.get("arguments", {}).get("load_best_model_at_end", True)


def eval_results(
    scores: Mapping[str, Mapping[str, float]], data: Mapping[str, Any] | None, datasets: str | None
) -> list[EvalResult]:
    name = data["name"] if data else datasets or "unnamed posts"
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Multimodal aspect-based sentiment analysis",
            dataset_type=datasets or name,
            dataset_name=name,
            dataset_split=split,
            metric_type=METRICS[metric][0],
            metric_name=METRICS[metric][1],
            metric_value=round(found[metric], 2),
        )
        for split, found in scores.items()
        for metric in METRICS
        if metric in found
    ]


def time_told(record: Mapping[str, Any]) -> str | None:
    seconds, device = record.get("seconds"), record.get("device")
    if not seconds or not device:
        return None
    minutes = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    processes = f"{device['processes']} processes, " if device["processes"] > 1 else ""
    return f"Training took {minutes} by the clock ({processes}{device['name']}, {device['threads']} threads)."


def emissions(folder: Path) -> dict[str, Any] | None:
    """What `lrsa train --report_to codecarbon` measured, the last run of it, in the form of the Hub."""
    for place in places(folder):
        if (place / "emissions.csv").is_file():
            with open(place / "emissions.csv", newline="", encoding="utf-8") as file:
                last = list(csv.DictReader(file))[-1]
            return {"emissions": round(1000 * float(last["emissions"]), 2), "source": "codecarbon"}
    return None


def carbon_told(found: Mapping[str, Any] | None) -> str | None:
    return found and f"CodeCarbon estimates {found['emissions']:,} g of CO2 equivalents for it."
