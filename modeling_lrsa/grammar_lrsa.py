"""The grammar of index sequences: which targets may come next."""

import torch
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
    targets: torch.Tensor, units: torch.Tensor, steps_left: int, config: LRSAConfig, spans: torch.Tensor | None = None
) -> torch.Tensor:
    """Which targets may follow `targets`: start, end at or after it, polarity, no overlap with a former span, EOS.

    A triple begins only where it and EOS still fit into `steps_left`. A pure tensor function of its inputs: no loop
    over rows, no read-back.

    Args:
        targets: (rows, length) target ids so far, without the prefix.
        units: (rows, columns) from `text_units`, rising from left to right.
        steps_left: targets that can still be written, this one counted.
        spans: (rows, spans, 2) source columns of gold spans, padded with -1: where given (MASC), exactly these spans
            are written, in their order, and only polarities are free.

    Returns:
        (rows, config.pointer_offset + columns), true where allowed.
    """
    rows, length = targets.shape
    columns = units.shape[1]
    step = length % 3
    polarities = range(config.num_special_targets, config.num_special_targets + config.num_labels)
    allowed = torch.zeros(rows, config.pointer_offset + columns, dtype=torch.bool, device=targets.device)
    pointers = allowed[:, config.pointer_offset :]
    finished = (targets == config.eos_token_id).any(-1)

    if step == 2:
        allowed[:, polarities.start : polarities.stop] = ~finished.unsqueeze(-1)
        allowed[:, config.eos_token_id] = finished
        return allowed

    # First and last column of each unit: a start points to the former, an end to one of them.
    is_first = (units >= 0) & (units != torch.nn.functional.pad(units[:, :-1], (1, 0), value=-1))
    is_last = (units >= 0) & (units != torch.nn.functional.pad(units[:, 1:], (0, 1), value=-1))

    triples = targets[:, : length - step].unflatten(1, (-1, 3))[..., :2] - config.pointer_offset
    triples = triples.clamp(0, columns - 1).flatten(1)
    starts, ends = units.gather(1, triples).unflatten(1, (-1, 2)).unbind(-1)  # in units, (rows, triples)

    if step == 0:
        covered = ((starts.unsqueeze(-1) <= units.unsqueeze(1)) & (units.unsqueeze(1) <= ends.unsqueeze(-1))).any(1)
        fits = steps_left >= 4
        pointers |= is_first & ~covered & fits & ~finished.unsqueeze(-1)
        allowed[:, config.eos_token_id] = True
    else:
        start_column = (targets[:, -1:] - config.pointer_offset).clamp(0, columns - 1)
        start = units.gather(1, start_column)
        after = torch.where(starts > start, starts, units.shape[1] + units.amax())
        limit = after.amin(-1, keepdim=True) if after.shape[1] else units.amax(-1, keepdim=True) + 1
        is_end = is_first if config.end_points_to == "first" else is_last
        pointers |= is_end & (units >= start) & (units < limit) & ~finished.unsqueeze(-1)
        allowed[:, config.eos_token_id] = finished

    if spans is not None:
        forced = torch.zeros_like(allowed)
        number = length // 3
        if number < spans.shape[1]:
            column = spans[:, number, step]
            given = (column >= 0) & ~finished
            forced.scatter_(1, (column.clamp(min=0) + config.pointer_offset).unsqueeze(-1), given.unsqueeze(-1))
        else:
            given = torch.zeros_like(finished)
        forced[:, config.eos_token_id] = ~given
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
