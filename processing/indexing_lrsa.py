"""The index format: aspects as a sequence of target ids, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field


BOS_TARGET_ID, EOS_TARGET_ID = 0, 1
DEFAULT_LABELS = ("positive", "neutral", "negative")


def default_id2label() -> dict[int, str]:
    return dict(enumerate(DEFAULT_LABELS))


@dataclass(frozen=True)
class IndexFormat:
    """Target ids of the pointer decoder, after BARTABSA (Yan et al., 2021).

    A post is written as `start_1, end_1, polarity_1, ..., start_k, end_k, polarity_k, EOS`. Target ids are, in this
    order, the special targets (0 BOS, 1 EOS and padding, ...), the polarities, and the columns of the source text:
    `column + pointer_offset`.

    Args:
        num_special_targets: how many ids come before the polarities.
        id2label: polarity names, keyed 0, 1, ...
        pointer_offset: target id of text column 0.
        end_points_to: whether an end points to the `"first"` or the `"last"` sub-token of the last word.
    """

    num_special_targets: int = 2
    id2label: dict[int, str] = field(default_factory=default_id2label)
    pointer_offset: int | None = None
    end_points_to: str = "first"

    def __post_init__(self):
        object.__setattr__(self, "id2label", {int(k): v for k, v in self.id2label.items()})
        if self.pointer_offset is None:
            object.__setattr__(self, "pointer_offset", self.num_special_targets + len(self.id2label))

    @property
    def label2target(self) -> dict[str, int]:
        return {label: self.num_special_targets + i for i, label in self.id2label.items()}

    def span_columns(self, start: int, end: int, word_ids: Sequence[int]) -> tuple[int, int] | None:
        """Returns the columns (start, end) that stand for words `start`..`end` (exclusive).

        Args:
            word_ids: word index of each text column, -1 for special tokens and padding.

        Returns:
            `None` where a word of the span has no column, because the text was cut.
        """
        columns = [column for column, word in enumerate(word_ids) if start <= word < end]
        last = [column for column in columns if word_ids[column] == end - 1]
        if not columns or word_ids[columns[0]] != start or not last:
            return None
        return columns[0], last[0] if self.end_points_to == "first" else last[-1]

    def encode(self, spans: Sequence[tuple[int, int, str]], word_ids: Sequence[int]) -> list[int]:
        """Returns the target sequence of `(start word, end word (exclusive), polarity)` triples.

        Sorted by start, with EOS. Spans whose words were cut off are left out.
        """
        targets: list[int] = []
        for start, end, polarity in sorted(spans):
            if (columns := self.span_columns(start, end, word_ids)) is not None:
                targets += [columns[0] + self.pointer_offset, columns[1] + self.pointer_offset]
                targets.append(self.label2target[polarity])
        return targets + [EOS_TARGET_ID]

    def decode(self, targets: Sequence[int], word_ids: Sequence[int]) -> list[tuple[int, int, str, int]]:
        """Returns `(start word, end word (exclusive), polarity, position of its start in targets)` of each triple.

        `targets` may begin with special targets (the prefix), which are passed over, and ends at the first EOS. What
        is no triple of two word columns in order and a polarity is dropped; of triples that overlap, the first stays.
        """
        first = 0
        while first < len(targets) and targets[first] < self.num_special_targets and targets[first] != EOS_TARGET_ID:
            first += 1
        triples: list[tuple[int, int, str, int]] = []
        group: list[int] = []
        for position in range(first, len(targets)):
            target = targets[position]
            if target == EOS_TARGET_ID or target < 0:
                break
            group.append(target)
            if target >= self.pointer_offset:
                continue
            if len(group) == 3 and target >= self.num_special_targets:
                words = [
                    word_ids[t - self.pointer_offset] if t - self.pointer_offset < len(word_ids) else -1
                    for t in group[:2]
                ]
                start, end = words[0], words[1] + 1
                overlaps = any(start < other_end and other_start < end for other_start, other_end, *_ in triples)
                if 0 <= start < end and words[1] >= 0 and not overlaps:
                    label = self.id2label[target - self.num_special_targets]
                    triples.append((start, end, label, position - 2))
            group = []
        return sorted(triples)
