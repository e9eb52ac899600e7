"""Kinds of models that generate, ways to generate, and what to compare."""

import torch

from modeling_lrsa.grammar_lrsa import is_valid, text_units


BOS, EOS = 0, 1
# Seeds at which a model writes sequences of many lengths.
KINDS = {
    "bart vit": {"text": "bart", "image": "vit", "num_fusion_layers": 2, "seed": 2},
    "bert regions": {
        "text": "bert",
        "image": "regions",
        "decoder_pointer_input": "embeddings",
        "end_points_to": "last",
        "seed": 6,
    },
    "text": {"text": "roberta", "fusion_position": "after", "end_points_to": "last", "seed": 2},
    "queries": {
        "text": "bart",
        "image": "regions",
        "image_rationale_reader": "queries",
        "decoder_pointer_input": "embeddings",
        "seed": 7,
    },
}
MODES = {
    "greedy": {},
    "beam": {"num_beams": 4, "num_return_sequences": 2},
    "sample": {"do_sample": True, "num_return_sequences": 2},
}
RECORD = {"return_dict_in_generate": True, "output_scores": True}


def close(found, want, **tolerance):
    """Close where finite, and infinite in the same places."""
    assert torch.equal(found.isfinite(), want.isfinite())
    torch.testing.assert_close(
        found[found.isfinite()], want[want.isfinite()], **{"atol": 1e-5, "rtol": 1e-5} | tolerance
    )


def same(found, want):
    """Whether two outputs of `generate` are the same: sequences, their scores, the scores of every step."""
    assert torch.equal(found.sequences, want.sequences)
    assert len(found.scores) == len(want.scores)
    for one, other in zip(found.scores, want.scores):
        close(one, other)
    if "sequences_scores" in want:
        close(found.sequences_scores, want.sequences_scores)
        assert torch.equal(found.beam_indices, want.beam_indices)


def follows_the_grammar(model, inputs, sequences):
    pointer_mask = model.get_encoder().pointer_mask(inputs["attention_mask"].bool(), inputs["word_ids"])
    units = text_units(pointer_mask, inputs["word_ids"])
    units = units.repeat_interleave(len(sequences) // len(units), 0)
    return is_valid(sequences[:, 1:], units, model.config).all().item()


def targets_of(sequence):
    """The targets of a row in front of EOS."""
    sequence = sequence.tolist() if isinstance(sequence, torch.Tensor) else sequence
    return sequence[1 : sequence.index(EOS, 1)] if EOS in sequence[1:] else sequence[1:]


def triples_of(sequence):
    targets = targets_of(sequence)
    return [targets[i : i + 3] for i in range(0, len(targets), 3)]
