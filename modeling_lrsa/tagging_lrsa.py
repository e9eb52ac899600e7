"""A second loss in training: the aspects as tags of the text's columns."""

import torch
from torch import nn

from .configuration_lrsa import LRSAConfig


class LRSATagger(nn.Module):
    """Tells from encoder states which aspect, of which polarity, each column is a part of.

    Tags are 0 outside, then for each polarity that of an aspect's first word and that of its others. Generation does
    not read them: they give the encoder, and fusion in it, something to learn at every word.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.pointer_dropout)
        self.scores = nn.Linear(config.text_config.hidden_size, 1 + 2 * config.num_labels)

    def forward(
        self,
        text_states: torch.Tensor,
        labels: torch.LongTensor,
        pointer_mask: torch.Tensor,
        word_ids: torch.LongTensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            text_states: (batch, columns, hidden).
            labels: target ids (batch, length), -100 where there is none.
            pointer_mask: (batch, columns), true at columns that may be pointed at; others have no tag.
            word_ids: word of each column (batch, columns); without them every column is a word.

        Returns:
            The sum of the cross-entropy over all columns that have a tag.
        """
        scores = self.scores(self.dropout(text_states)).float()
        tags = self.tags(labels, pointer_mask, word_ids)
        return nn.functional.cross_entropy(scores.flatten(0, 1), tags.flatten(), reduction="sum")

    def tags(
        self, labels: torch.LongTensor, pointer_mask: torch.Tensor, word_ids: torch.LongTensor | None = None
    ) -> torch.LongTensor:
        """Returns the tag of each column (batch, columns), -100 where it has none."""
        columns = pointer_mask.shape[1]
        if word_ids is None:
            word_ids = torch.arange(columns, device=labels.device).expand(len(labels), -1)
        triples = labels[:, : labels.shape[1] // 3 * 3].unflatten(1, (-1, 3))
        is_triple = (triples >= self.config.num_special_targets).all(-1, keepdim=True)
        ends = (triples[..., :2] - self.config.pointer_offset).clamp(0, columns - 1)
        first, last = word_ids.gather(1, ends.flatten(1)).view_as(ends).unsqueeze(-1).unbind(2)
        words = word_ids.unsqueeze(1)
        inside = is_triple & (first <= words) & (words <= last)  # (batch, triples, columns)
        polarity = triples[..., 2:] - self.config.num_special_targets
        tags = torch.where(inside, 1 + 2 * polarity + (words > first), 0)
        tags = torch.cat([torch.zeros_like(word_ids).unsqueeze(1), tags], dim=1).amax(1)
        return tags.masked_fill(~pointer_mask, -100)
