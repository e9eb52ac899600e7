"""Scores of aspect-based sentiment analysis: JMASA, MATE and MASC."""

from collections.abc import Sequence


def _prf(true_positives: int, predicted: int, gold: int) -> dict[str, float]:
    precision = 100 * true_positives / predicted if predicted else 0.0
    recall = 100 * true_positives / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def _spans(aspects: Sequence[dict]) -> dict[tuple[int, int], str | None]:
    word_units = any("word_start" in aspect for aspect in aspects)
    start, end = ("word_start", "word_end") if word_units else ("start", "end")
    return {(aspect[start], aspect[end]): aspect.get("polarity") for aspect in aspects}


def compute_mabsa_metrics(
    predictions: Sequence[Sequence[dict]], references: Sequence[Sequence[dict]]
) -> dict[str, float]:
    """Scores predicted aspects against gold aspects, all in percent.

    * **JMASA**: micro precision, recall and F1 over exact (span, polarity).
    * **MATE**: the same over exact spans.
    * **MASC**: accuracy, macro F1 and weighted F1 of the polarity, over the gold spans that are also predicted (all of
      them with `task="masc"`); `masc_matched` is their share in percent.

    Against the reference implementation of VLP-MABSA and AoM: counts are the same for every sequence that the grammar
    can produce. Two things differ otherwise. It keeps the last of several triples on one span and drops malformed
    groups, neither of which can occur here. Its "sc_f" is the harmonic mean of macro precision and macro recall over
    the tags it has seen; ours is the mean of the F1 of each polarity in the gold data, as the literature reports it.
    It rounds to two decimals; we do not.

    Args:
        predictions: for each post a list of `{"start", "end", "polarity"}` (what `post_process_mabsa` gives).
        references: likewise, in the same units. Entries with `"word_start"` and `"word_end"` are compared by these.

    Returns:
        `jmasa_precision`, `jmasa_recall`, `jmasa_f1`, `mate_precision`, `mate_recall`, `mate_f1`, `masc_accuracy`,
        `masc_macro_f1`, `masc_weighted_f1`, `masc_matched`.

    Raises:
        ValueError: the numbers of posts differ.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references.")
    joint = matched = predicted = gold = 0
    gold_labels, predicted_labels = [], []
    for found, given in zip(predictions, references):
        found, given = _spans(found), _spans(given)
        predicted, gold = predicted + len(found), gold + len(given)
        for span in found.keys() & given.keys():
            matched += 1
            joint += found[span] == given[span]
            if found[span] is not None and given[span] is not None:
                predicted_labels.append(found[span])
                gold_labels.append(given[span])
    metrics = {f"jmasa_{name}": value for name, value in _prf(joint, predicted, gold).items()}
    metrics |= {f"mate_{name}": value for name, value in _prf(matched, predicted, gold).items()}
    metrics |= _classification(predicted_labels, gold_labels)
    metrics["masc_matched"] = 100 * matched / gold if gold else 0.0
    return metrics


def _classification(predicted: list[str], gold: list[str]) -> dict[str, float]:
    if not gold:
        return {"masc_accuracy": 0.0, "masc_macro_f1": 0.0, "masc_weighted_f1": 0.0}
    from sklearn.metrics import accuracy_score, f1_score

    labels = sorted(set(gold))
    return {
        "masc_accuracy": 100 * float(accuracy_score(gold, predicted)),
        "masc_macro_f1": 100 * float(f1_score(gold, predicted, labels=labels, average="macro", zero_division=0)),
        "masc_weighted_f1": 100 * float(f1_score(gold, predicted, labels=labels, average="weighted", zero_division=0)),
    }
