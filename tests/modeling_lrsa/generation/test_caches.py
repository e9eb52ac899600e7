"""`generate` with caches, and whatever else stands in the batch."""

import pytest
import torch
from transformers import ModernBertConfig

from modeling_lrsa import LRSAConfig, LRSAForMABSA

from .cases import BOS, EOS, KINDS, RECORD, close, follows_the_grammar, same, targets_of


def test_cache_changes_nothing(tiny, model, mode):
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"max_new_tokens": 13, **mode, **RECORD}
    want = model.generate(**inputs, use_cache=False, **options)
    assert len({len(targets_of(row)) for row in want.sequences}) > 2
    same(model.generate(**inputs, **options), want)
    assert want.past_key_values is None


def test_static_cache_changes_nothing(tiny, model, mode):
    # A later batch with a shorter source, and a lower and a higher cap, meets a cache of the same model.
    for seed, cap in ((0, 10), (1, 7), (2, 13)):
        inputs = tiny.batch(tiny.mixed_posts(model, seed)[seed:])
        options = {"max_new_tokens": cap, **mode, **RECORD}
        found = model.generate(**inputs, cache_implementation="static", **options)
        same(found, model.generate(**inputs, **options))
        cache = found.past_key_values
        decoder, slots = model.config.get_text_config(decoder=True), model.config.num_image_tokens or 0
        assert len(cache.self_attention_cache.layers) == len(cache.cross_attention_cache.layers)
        assert len(cache.self_attention_cache.layers) == decoder.num_hidden_layers == 3
        assert cache.cross_attention_cache.layers[0].keys.shape[2] == slots + inputs["input_ids"].shape[1]


@pytest.mark.parametrize("attention", [("eager", "sdpa"), ("sdpa", "eager")])
def test_static_cache_takes_the_masks_of_the_decoder(tiny, attention):
    model = tiny.model(**KINDS["bert regions"])
    model.set_attn_implementation({"": attention[0], "text_config": attention[1]})
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"max_new_tokens": 10, **RECORD}
    same(model.generate(**inputs, cache_implementation="static", **options), model.generate(**inputs, **options))


def test_static_cache_where_the_encoder_has_several_kinds_of_layers(tiny):
    torch.manual_seed(4)
    sizes = {"hidden_size": tiny.HIDDEN, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    text = ModernBertConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=tiny.POSITIONS, **sizes, **ids)
    assert len(set(text.layer_types)) > 1
    model = LRSAForMABSA(LRSAConfig(text_config=text, initializer_range=0.1)).eval()
    inputs = tiny.batch(tiny.mixed_posts(model))
    options = {"min_new_tokens": 4, "max_new_tokens": 10, **RECORD}
    same(model.generate(**inputs, cache_implementation="static", **options), model.generate(**inputs, **options))


def test_each_row_generates_what_it_does_alone(tiny, model, mode):
    """Rows with any of picture and rationales; alone, what a row does not have is left out of the inputs."""
    posts = tiny.mixed_posts(model)
    together = model.generate(**tiny.batch(posts), max_new_tokens=13, **mode, **RECORD)
    copies = mode.get("num_return_sequences", 1)
    steps = model.compute_transition_scores(together.sequences, together.scores, together.get("beam_indices"))
    given = set()
    for row, post in enumerate(posts):
        inputs = tiny.batch([post])
        given.add(frozenset(inputs))
        alone = model.generate(**inputs, max_new_tokens=13, **mode, **RECORD)
        alone_steps = model.compute_transition_scores(alone.sequences, alone.scores, alone.get("beam_indices"))
        rows = slice(copies * row, copies * (row + 1))
        length = alone.sequences.shape[1]
        assert torch.equal(together.sequences[rows, :length], alone.sequences)
        assert (together.sequences[rows, length:] == EOS).all()
        close(steps[rows, : length - 1], alone_steps)
        if "sequences_scores" in alone:
            close(together.sequences_scores[rows], alone.sequences_scores)
    assert len(given) == (8 if model.config.has_images else 4)


def test_what_is_left_out_counts(tiny, model):
    """Pictures and rationales change what is generated, so that leaving them out is no matter of course."""
    posts = tiny.mixed_posts(model)
    names = ["image_rationale", "text_rationale"] + ["image"] * model.config.has_images
    whole = model.generate(**tiny.batch(posts), max_new_tokens=4, **RECORD).scores[0]
    for name in names:
        bare = [post | {name: None if name == "image" else []} for post in posts]
        found = model.generate(**tiny.batch(bare), max_new_tokens=4, **RECORD).scores[0]
        has = torch.tensor([bool(post[name]) if name != "image" else post[name] is not None for post in posts])
        moved = (found - whole).nan_to_num().abs().amax(-1)
        assert (moved[has] > 1e-4).all() and (moved[~has] < 1e-5).all()


def test_text_alone(tiny, model, mode):
    ids = torch.randint(5, tiny.VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 10, **mode}
    want = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    assert torch.equal(model.generate(ids, **options), want)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **options), want)
    assert (want[:, 0] == BOS).all() and (want[:, 1] > EOS).any()


def test_generate_from_encoder_outputs(tiny, model, mode):
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=10, **mode, **RECORD)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs)
    found = model.generate(encoder_outputs=encoded, word_ids=inputs["word_ids"], max_new_tokens=10, **mode, **RECORD)
    same(found, want)


def test_generate_goes_on_from_given_targets(tiny, model):
    """Given targets count as written: their words are taken, and a triple that they begin is ended."""
    inputs = tiny.batch(tiny.mixed_posts(model))
    whole = model.generate(**inputs, max_new_tokens=13)
    longest = max(range(8), key=lambda row: len(targets_of(whole[row])))
    inputs = tiny.batch([tiny.mixed_posts(model)[longest]])
    whole = model.generate(**inputs, max_new_tokens=13)
    assert whole.shape[1] > 8
    for length in range(1, 8):
        rest = 14 - length
        assert torch.equal(model.generate(**inputs, decoder_input_ids=whole[:, :length], max_new_tokens=rest), whole)
    beams = model.generate(
        **inputs, decoder_input_ids=whole[:, :5], max_new_tokens=9, num_beams=8, num_return_sequences=8
    )
    assert (beams[:, :5] == whole[:, :5]).all() and len(beams.unique(dim=0)) == 8
    assert follows_the_grammar(model, inputs, beams)
