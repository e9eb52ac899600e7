"""The pointer head: scores of special targets, polarities and source columns."""

import torch
from torch import nn

from .configuration_lrsa import LRSAConfig


class LRSAPointerHead(nn.Module):
    """Scores every target against a decoder state h (BARTABSA, Yan et al., 2021; VLP-MABSA, Ling et al., 2022).

        special target, polarity   h · e
        source column              (h · E + h · MLP(H)) / 2

    with e the target's embedding, E the token's embedding and H its encoder state.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.config = config
        self.dropout = nn.Dropout(config.pointer_dropout)
        self.source_mlp = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.Dropout(config.pointer_mlp_dropout),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def source_keys(self, text_states: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """What source columns are scored with (batch, columns, hidden); the same at every decoding step.

        Args:
            text_states: encoder states of the text (batch, columns, hidden).
            text_embeds: token embeddings of the text (batch, columns, hidden).
        """
        keys = self.source_mlp(text_states)
        return (keys + self.dropout(text_embeds).to(keys.device)) / 2

    def forward(
        self,
        decoder_states: torch.Tensor,
        target_embeddings: torch.Tensor,
        source_keys: torch.Tensor,
        pointer_mask: torch.Tensor,
    ) -> torch.Tensor:
        """
        Args:
            decoder_states: h (batch, length, hidden).
            target_embeddings: e (config.pointer_offset, hidden).
            source_keys: (batch, columns, hidden) from `source_keys`.
            pointer_mask: (batch, columns), true where a column may be pointed at.

        Returns:
            Logits (batch, length, config.pointer_offset + columns), the lowest number where a target can never come.
        """
        decoder_states = self.dropout(decoder_states)
        targets = decoder_states @ self.dropout(target_embeddings).T
        lowest = torch.finfo(targets.dtype).min  # of the product: under autocast it is the narrower one
        never = torch.ones(self.config.pointer_offset, dtype=torch.bool, device=targets.device)
        never[self.config.scored_special_targets] = False
        first = self.config.num_special_targets
        never[first : first + self.config.num_labels] = False
        source = decoder_states @ source_keys.transpose(1, 2)
        return torch.cat(
            [targets.masked_fill(never, lowest), source.masked_fill(~pointer_mask.unsqueeze(1), lowest)], dim=-1
        )
