"""Tests whether rationales tell the gold polarity by more than what a reader of the text could have written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from ...words_lrsa import split_words
from .rates import interval
from .signs import has_polarity_stem, named_polarities, states_label


FOLDS = 5
FEWEST_POSTS = 30
INPUTS = ("text", "rationale", "masked")


@dataclass(frozen=True)
class Posts:
    """Posts of one split with a rationale of one kind and at least one gold aspect with polarity.

    Args:
        texts, rationales: one string a post.
        polarities: the gold polarities of each post, of which there may be several.
    """

    texts: Sequence[str]
    rationales: Sequence[str]
    polarities: Sequence[Collection[str]]

    def __post_init__(self):
        single = [next(iter(gold)) if len(gold) == 1 else "" for gold in self.polarities]
        rationales = [_words(rationale) for rationale in self.rationales]
        masked = [[word for word in words if not has_polarity_stem(word)] for words in rationales]
        bags = dict(zip(INPUTS, ([_words(text) for text in self.texts], rationales, masked)))
        object.__setattr__(self, "inputs", {name: np.fromiter(words, object) for name, words in bags.items()})
        object.__setattr__(self, "labels", np.array(single, dtype=object))
        object.__setattr__(self, "is_single", np.array([bool(label) for label in single], dtype=bool))


@dataclass(frozen=True)
class LeakTest:
    """What a bag of words finds out about the polarity of the posts of one split.

    The posts whose gold aspects share one polarity are learned from and scored; the others are left out.

    Attributes:
        posts: how many are scored.
        majority: share of the most frequent polarity among them.
        from_train: by input (`"text"`, `"rationale"`, and `"masked"`, the rationale without polarity words), accuracy
            of a classifier that learned from the train split, with its interval of 95 %: `[accuracy, low, high]`.
            Empty for the train split and where there is none.
        within: the same of classifiers that learned from the other folds of this split.
        ps: by hypothesis, p of what is seen were it wrong. `"more_than_text"`: the rationale tells more than the text.
            `"told"`: and more than itself without polarity words. `"only_here"`: within the split it tells more than
            the text, and more than a classifier from the train split sees in it.
        telling_words: for each polarity the words of rationales that speak most for it, most first.
        predictions: polarity of every post, from its text alone; by the train split where that is there.
    """

    posts: int
    majority: float
    from_train: dict[str, list[float]]
    within: dict[str, list[float]]
    ps: dict[str, float]
    telling_words: dict[str, list[str]]
    predictions: np.ndarray

    def figures(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "predictions"}


@dataclass(frozen=True)
class Agreement:
    """How often the polarity that a rationale names is one of its post's gold polarities.

    Attributes:
        rationales: those that name exactly one polarity by its label.
        right: those of them that name a gold polarity of their post.
        by_chance: how many would, were the gold polarities dealt out anew among the posts of the split.
        by_text: how many polarities predicted from the text alone are right on the same posts; `None` where nothing
            could be learned from the texts.
        p: of naming this many, were the rationales no better than chance, than the texts, and than a given reader: the
            largest of the p-values.
    """

    rationales: int
    right: int
    by_chance: float
    by_text: int | None
    p: float


def leak_tests(splits: Mapping[str, Posts], reader_accuracy: float | None = None) -> dict[str, LeakTest]:
    """Predicts the polarity of posts from their rationales alone, beside their texts alone, in each split.

    The classifier is a linear support vector machine on TF-IDF weights of words. As the same posts are predicted
    twice, differences are tested by the exact form of McNemar's test (1947), one-sided.

    Args:
        splits: by name; `"train"` is learned from where it is there.
        reader_accuracy: what a reader of the text who does not know the gold polarities gets right, between 0 and 1. A
            rationale is then also to tell more than that.

    Returns:
        A test by split, of those with 30 posts to score and two polarities with 10 posts each.
    """
    tests, learned = {}, {}
    if "train" in splits and is_enough(splits["train"]):
        learned = {name: _fit(splits["train"], name) for name in INPUTS}
    for name, posts in splits.items():
        if is_enough(posts):
            tests[name] = _test(posts, learned if name != "train" else {}, reader_accuracy)
    return tests


def is_enough(posts: Posts) -> bool:
    counts = np.unique(posts.labels[posts.is_single].astype(str), return_counts=True)[1]
    return counts.sum() >= FEWEST_POSTS and (counts >= FEWEST_POSTS // 3).sum() > 1


def agreement(
    splits: Mapping[str, Posts],
    tests: Mapping[str, LeakTest],
    reader_accuracy: float | None = None,
    stated: bool = False,
) -> Agreement:
    """Compares the polarities that rationales name with the gold ones, over all `splits` together.

    Chance is tested by the binomial with the mean of the posts' own chances, which is on the safe side (Hoeffding,
    1956); the text by McNemar's exact test on the same posts.

    Args:
        tests: those of `leak_tests`, whose predictions from the text are compared with.
        reader_accuracy: as for `leak_tests`.
        stated: whether just rationales that state a label outright count, and none with "a neutral background".
    """
    right, chances, by_text = [], [], []
    for name, posts in splits.items():
        named = [named_polarities(rationale) for rationale in posts.rationales]
        asked = [
            index
            for index, rationale in enumerate(posts.rationales)
            if len(named[index]) == 1 and (states_label(rationale) or not stated)
        ]
        golds = posts.polarities
        shares = {label: np.mean([label in gold for gold in golds]) for label in {next(iter(named[i])) for i in asked}}
        right += [next(iter(named[i])) in golds[i] for i in asked]
        chances += [shares[next(iter(named[i]))] for i in asked]
        if name in tests:
            by_text += [tests[name].predictions[i] in golds[i] for i in asked]
    if not right:
        return Agreement(0, 0, 0.0, None, 1.0)
    complete = len(by_text) == len(right)
    ps = [_p_above(sum(right), len(right), float(np.mean(chances)))]
    if complete:
        ps.append(_p_better(np.array(right), np.array(by_text)))
    if reader_accuracy is not None:
        ps.append(_p_above(sum(right), len(right), reader_accuracy))
    return Agreement(len(right), sum(right), float(np.sum(chances)), sum(by_text) if complete else None, max(ps))


def _words(text: str) -> list[str]:
    """Returns the words in lower case, and an empty one, so that no bag is empty."""
    return ["", *(text[start:end].lower() for start, end in split_words(text))]


def _weights() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer=list, sublinear_tf=True)


def _classifier() -> LinearSVC:
    return LinearSVC(C=0.3, random_state=0)


def _test(posts: Posts, learned: Mapping[str, Pipeline], reader_accuracy: float | None) -> LeakTest:
    gold = posts.labels[posts.is_single]
    counts = np.unique(gold.astype(str), return_counts=True)[1]
    within = {name: _predict_folds(posts.inputs[name], posts.labels) for name in INPUTS}
    from_train = {name: classifier.predict(posts.inputs[name]) for name, classifier in learned.items()}
    here, there = (
        {name: predictions[name][posts.is_single] == gold for name in predictions}
        for predictions in (within, from_train)
    )
    hits = there or here
    ps = {"more_than_text": _p_better(hits["rationale"], hits["text"])}
    if reader_accuracy is not None:
        by_reader = _p_above(int(hits["rationale"].sum()), len(gold), reader_accuracy)
        ps["more_than_text"] = max(ps["more_than_text"], by_reader)
    ps["told"] = max(ps["more_than_text"], _p_better(hits["rationale"], hits["masked"]))
    if there:
        ps["only_here"] = max(
            _p_better(here["rationale"], there["rationale"]), _p_better(here["rationale"], here["text"])
        )
    return LeakTest(
        posts=len(gold),
        majority=float(counts.max() / counts.sum()),
        from_train={name: _accuracy(there[name]) for name in there},
        within={name: _accuracy(here[name]) for name in here},
        ps=ps,
        telling_words=_telling_words(_fit(posts, "rationale")),
        predictions=from_train.get("text", within["text"]),
    )


def _fit(posts: Posts, name: str) -> Pipeline:
    classifier = make_pipeline(_weights(), _classifier())
    return classifier.fit(posts.inputs[name][posts.is_single], posts.labels[posts.is_single])


def _predict_folds(bags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Predicts every post by a classifier that learned from the other folds, of the posts with one polarity."""
    weights = _weights().fit_transform(bags)
    predictions = np.empty(len(bags), dtype=object)
    for others, fold in KFold(FOLDS, shuffle=True, random_state=0).split(bags):
        others = others[labels[others] != ""]
        predictions[fold] = _classifier().fit(weights[others], labels[others]).predict(weights[fold])
    return predictions


def _telling_words(classifier: Pipeline, number: int = 8) -> dict[str, list[str]]:
    words = classifier[0].get_feature_names_out()
    weights, labels = classifier[1].coef_, classifier[1].classes_
    if len(labels) == 2:
        weights = np.stack([-weights[0], weights[0]])
    return {
        str(label): [word for word in words[np.argsort(-row)] if word.isalnum()][:number]
        for label, row in zip(labels, weights)
    }


def _accuracy(hits: np.ndarray) -> list[float]:
    return [float(hits.mean()), *interval(int(hits.sum()), len(hits))]


def _p_better(ours: np.ndarray, theirs: np.ndarray) -> float:
    """McNemar's exact test, one-sided: p of this many more hits of ours where just one of the two hits."""
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(won, won + lost, 0.5, "greater").pvalue) if won + lost else 1.0


def _p_above(count: int, total: int, share: float) -> float:
    return float(binomtest(count, total, share, "greater").pvalue)
