"""The grammar of index sequences: which targets may come next."""

import torch
from torch.nn.functional import pad
from transformers import LogitsProcessor

from .configuration_lrsa import LRSAConfig


# Score of EOS where other processors forbid all that the grammar allows: below that of any sequence that they leave,
# above what beam search marks as impossible.
LAST_RESORT = -1e4


def text_units(pointer_mask: torch.Tensor, word_ids: torch.Tensor | None) -> torch.Tensor:
    """Returns the unit (word, or column without words) of each text column (batch, columns), -1 at no unit."""
    if word_ids is None:
        word_ids = torch.arange(pointer_mask.shape[1], device=pointer_mask.device).expand(pointer_mask.shape)
    return torch.where(pointer_mask, word_ids, -1)


def allowed_targets(
    targets: torch.Tensor,
    units: torch.Tensor,
    steps_left: int | torch.Tensor,
    config: LRSAConfig,
    spans: torch.Tensor | None = None,
) -> torch.Tensor:
    """Which targets may follow `targets`: start, end at or after it, polarity, no overlap with a former span, EOS.

    A triple begins only where it and EOS still fit into `steps_left`. Without `spans` a pure tensor function that
    takes no branch, so that one exported graph serves every step.

    Args:
        targets: (rows, length) target ids so far, without the prefix.
        units: (rows, columns) from `text_units`, rising from left to right.
        steps_left: targets that can still be written, this one counted.
        spans: (rows, spans, 2) source columns of gold spans, padded with -1: where given (MASC), exactly these spans
            are written, in their order, and only polarities are free.

    Returns:
        (rows, config.pointer_offset + columns), true where allowed.
    """
    length, columns = targets.shape[1], units.shape[1]
    offset, first_polarity = config.pointer_offset, config.num_special_targets
    step = torch.full((1,), length % 3, device=targets.device)
    targets = pad(targets, (3, 0), value=offset)  # a triple in front, which counts for nothing: no tensor is empty
    finished = (targets == config.eos_token_id).any(-1, keepdim=True)

    # First and last column of each unit: a start points to the former, an end to one of them.
    is_first = (units >= 0) & (units != pad(units[:, :-1], (1, 0), value=-1))
    is_last = (units >= 0) & (units != pad(units[:, 1:], (0, 1), value=-1))
    is_end = is_first if config.end_points_to == "first" else is_last

    # The unit that each target points to, (rows, 3 + length).
    pointed = units.gather(1, (targets - offset).clamp(0, columns - 1))
    position = torch.arange(3 + length, device=targets.device)
    is_triple = (position % 3 == 0) & (position >= 3) & (position <= length)  # at the start of a whole one
    starts, ends = pointed.unsqueeze(-1), pad(pointed[:, 1:], (0, 1)).unsqueeze(-1)
    unit = units.unsqueeze(1)
    covered = (is_triple.unsqueeze(-1) & (starts <= unit) & (unit <= ends)).any(1)
    start, beyond = pointed[:, -1:], units.amax(-1, keepdim=True) + 1
    limit = torch.where(is_triple & (pointed > start), pointed, beyond).amin(-1, keepdim=True)

    may_start = is_first & ~covered & (torch.as_tensor(steps_left, device=targets.device) >= 4)
    may_end = is_end & (units >= start) & (units < limit)
    pointers = ((may_start & (step == 0)) | (may_end & (step == 1))) & ~finished
    target = torch.arange(offset, device=targets.device)
    is_polarity = (target >= first_polarity) & (target < first_polarity + config.num_labels)
    is_eos = target == config.eos_token_id
    special = (is_polarity & (step == 2) & ~finished) | (is_eos & ((step == 0) | finished))
    allowed = torch.cat([special, pointers], dim=1)

    if spans is not None and length % 3 < 2:
        forced = torch.zeros_like(allowed)
        number = length // 3
        if number < spans.shape[1]:
            column = spans[:, number, length % 3].unsqueeze(-1)
            given = (column >= 0) & ~finished
            forced.scatter_(1, column.clamp(min=0) + offset, given)
        else:
            given = torch.zeros_like(finished)
        forced[:, config.eos_token_id] = ~given.squeeze(-1)
        return forced
    return allowed


def is_valid(
    targets: torch.Tensor, units: torch.Tensor, config: LRSAConfig, spans: torch.Tensor | None = None
) -> torch.Tensor:
    """Which rows of finished sequences (rows, length), without the prefix, follow the grammar and end with EOS."""
    valid = (targets == config.eos_token_id).any(-1)
    length = targets.shape[1]
    for step in range(length):
        allowed = allowed_targets(targets[:, :step], units, length - step, config, spans)
        valid &= allowed.gather(1, targets[:, step : step + 1]).squeeze(1)
    return valid


class LRSAGrammarLogitsProcessor(LogitsProcessor):
    """Holds `generate` to the grammar. EOS is allowed whenever nothing else is.

    Other processors come before it. Where they forbid all that may go on in the midst of a triple, the triple breaks
    off, and means nothing.

    Args:
        units: (rows, columns) from `text_units`, one row a running sequence (batch · beams).
        prefix_length: targets given before the first triple.
        max_length: length cap of a sequence, prefix included.
        spans: see `allowed_targets`.
    """

    def __init__(
        self,
        config: LRSAConfig,
        units: torch.Tensor,
        prefix_length: int,
        max_length: int,
        spans: torch.Tensor | None = None,
    ):
        self.config = config
        self.units = units
        self.prefix_length = prefix_length
        self.max_length = max_length
        self.spans = spans

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        targets = input_ids[:, self.prefix_length :]
        steps_left = self.max_length - input_ids.shape[1]
        allowed = allowed_targets(targets, self.units, steps_left, self.config, self.spans)
        scores = scores.masked_fill(~allowed, -float("inf"))
        stuck = (scores == -float("inf")).all(-1)
        eos = torch.zeros_like(allowed[:1])
        eos[:, self.config.eos_token_id] = True
        return scores.masked_fill(stuck.unsqueeze(-1) & eos, LAST_RESORT)
