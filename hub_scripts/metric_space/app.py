"""Scores predictions in the browser: two JSON lists in, JMASA, MATE and MASC out."""

import json

import gradio
from metrics import compute_mabsa_metrics


GOLD = [[{"start": 13, "end": 27, "polarity": "positive"}], [{"start": 12, "end": 26, "polarity": "negative"}]]
FOUND = [[{"start": 13, "end": 27, "polarity": "positive"}], [{"start": 12, "end": 26, "polarity": "neutral"}]]


def score(predictions: str, references: str) -> dict[str, float]:
    try:
        return compute_mabsa_metrics(json.loads(predictions), json.loads(references))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise gradio.Error(f"Two lists of the same length are expected, of lists of aspects: {error!r}") from error


demo = gradio.Interface(
    score,
    [
        gradio.Textbox(json.dumps(FOUND), label="Predictions: for each post a list of aspects, as JSON", lines=6),
        gradio.Textbox(json.dumps(GOLD), label="References, likewise", lines=6),
    ],
    gradio.JSON(label="Scores, in percent"),
    title="JMASA, MATE and MASC",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
