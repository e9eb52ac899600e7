"""How the encoder sees pictures: slots in front of the text."""

import torch
from torch import nn


class ImageBlock:
    """What `LRSAEncoder` makes of pictures, or of their features, before the text model encodes them."""

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> torch.Tensor:
        """Returns what the vision model makes of pictures (batch, channels, height, width): tokens (batch, N_v, D).

        A feature map (batch, D, height, width) is read as height · width tokens.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            features = self.vision_model(pixel_values.to(self.vision_model.dtype)).last_hidden_state
        return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features

    def image_block(
        self,
        text_embeds: torch.Tensor,
        brackets: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        image_features: torch.Tensor | None,
        image_attention_mask: torch.Tensor | None,
        has_image_rationale: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the image block (batch, block, hidden) and its mask (batch, block).

        Args:
            text_embeds: (batch, text, hidden), for their number and type.
            brackets: what stands in front of and behind the slots (batch, 2, hidden), if anything does.
            pixel_values, image_features, image_attention_mask: as of [`LRSAForMABSA.forward`].
            has_image_rationale: (batch), true where learned queries stand in for a picture that is missing.

        Raises:
            ValueError: the pictures give other tokens than the model was built for.
        """
        batch, slots = text_embeds.shape[0], self.config.num_image_tokens
        if image_features is None and pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        if image_features is None:
            image_features = text_embeds.new_zeros(batch, slots, self.config.image_feature_size)
            image_attention_mask = torch.zeros(batch, device=text_embeds.device)
        if image_features.shape[1:] != (slots, self.config.image_feature_size):
            raise ValueError(
                f"The image block has {slots} slots of width {self.config.image_feature_size}, but these pictures "
                f"give {tuple(image_features.shape[1:])}: check the image processor's size, or `image_features`."
            )
        weight = self.image_projection.weight  # quantised, it is of integers
        dtype = weight.dtype if weight.is_floating_point() else text_embeds.dtype
        block = self.image_projection(image_features.to(dtype))
        if self.training and self.vision_model is not None and not self.config.freeze_vision and pixel_values is None:
            # DDP wants every parameter in the graph of every step, FSDP none of its shards, which have a device mesh.
            whole = (p for p in self.vision_model.parameters() if not hasattr(p, "device_mesh"))
            block = block + 0.0 * sum(p.sum() for p in whole if p.requires_grad)
        if image_attention_mask is None:
            has_image = torch.ones(batch, 1, dtype=torch.bool, device=block.device)
        else:
            has_image = image_attention_mask.bool().view(batch, 1)
        mask = has_image.expand(-1, slots)
        if self.rationale_queries is not None:
            stand_in = has_image_rationale.unsqueeze(1) & ~has_image
            number = self.config.num_rationale_queries
            queries = nn.functional.pad(self.rationale_queries.weight, (0, 0, 0, slots - number))
            block = torch.where(stand_in.unsqueeze(-1), queries.to(block.dtype), block)
            is_query = torch.arange(slots, device=block.device) < number
            mask = mask | (stand_in & is_query)
        if brackets is not None:
            opening, closing = brackets.to(block.dtype).split(1, dim=1)
            block = torch.cat([opening, block, closing], dim=1)
            around = mask.any(-1, keepdim=True)
            mask = torch.cat([around, mask, around], dim=1)
        return block, mask
