"""How text tokens stand in rationales, against a count by hand in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lrsa.match_lrsa import EARLINESS_BOUNDS, NUM_MATCH_KINDS, LRSAMatchEmbeddings, match_kinds, matching


TOKENS = st.lists(st.integers(1, 6), min_size=1, max_size=40)


def kind(text: list[int], at: int, rationale: list[int]) -> int:
    """The kind of `match_kinds`, read off its docstring."""
    places = [place for place, token in enumerate(rationale) if token == text[at]]
    if not places:
        return 0
    next_ones = [p for p in places if text[at + 1 : at + 2] and text[at + 1 : at + 2] == rationale[p + 1 : p + 2]]
    previous = [p for p in places if at and p and text[at - 1] == rationale[p - 1]]
    first = min(next_ones + previous or places)
    earliness = sum(first >= bound for bound in EARLINESS_BOUNDS)
    return 1 + (bool(next_ones) + 2 * bool(previous)) * (len(EARLINESS_BOUNDS) + 1) + earliness


@given(TOKENS, TOKENS)
@settings(deadline=None)
def test_kinds(text, rationale):
    matches = matching(
        torch.tensor([text]), torch.tensor([rationale]), torch.ones(1, len(rationale)).bool(), len(text)
    )
    assert match_kinds(matches).tolist() == [[kind(text, at, rationale) for at in range(len(text))]]


@given(TOKENS, TOKENS, st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_padding_changes_no_kind(text, rationale, more_text, more_rationale):
    short = matching(torch.tensor([text]), torch.tensor([rationale]), torch.ones(1, len(rationale)).bool(), len(text))
    mask = torch.tensor([[True] * len(rationale) + [False] * more_rationale])
    text_ids, rationale_ids = torch.tensor([text + [0] * more_text]), torch.tensor([rationale + [0] * more_rationale])
    padded = match_kinds(matching(text_ids, rationale_ids, mask, text_ids.shape[1]))
    assert torch.equal(padded[:, : len(text)], match_kinds(short)) and not padded[:, len(text) :].any()


def test_every_kind_can_be():
    assert match_kinds(torch.ones(1, 1, 1).bool()).item() == 1
    late = torch.zeros(1, 3, 40, dtype=torch.bool)
    late[0, [0, 1, 2], [37, 38, 39]] = True
    assert match_kinds(late).max() == NUM_MATCH_KINDS


@pytest.mark.parametrize("image", [None, "regions"])
def test_a_model_starts_as_if_without(tiny, image):
    fields = {"image": image, "num_fusion_layers": 1, "text": "bert"}
    without, fresh = tiny.model(**fields), tiny.model(**fields, fusion_match_embeddings=True)
    fresh.load_state_dict(without.state_dict(), strict=False)
    embeddings = fresh.get_encoder().match_embeddings
    assert isinstance(embeddings, LRSAMatchEmbeddings)
    inputs = tiny.batch([tiny.post(fresh, 0), tiny.post(fresh, 1)])
    with torch.no_grad():
        drawn = [table.clone() for table in embeddings.parameters()]
        for table in embeddings.parameters():
            table.zero_()
        assert torch.equal(fresh(**inputs).logits, without(**inputs).logits)
        for table, values in zip(embeddings.parameters(), drawn):
            table.copy_(values)
        inputs["text_rationale_input_ids"] = inputs["input_ids"].clone()
        inputs["text_rationale_attention_mask"] = inputs["attention_mask"].clone()
        assert not torch.allclose(fresh(**inputs).logits, without(**inputs).logits, atol=1e-3)
        # A rationale that is missing is none, to the bit.
        inputs["text_rationale_attention_mask"] = torch.zeros_like(inputs["attention_mask"])
        for name in [name for name in inputs if name.startswith("image_rationale")]:
            del inputs[name]
        assert torch.equal(fresh(**inputs).logits, without(**inputs).logits)


def test_each_table_learns_from_its_own_rationale(tiny):
    model = tiny.model(text="bert", num_fusion_layers=1, fusion_match_embeddings=True)
    tables = model.get_encoder().match_embeddings
    inputs = {"input_ids": torch.tensor([[2, 20, 21, 22, 3]]), "labels": torch.tensor([[6, 7, 2, 1]])}
    rationale = {"text_rationale_input_ids": torch.tensor([[2, 20, 21, 3]])}
    model.train()(**inputs, **rationale).loss.backward()
    assert tables.text_rationale.grad.abs().sum() > 0 and not tables.image_rationale.grad.any()
    read = tables.text_rationale.grad.abs().sum(-1).nonzero().flatten() + 1
    matches = matching(inputs["input_ids"], rationale["text_rationale_input_ids"], torch.ones(1, 4).bool(), 5)
    assert set(read.tolist()) == set(match_kinds(matches).flatten().tolist()) - {0}


def test_tokens_that_are_not_known_match_none():
    mask = torch.ones(2, 4, dtype=torch.bool)
    for ids in ((None, torch.ones(2, 4)), (torch.ones(2, 3), None)):
        assert torch.equal(matching(*ids, mask, 3), torch.zeros(2, 3, 4, dtype=torch.bool))
