"""Pictures and rationales that are left out at random in training, so that a model knows posts without them."""

import random
from typing import Any

from transformers import TrainerCallback


# Inputs of a post, and the columns that hold them, in posts, in prepared data sets and in those with frozen states.
COLUMNS = {
    "image": ("image", "image_features"),
    "image_rationale": ("image_rationale", "image_rationale_input_ids", "image_rationale_states"),
    "text_rationale": ("text_rationale", "text_rationale_input_ids", "text_rationale_states"),
}


class DroppedInputs:
    """A data set in which each picture and each rationale is left out with a probability, anew in each epoch.

    What is left out follows from seed, epoch and the row's place alone, whatever the number of processes and whether
    training was resumed.

    Args:
        dataset: rows for `DataCollatorForMABSA`.
        probability: of each input, between 0 and 1.
    """

    def __init__(self, dataset, probability: float, seed: int):
        self.dataset, self.probability, self.seed, self.epoch = dataset, probability, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.dataset[index])
        draw = random.Random(f"{self.seed} {self.epoch} {index}").random
        for columns in COLUMNS.values():
            if draw() < self.probability:
                row.update({name: [] if isinstance(row[name], list) else None for name in columns if name in row})
        return row


class EpochOfDroppedInputs(TrainerCallback):
    """Tells the data set which epoch begins, before its loader's processes copy it."""

    def __init__(self, dataset: DroppedInputs):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.epoch = int((state.epoch or 0) + 1e-6)
