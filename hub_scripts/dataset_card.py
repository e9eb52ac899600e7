"""The card of a data set with rationales: what it holds, and where its rationales came from. Imports no torch."""

from collections import Counter

from huggingface_hub import DatasetCard, DatasetCardData

from processing.rationales.provenance import origins


def dataset_card(repo: str, license: str | None, counts: dict[str, Counter], provenance: dict, source: str) -> str:
    data = DatasetCardData(
        license=license.split(", ") if license and ", " in license else license,
        task_categories=["token-classification"],
        tags=["lrsa", "aspect-based-sentiment-analysis", "multimodal", "rationales"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in counts],
            }
        ],
    )
    splits = [
        f"| {split} | {n['posts']:,} | {n['image']:,} | {n['aspects']:,} | {n['text_rationale']:,} | "
        f"{n['image_rationale']:,} |"
        for split, n in counts.items()
    ]
    lines = [
        *(f"# {repo.rpartition('/')[2]}", ""),
        "Posts for multimodal aspect-based sentiment analysis, with rationales: what the text means, and what the "
        "picture shows and conveys.",
        *("", "```python", "from datasets import load_dataset", "", f'posts = load_dataset("{repo}")', "```", ""),
        *("| split | posts | pictures | aspects | text rationales | image rationales |", "|---|---|---|---|---|---|"),
        *splits,
        "",
        "`aspects` count in characters of `text`, or in words of `words`; `end` is exclusive.",
        *("", "## Where the rationales came from", ""),
        *(origins(provenance) or ["There are none."]),
        "",
        "The column `rationale_provenance` says it for each one; `settings` are JSON. Rationales made by a large "
        "language model can be wrong, can carry its prejudices over, and can give the label away: audit them before "
        "you compare models that read them.",
        *(("", "## The posts", "", source) if source else ()),
    ]
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))
