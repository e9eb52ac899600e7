"""How the encoder reads rationales: states for fusion, or tokens behind the text."""

import torch

from .backbones_lrsa import encoder_layers, norm_in_front_of
from .fusion_lrsa import current_states
from .match_lrsa import matching


class RationaleReader:
    """What `LRSAEncoder` does with the rationales before they meet the text."""

    def get_rationale_states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Encodes rationales for every fusion layer.

        Args:
            input_ids, attention_mask: (batch, rationale tokens).

        Returns:
            (batch, rationale tokens, depths, hidden): with `fusion_position="inside"` the states that enter the last
            layers, one for each fusion layer; otherwise the rationale encoder's output. With
            `rationale_encoder="embeddings"` the tokens' embeddings, normalised as the text model does, or for
            `fusion_position="input"`, where it does so itself, as they are.
        """
        if self.config.rationale_encoder == "embeddings":
            states = self.get_input_embeddings()(input_ids)
            if self.config.fusion_position != "input":
                norm = norm_in_front_of(self.text_model, encoder_layers(self.text_model), 0)
                states = states if norm is None else norm(states)
            return states.unsqueeze(2)
        positions = self.config.max_text_length + self.config.image_block_size
        if input_ids.shape[1] > positions:
            raise ValueError(
                f"A rationale has {input_ids.shape[1]} tokens, its encoder takes {positions}: lower the processor's "
                "`max_rationale_length`."
            )
        # A rationale that is missing has nothing to attend to; its states are never read.
        mask = attention_mask.bool()
        mask = mask | ~mask.any(-1, keepdim=True)
        frozen = self.rationale_model is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            model = self.rationale_model if frozen else self.text_model
            kept = {"rationale_states": []}
            token = current_states.set(kept)
            try:
                outputs = model(inputs_embeds=model.get_input_embeddings()(input_ids), attention_mask=mask.long())
            finally:
                current_states.reset(token)
        if self.config.fusion_position != "inside":
            return outputs.last_hidden_state.unsqueeze(2)
        return torch.stack(kept["rationale_states"], dim=2)

    def read_rationale(self, text_embeds, text_ids, input_ids, attention_mask, states):
        """Returns the states (batch, tokens, depths, hidden) and mask (batch, tokens) of one kind of rationale.

        And which of its tokens are the text's, as `matching` does, where the model compares them; else `None`.
        """
        batch, length, _ = text_embeds.shape
        if input_ids is None and states is None:
            # Nothing there in the whole batch: one masked token keeps the block in the graph of a training step.
            states = text_embeds.new_zeros(batch, 1, self.config.num_rationale_depths, text_embeds.shape[-1])
            mask = torch.zeros(batch, 1, dtype=torch.bool, device=text_embeds.device)
        else:
            if attention_mask is None:
                shape = (input_ids if states is None else states).shape[:2]
                attention_mask = torch.ones(shape, device=text_embeds.device)
            if states is None:
                states = self.get_rationale_states(input_ids, attention_mask)
            states, mask = states.to(text_embeds.dtype), attention_mask.bool()
        matches = matching(text_ids, input_ids, mask, length) if self.config.compares_tokens else None
        return states, mask, matches

    def encode_source(
        self,
        source: torch.Tensor,
        mask: torch.Tensor,
        fixed: int,
        appended: list[torch.Tensor],
        appended_masks: list[torch.Tensor],
        **kwargs,
    ):
        """Encodes the source with rationale tokens behind each row's own text, so that no row depends on its batch.

        Tokens beyond the text model's positions are cut: first the last ones of the image rationale.

        Args:
            source, mask: [image block ; text] (batch, source, hidden), and (batch, source).
            fixed: columns that keep their places: the image block's.
            appended, appended_masks: (batch, tokens, 1, hidden) and (batch, tokens) of each kind of rationale.

        Returns:
            The text model's outputs, whose recorded states and attentions are of the packed rows; [image block ; text]
            (batch, source, hidden); and states (batch, rationale tokens, hidden) and mask of the rationales.
        """
        states = torch.cat([source, *(tokens.squeeze(2) for tokens in appended)], dim=1)
        mask = torch.cat([mask, *appended_masks], dim=1)
        place = packed_places(mask, fixed)
        width = min(states.shape[1], self.config.max_text_length + self.config.image_block_size)
        packed = torch.zeros_like(states).scatter(1, spread(place, states), states)[:, :width]
        packed_mask = torch.zeros_like(mask).scatter(1, place, mask)[:, :width]
        outputs = self.text_model(inputs_embeds=packed, attention_mask=packed_mask.long(), **kwargs)
        last = outputs.last_hidden_state
        states = last.gather(1, spread(place.clamp(max=width - 1), last))
        split = source.shape[1]
        return outputs, states[:, :split], states[:, split:], (mask & (place < width))[:, split:]


def packed_places(mask: torch.Tensor, fixed: int) -> torch.Tensor:
    """Returns where each column goes (batch, columns) when what is there moves together, behind `fixed` columns.

    Args:
        mask: (batch, columns), true at columns that are there.
    """
    stays = torch.arange(mask.shape[1], device=mask.device) < fixed
    there = (mask | stays).long()
    gone = 1 - there
    return torch.where(there.bool(), there.cumsum(1), there.sum(1, keepdim=True) + gone.cumsum(1)) - 1


def spread(place: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return place.unsqueeze(-1).expand(-1, -1, states.shape[-1])
