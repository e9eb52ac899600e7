"""Beam search without any cache, as the reference implementations of VLP-MABSA and AoM do it."""

import torch

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.encoder_lrsa import LRSAEncoderOutput


@torch.inference_mode()
def naive_beam_search(
    model: LRSAForMABSA, inputs: dict[str, torch.Tensor], num_beams: int, length: int
) -> torch.LongTensor:
    """Decodes sequences of exactly `length` targets, the prefix counted, without grammar.

    Every step runs the decoder over the whole prefix, projects the encoder's states of every beam in every
    cross-attention, and passes all source positions of every beam through the pointer head's projection.

    Returns:
        The best sequence of each post (batch, length), EOS nowhere.
    """
    config = model.config
    encoded = model.get_encoder()(**{name: value for name, value in inputs.items() if name != "labels"})
    rows = len(encoded.source_mask)
    encoded = LRSAEncoderOutput(**{name: value.repeat_interleave(num_beams, 0) for name, value in encoded.items()})
    columns = encoded.text_states.shape[1]
    targets = torch.tensor([config.decoder_prefix], device=model.device).repeat(rows * num_beams, 1)
    scores = torch.full((rows, num_beams), -1e9, device=model.device)
    scores[:, 0] = 0.0
    first_row = num_beams * torch.arange(rows, device=model.device).unsqueeze(-1)
    while targets.shape[1] < length:
        states = model.model(encoder_outputs=encoded, decoder_input_ids=targets, use_cache=False).last_hidden_state
        projected = model.pointer_head.source_mlp(encoded.last_hidden_state)[:, -columns:]
        logits = model.pointer_head(
            states, model.model.target_rows(), (projected + encoded.text_embeds) / 2, encoded.pointer_mask
        )
        found = logits[:, -1].float().log_softmax(-1)
        found[:, config.eos_token_id] = -torch.inf
        width = found.shape[-1]
        scores, best = (found.view(rows, num_beams, width) + scores.unsqueeze(-1)).flatten(1).topk(num_beams)
        beam = (first_row + best // width).flatten()
        targets = torch.cat([targets[beam], (best % width).view(-1, 1)], dim=1)
    return targets.view(rows, num_beams, length)[:, 0]
