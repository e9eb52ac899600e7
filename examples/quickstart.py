"""Trains LRSA on the sample posts beside the same model with fusion off, and shows what it predicts.

`make quickstart` runs this; everything lands in runs/quickstart.
"""

import json
import time
from pathlib import Path

import regex
from transformers import AutoModel, AutoProcessor

from hub_scripts.terminal import show_progress
from modeling_lrsa.arguments import parse_arguments
from modeling_lrsa.predictor import predict_posts
from modeling_lrsa.training import evaluate, train
from processing import compute_mabsa_metrics, load_posts
from processing.mapping_file import read_mapping
from processing.posts import gold_aspects


ROOT = Path(__file__).parent
RUNS = Path("runs/quickstart")
CAPITALISED = regex.compile(r"\p{Lu}[\p{L}\p{N}'’-]*(?:\s+\p{Lu}[\p{L}\p{N}'’-]*)*")


def capitalised_runs(text: str) -> list[dict]:
    """The baseline to beat: every run of capitalised words is a neutral aspect."""
    return [{"start": m.start(), "end": m.end(), "polarity": "neutral"} for m in CAPITALISED.finditer(text)]


def run(name: str, **changes) -> None:
    recipe = read_mapping(ROOT / "recipes" / "quickstart.yaml", "recipe", "argument names to values")
    recipe.update(data=str(ROOT / "posts"), output_dir=str(RUNS / name), disable_tqdm=not show_progress(), **changes)
    train(*parse_arguments(recipe))


def table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main() -> None:
    started = time.time()
    print("1/3 the same model with fusion off (the baseline): text and picture", flush=True)
    run("fusion_off", num_fusion_layers=0)
    print("2/3 LRSA: text, picture and both rationales", flush=True)
    run(".")

    print("3/3 scores and predictions", flush=True)
    posts = load_posts(ROOT / "posts")
    validation = posts["validation"]
    capitals = [capitalised_runs(text) for text in validation["text"]]
    scores = {"capitalised runs, neutral": compute_mabsa_metrics(capitals, gold_aspects(validation))}
    for label, folder in (("fusion off", "fusion_off"), ("LRSA", ".")):
        scores[label] = json.loads((RUNS / folder / "results.json").read_text())["validation"]
    columns = ("jmasa_precision", "jmasa_recall", "jmasa_f1", "mate_f1", "masc_accuracy", "masc_macro_f1")
    rows = [["", "JMASA P", "R", "F1", "MATE F1", "MASC accuracy", "macro F1"]]
    rows += [[label, *(f"{values[name]:.1f}" for name in columns)] for label, values in scores.items()]
    rows[1][5:] = ["–", "–"]  # it is not asked about gold spans
    print(f"\nValidation split, {len(validation)} posts, one seed:\n{table(rows)}")

    model = AutoModel.from_pretrained(RUNS / "model")
    processor = AutoProcessor.from_pretrained(RUNS / "model")
    test = posts["test"]
    print(f"\nTest split, LRSA: {json.dumps({k: round(v, 1) for k, v in evaluate(model, processor, test).items()})}")
    rows = [["post", "aspect", "predicted", "score", "gold"]]
    for post, found, gold in zip(test, predict_posts(model, processor, test), gold_aspects(test)):
        expected = {(a["start"], a["end"]): a["polarity"] for a in gold}
        for aspect in found:
            answer = expected.pop((aspect["start"], aspect["end"]), "–")
            rows.append([post["id"], aspect["aspect"], aspect["polarity"], f"{aspect['score']:.2f}", answer])
        rows += [[post["id"], post["text"][a:b], "–", "", polarity] for (a, b), polarity in expected.items()]
    print(f"\nPredictions for the test posts:\n{table(rows)}")
    print(f"\nModel: {RUNS}/model. {time.time() - started:.0f} s in all. Next, one post of your own:")
    print(f'lrsa predict {RUNS}/model --text "Two hours in the queue at Riverbend Hall, great sound though"')


if __name__ == "__main__":
    main()
