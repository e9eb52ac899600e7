"""AoM's two modules between encoder and decoder: aspect-aware attention and a sentiment-aware graph convolution."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_lrsa import LRSAConfig


class LRSAAspectAttention(nn.Module):
    """Aspect-aware attention, A3M (AoM, Zhou et al., Findings of ACL 2023).

        H  = Σ_k softmax_k( a · tanh(W V_k) ) V_k         over the nouns V of a post
        α  = sigmoid( w · [ U X ; U' H ] )
        X' = (1 - α) X + α H

    AoM's score has a second term, of the position that asks. It is the same for all nouns and cancels in the softmax,
    so H is one vector a post. Its weights (`multi_linear`, half of `att_linear`) are kept and do nothing.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.pad_nouns = config.pad_nouns_in_softmax
        self.noun_linear = nn.Linear(hidden_size, hidden_size)
        self.multi_linear = nn.Linear(hidden_size, hidden_size)
        self.att_linear = nn.Linear(2 * hidden_size, 1)
        self.alpha_linear1 = nn.Linear(hidden_size, hidden_size)
        self.alpha_linear2 = nn.Linear(hidden_size, hidden_size)
        self.linear = nn.Linear(2 * hidden_size, 1)

    def _score(self, nouns: torch.Tensor) -> torch.Tensor:
        noun_half = self.att_linear.weight[:, : nouns.shape[-1]]
        return F.linear(torch.tanh(self.noun_linear(nouns)), noun_half, self.att_linear.bias).squeeze(-1)

    def forward(self, states: torch.Tensor, noun_mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            states: X, [image block ; text] (batch, source, hidden).
            noun_mask: (batch, text), true at columns of nouns.

        Returns:
            X' of the shape of `states`.
        """
        text = states[:, -noun_mask.shape[1] :]
        scores = self._score(text)
        lowest = torch.finfo(scores.dtype).min  # of the product: under autocast it is the narrower one
        scores = scores.masked_fill(~noun_mask, lowest)
        if self.pad_nouns:
            # AoM pads every post's nouns with zero vectors up to the batch's longest list, and they take their share.
            missing = noun_mask.sum(-1)
            missing = (missing.max() - missing).unsqueeze(-1)
            padding = (
                self._score(states.new_zeros(1, 1, states.shape[-1])) + missing.clamp(min=1).to(scores.dtype).log()
            )
            scores = torch.cat([scores, padding.masked_fill(missing == 0, lowest).to(scores.dtype)], dim=-1)
        weights = scores.softmax(-1)[:, : noun_mask.shape[1]] * noun_mask  # a post without nouns: H = 0
        aspect = weights.unsqueeze(1) @ text
        from_states, from_aspect = self.linear.weight.chunk(2, dim=-1)
        alpha = F.linear(self.alpha_linear1(states), from_states, self.linear.bias)
        alpha = torch.sigmoid(alpha + F.linear(self.alpha_linear2(aspect), from_aspect))
        return (1 - alpha) * states + alpha * aspect


class LRSAGraphConvolution(nn.Module):
    """One layer: relu( mask · ( A (g W) / (Σ_j A_ij + 1) + b ) )."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)

    def forward(self, states: torch.Tensor, adjacency: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        degree = adjacency.sum(-1, keepdim=True) + 1
        neighbours = adjacency @ F.linear(states, self.linear.weight) / degree
        return F.relu((neighbours + self.linear.bias) * mask.unsqueeze(-1))


class LRSAAspectGraph(nn.Module):
    """Graph convolution over text and picture, weighted by similarity, with the sentiment of words (AoM).

    It is added to what the decoder attends to; the pointer head reads the states without it.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.proportion = config.graph_proportion
        self.sentiment = nn.Linear(1, hidden_size)
        self.context = nn.Linear(hidden_size, hidden_size)
        self.layers = nn.ModuleList([LRSAGraphConvolution(hidden_size) for _ in range(config.num_graph_layers)])

    @staticmethod
    @torch.no_grad()
    def adjacency(
        states: torch.Tensor, source_mask: torch.Tensor, noun_mask: torch.Tensor, dependency_matrix: torch.Tensor
    ) -> torch.Tensor:
        """Returns the graph (batch, source, source): no gradient goes through it, entries may be negative.

        Text and text: cosine where a dependency is. Image and noun: cosine. The diagonal: 1.

        Args:
            states: [image block ; text] (batch, source, hidden).
            source_mask: (batch, source); a masked image block has no edges.
            noun_mask: (batch, text).
            dependency_matrix: (batch, text, text), 1 where one word heads the other or its head.
        """
        columns = noun_mask.shape[1]
        slots = states.shape[1] - columns
        unit = F.normalize(states, dim=-1)
        cosine = unit @ unit.transpose(1, 2)
        image_noun = source_mask[:, :slots].unsqueeze(-1) & noun_mask.unsqueeze(1)
        edges = F.pad(dependency_matrix.to(cosine.dtype), (slots, 0, slots, 0))
        edges[:, :slots, slots:] = image_noun.to(edges.dtype)
        edges[:, slots:, :slots] = image_noun.transpose(1, 2).to(edges.dtype)
        diagonal = torch.eye(states.shape[1], dtype=torch.bool, device=states.device)
        return (cosine * edges).masked_fill(diagonal, 1)

    def forward(
        self,
        states: torch.Tensor,
        source_mask: torch.Tensor,
        noun_mask: torch.Tensor,
        dependency_matrix: torch.Tensor | None,
        sentiment_value: torch.Tensor | None,
    ) -> torch.Tensor:
        """
        Args:
            states: [image block ; text] (batch, source, hidden).
            source_mask: (batch, source).
            noun_mask: (batch, text).
            dependency_matrix: (batch, text, text); none are like a sentence without dependencies.
            sentiment_value: (batch, text), 0 at words without; none are like words without sentiment.

        Returns:
            States with the graph's added, of the same shape.
        """
        batch, columns = noun_mask.shape
        if dependency_matrix is None:
            dependency_matrix = states.new_zeros(batch, columns, columns)
        if sentiment_value is None:
            sentiment_value = states.new_zeros(batch, columns)
        adjacency = self.adjacency(states, source_mask, noun_mask, dependency_matrix)
        value = F.pad(sentiment_value.to(states.dtype), (states.shape[1] - columns, 0)).unsqueeze(-1)
        graph = self.context(states + self.sentiment(value))
        for layer in self.layers:
            graph = layer(graph, adjacency, source_mask)
        return states + self.proportion * graph
