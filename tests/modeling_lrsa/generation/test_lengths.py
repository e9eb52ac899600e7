"""How long sequences may and must be."""

import warnings

import pytest
import torch
from transformers import GenerationConfig

from modeling_lrsa.generation_lrsa import DEFAULT_NEW_TOKENS

from .cases import EOS, RECORD, follows_the_grammar, targets_of, triples_of


def test_caps(tiny, model, mode):
    """`max_new_tokens` and `max_length`, in the call or in a `GenerationConfig`, go before the model's default."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    assert model.generation_config.max_new_tokens == DEFAULT_NEW_TOKENS
    assert model.generate(**inputs, **mode).shape[1] > 5
    for cap in (3, 4):
        want = model.generate(**inputs, max_new_tokens=cap, **mode)
        assert want.shape[1] <= cap + 1
        assert follows_the_grammar(model, inputs, want)
        assert torch.equal(model.generate(**inputs, max_length=cap + 1, **mode), want)
        for settings in ({"max_new_tokens": cap}, {"max_length": cap + 1}):
            config = GenerationConfig(**settings, **mode)
            assert torch.equal(model.generate(**inputs, generation_config=config), want)
        ids = inputs.copy().pop("input_ids")
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        assert torch.equal(model.generate(ids, GenerationConfig(max_new_tokens=cap, **mode), **rest), want)


def test_a_cap_in_the_call_goes_before_one_in_the_config(tiny, model):
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=4)
    assert want.shape[1] == 5
    config = GenerationConfig(max_new_tokens=10)
    assert torch.equal(model.generate(**inputs, generation_config=config, max_length=5), want)
    with pytest.raises(ValueError, match="max_length"):
        model.generate(**inputs, max_length=1)


def test_least_lengths(tiny, model, mode):
    """EOS comes no sooner than asked, save where no word is left."""
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    for least in (4, 10):
        found = model.generate(**inputs, min_new_tokens=least, max_new_tokens=22, **mode)
        assert follows_the_grammar(model, inputs, found)
        assert torch.equal(model.generate(**inputs, min_length=least + 1, max_new_tokens=22, **mode), found)
        for index, row in enumerate(found):
            word_ids = posts[index * 8 // len(found)]["word_ids"]
            columns = [
                (a - model.config.pointer_offset, b - model.config.pointer_offset) for a, b, _ in triples_of(row)
            ]
            taken = sum(word_ids[b] - word_ids[a] + 1 for a, b in columns)
            assert len(targets_of(row)) >= least or taken == max(word_ids) + 1


def test_beams_that_can_be_long_enough_come_first(tiny, models):
    """Two words have room for two triples, but an aspect of both words leaves none for a second one."""
    model = models["text"]
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.ones(1, 4)}
    inputs["word_ids"] = torch.tensor([[-1, 0, 1, -1]])
    output = model.generate(
        **inputs, min_new_tokens=6, max_new_tokens=10, num_beams=40, num_return_sequences=40, **RECORD
    )
    lengths = [len(targets_of(row)) for row in output.sequences]
    # Two orders of two words with three polarities each; then one aspect of both words, which nothing may follow.
    assert lengths == [6] * 18 + [3] * 3 + [0] * 19
    assert (output.sequences_scores[:18] > -10).all() and (output.sequences_scores[18:21] < -1000).all()
    assert len(output.sequences[:21].unique(dim=0)) == 21


def test_default_cap_has_room_for_twenty_triples(tiny):
    assert DEFAULT_NEW_TOKENS == 61
    model = tiny.model(text_changes={"max_position_embeddings": 64})
    inputs = tiny.batch([tiny.post(model, 0, length=30)])

    def forward(states, target_embeddings, source_keys, pointer_mask):
        logits = torch.zeros(*states.shape[:2], model.config.pointer_offset + pointer_mask.shape[1])
        logits[..., EOS] = -10.0
        logits -= torch.arange(logits.shape[-1]) / 100  # the first column that may come
        return logits

    model.pointer_head.forward = forward
    words = inputs["word_ids"].max().item() + 1
    assert len(model.generate(**inputs)[0, 1:]) == 3 * min(words, 20) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.generation_config.max_new_tokens = 7
        assert model.generate(**inputs).shape[1] == 8
        assert model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=4)).shape[1] == 5
