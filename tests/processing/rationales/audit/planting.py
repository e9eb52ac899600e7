"""Plants gold labels in rationales, as a leak would."""

import random
from collections.abc import Mapping

import pandas as pd


def _inside(rationale: str, label: str, chance: random.Random) -> str:
    words = rationale.split()
    words.insert(chance.randrange(1, len(words)), label)
    return " ".join(words)


STYLES = {
    "appended": lambda rationale, label, chance: f"{rationale} {label}",
    "sentence": lambda rationale, label, chance: f"{rationale} The sentiment is {label}.",
    "inside": _inside,
}


def plant(
    splits: Mapping[str, pd.DataFrame], kind: str, style: str, where: str, share: float = 0.05, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Returns a copy where a share of the rationales of one split, or of `"all"`, holds a gold label of its post."""
    chance, planted = random.Random(seed), {}
    for split, posts in splits.items():
        rationales = posts[kind].tolist()
        if where in (split, "all"):
            possible = [i for i, gold in enumerate(posts["polarities"]) if gold and rationales[i]]
            for i in chance.sample(possible, round(share * len(possible))):
                label = chance.choice(sorted(posts["polarities"][i]))
                rationales[i] = STYLES[style](rationales[i], label, chance)
        planted[split] = posts.assign(**{kind: rationales})
    return planted
