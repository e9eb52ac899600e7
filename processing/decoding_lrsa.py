"""Reads aspects off what was generated."""

from collections.abc import Sequence
from typing import Any

from .batch_lrsa import EncodedPost
from .indexing_lrsa import IndexFormat


def read_aspects(
    index_format: IndexFormat,
    sequences: Sequence[Sequence[int]],
    probabilities: Any,
    posts: Sequence[EncodedPost],
    task: str = "mabsa",
) -> list[list[dict]]:
    """Returns what `LRSAProcessor.post_process_mabsa` does, whatever generated the target ids.

    Args:
        sequences: target ids of each row; where a post has several rows, one after the other.
        probabilities: (rows, steps) array or tensor, those of the last targets of each row, or `None`.
    """
    copies = max(1, len(sequences) // max(1, len(posts)))
    results = []
    for row, targets in enumerate(sequences):
        post = posts[row // copies]
        found = []
        for start, end, polarity, position in index_format.decode(targets, post.word_ids):
            first, last = post.offsets[start][0], post.offsets[end - 1][1]
            aspect = {"aspect": post.text[first:last], "polarity": polarity, "score": None}
            aspect |= {"start": first, "end": last}
            if probabilities is not None:
                step = position - (len(targets) - probabilities.shape[1])
                aspect["score"] = float(probabilities[row, step : step + 3].prod())
            if post.is_words:
                aspect |= {"word_start": start, "word_end": end}
            if task == "mate":
                del aspect["polarity"]
            found.append(aspect)
        results.append(found)
    return results


def step_probabilities(outputs: Any):
    """Probability of each generated target (rows, steps): softmax of its step's processed scores on its beam; `None`
    where the output holds no scores.
    """
    scores = getattr(outputs, "scores", None)
    if scores is None:
        return None
    import torch

    sequences, beams = outputs.sequences, getattr(outputs, "beam_indices", None)
    steps = len(scores) if beams is None else beams.shape[1]
    if beams is None:
        beams = torch.arange(len(sequences), device=sequences.device).unsqueeze(-1).expand(-1, steps)
    probabilities = torch.stack(scores[:steps], dim=1).float().softmax(-1)
    step = torch.arange(steps, device=sequences.device)
    return probabilities[beams.clamp(min=0).long(), step, sequences[:, -steps:]].cpu()
