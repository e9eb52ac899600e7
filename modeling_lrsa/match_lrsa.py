"""What text and rationale have in common, token by token."""

import torch
from torch import nn

from .configuration_lrsa import LRSAConfig


# A first match at 0, at 1 to 2, 3 to 6, 7 to 14, 15 to 30, or later in the rationale.
EARLINESS_BOUNDS = (1, 3, 7, 15, 31)
NUM_MATCH_KINDS = 4 * (len(EARLINESS_BOUNDS) + 1)


class LRSAMatchEmbeddings(nn.Module):
    """Tells each text token how it stands in the rationales.

    The exact-match feature of open-domain question answering (Chen et al. 2017, arXiv 1704.00051), in finer kinds:
    whether the neighbours of a token stand beside it there, too, and how early. A token that a rationale lacks gets
    nothing; all embeddings start at zero.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        self.image_rationale = nn.Parameter(torch.zeros(NUM_MATCH_KINDS, config.text_config.hidden_size))
        self.text_rationale = nn.Parameter(torch.zeros(NUM_MATCH_KINDS, config.text_config.hidden_size))

    def forward(self, image_matches: torch.Tensor, text_matches: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image_matches, text_matches: of either rationale (batch, text, rationale tokens), true where text and
                rationale have the same token.

        Returns:
            What is added to the text's embeddings (batch, text, hidden).
        """
        tables = (self.image_rationale, self.text_rationale)
        return sum(
            nn.functional.embedding(match_kinds(matches), nn.functional.pad(table, (0, 0, 1, 0)))
            for table, matches in zip(tables, (image_matches, text_matches))
        )


def match_kinds(matches: torch.Tensor) -> torch.Tensor:
    """Returns how each text token stands in a rationale (batch, text): 0 not at all, else 1 to `NUM_MATCH_KINDS`.

    A kind is of whether the next, the previous, both or no neighbours follow along, and of how early the first such
    place is; a place with a neighbour counts before one without.

    Args:
        matches: (batch, text, rationale tokens), true where both are the same token.
    """
    pad = nn.functional.pad
    with_next = matches & pad(matches[:, 1:, 1:], (0, 1, 0, 1))
    with_previous = matches & pad(matches[:, :-1, :-1], (1, 0, 1, 0))
    beside = with_next | with_previous
    places = beside | (matches & ~beside.any(-1, keepdim=True))
    bounds = torch.tensor(EARLINESS_BOUNDS, device=matches.device)
    earliness = (places.int().argmax(-1).unsqueeze(-1) >= bounds).sum(-1)
    neighbours = with_next.any(-1).long() + 2 * with_previous.any(-1)
    return (1 + neighbours * (len(EARLINESS_BOUNDS) + 1) + earliness).masked_fill(~matches.any(-1), 0)


def matching(
    input_ids: torch.Tensor | None, rationale_ids: torch.Tensor | None, rationale_mask: torch.Tensor, length: int
) -> torch.Tensor:
    """Returns which tokens of text and rationale are the same (batch, text, rationale tokens).

    None are where the ids of either are not known.

    Args:
        rationale_mask: (batch, rationale tokens), true at tokens that are there.
        length: of the text.
    """
    if input_ids is None or rationale_ids is None:
        return torch.zeros_like(rationale_mask).unsqueeze(1).expand(-1, length, -1)
    return (input_ids.unsqueeze(2) == rationale_ids.unsqueeze(1)) & rationale_mask.unsqueeze(1)
