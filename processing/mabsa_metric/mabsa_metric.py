"""`evaluate` module of JMASA, MATE and MASC scores: `evaluate.load("processing/mabsa_metric", "jmasa")`."""

import datasets
import evaluate

from processing.metrics import compute_mabsa_metrics


_DESCRIPTION = """
Multimodal aspect-based sentiment analysis. Configurations: "jmasa" (exact span and polarity), "mate" (exact span),
"masc" (polarity of matched spans), each in percent.
"""

_INPUTS = """
Args:
    predictions: for each post a list of {"start", "end", "polarity"}, as from `post_process_mabsa`.
    references: likewise, in the same units. Entries with "word_start" and "word_end" are compared by these.
Returns:
    the scores whose names begin with the configuration's name, e.g. "jmasa_f1".
"""

_CITATION = """
@article{cao2025lrsa, title={Enhanced Multimodal Aspect-Based Sentiment Analysis by LLM-Generated Rationales},
author={Cao and Li and Yang and Zhou}, journal={arXiv:2505.14499}, year={2025}}
"""


def _bare(aspects):
    """Leaves of each aspect what the features declare."""
    return [
        {
            "start": aspect.get("word_start", aspect["start"]),
            "end": aspect.get("word_end", aspect["end"]),
            "polarity": aspect.get("polarity"),
        }
        for aspect in aspects
    ]


class MabsaMetric(evaluate.Metric):
    def _info(self):
        if self.config_name not in ("jmasa", "mate", "masc"):
            raise ValueError(f'The configurations are "jmasa", "mate" and "masc", not {self.config_name!r}.')
        aspect = {
            "start": datasets.Value("int64"),
            "end": datasets.Value("int64"),
            "polarity": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(aspect), "references": datasets.List(aspect)}),
        )

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds the posts of a batch."""
        predictions, references = [_bare(row) for row in predictions], [_bare(row) for row in references]
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Adds one post."""
        super().add(prediction=_bare(prediction), reference=_bare(reference), **kwargs)

    def _compute(self, predictions, references):
        metrics = compute_mabsa_metrics(predictions, references)
        return {name: value for name, value in metrics.items() if name.startswith(self.config_name)}
