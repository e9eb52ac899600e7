"""What the Hub asks of the front matter of a card, as far as its documents and the sources of its website tell.

`validate-yaml` of the real Hub is reached by network alone; huggingface_hub has no rules of its own beyond the form of
`model-index`.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id


# `PIPELINE_DATA` of the package @huggingface/tasks 0.21.54.
PIPELINE_TAGS = set(
    """text-classification token-classification table-question-answering question-answering zero-shot-classification
    translation summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech
    text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
    voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
    image-to-text image-to-image image-to-video unconditional-image-generation video-classification
    reinforcement-learning robotics tabular-classification tabular-regression tabular-to-text table-to-text
    multiple-choice text-ranking text-retrieval time-series-forecasting text-to-video image-text-to-text
    image-text-to-image image-text-to-video visual-question-answering document-question-answering
    zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection text-to-3d image-to-3d
    image-feature-extraction video-text-to-text keypoint-detection visual-document-retrieval any-to-any video-to-video
    other""".split()
)
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SDKS = {"gradio", "docker", "static"}
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def front_matter(card: str) -> dict[str, Any] | None:
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return yaml.safe_load(found[1]) if found else None


def problems(card: str, kind: str) -> Iterator[str]:
    """Yields what is wrong with the front matter of the card of a `"model"`, `"dataset"` or `"space"`."""
    try:
        data = front_matter(card)
    except yaml.YAMLError as error:
        yield " ".join(str(error).split())
        return
    if data is None:
        return
    if not isinstance(data, dict):
        yield "a mapping is expected"
        return
    for name in ("tags", "datasets", "metrics", "language", "license", "base_model", "models", "task_categories"):
        if name in data and not are_strings(data[name]):
            yield f'"{name}" must be a string or a list of strings'
    for license in listed(data.get("license")):
        if not LICENSE.fullmatch(str(license)):
            yield f'"license": {license!r} is none'
    for name in ("datasets", "base_model", "models"):
        yield from (f'"{name}": {one!r} is no id' for one in listed(data.get(name)) if not is_id(one))
    yield from {"model": of_a_model, "dataset": of_a_dataset, "space": of_a_space}[kind](data)


def of_a_model(data: dict[str, Any]) -> Iterator[str]:
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINE_TAGS:
        yield f'"pipeline_tag": {data["pipeline_tag"]!r} is none of the Hub\'s'
    if "model-index" in data:
        try:
            _, results = model_index_to_eval_results(data["model-index"])
        except (KeyError, TypeError, ValueError) as error:
            yield f'"model-index": {error!r}'
        else:
            numbers = [one.metric_value for one in results]
            yield from (f'"model-index": {one!r} is no number' for one in numbers if not isinstance(one, int | float))
    for example in data.get("widget", []):
        if not isinstance(example.get("text"), str):
            yield '"widget": an example needs text'
        output = example.get("output")
        labels = isinstance(output, list) and output and all(set(one) == {"label", "score"} for one in output)
        if not labels and not (isinstance(output, dict) and list(output) == ["text"]):
            yield f'"widget": output: {output!r} is none'
    if "co2_eq_emissions" in data and not isinstance(data["co2_eq_emissions"]["emissions"], int | float):
        yield '"co2_eq_emissions": "emissions" must be a number of grams'


def of_a_dataset(data: dict[str, Any]) -> Iterator[str]:
    for category in listed(data.get("task_categories")):
        if category not in PIPELINE_TAGS:
            yield f'"task_categories": {category!r} is none of the Hub\'s'
    for one in data.get("configs", []):
        if not {"config_name", "data_files"} <= set(one):
            yield '"configs": "config_name" and "data_files" are required'


def of_a_space(data: dict[str, Any]) -> Iterator[str]:
    if data.get("sdk") not in SDKS:
        yield '"sdk" must be one of gradio, docker, static'
    for name in ("colorFrom", "colorTo"):
        if name in data and data[name] not in COLORS:
            yield f'"{name}" must be one of {", ".join(sorted(COLORS))}'
    if len(data.get("short_description", "")) > 60:
        yield '"short_description" has more than 60 characters'


def listed(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def are_strings(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def is_id(value: Any) -> bool:
    try:
        validate_repo_id(value)
    except ValueError:
        return False
    return True
