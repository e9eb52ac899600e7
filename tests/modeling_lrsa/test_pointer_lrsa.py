import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lrsa.pointer_lrsa import LRSAPointerHead


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), columns=st.integers(1, 6), length=st.integers(1, 4), offset=st.integers(5, 8))
def test_formulas(tiny, seed, columns, length, offset):
    torch.manual_seed(seed)
    config = tiny.config(pointer_offset=offset)
    head = LRSAPointerHead(config).eval()
    h, e = torch.randn(2, length, tiny.HIDDEN), torch.randn(offset, tiny.HIDDEN)
    states, embeds = torch.randn(2, columns, tiny.HIDDEN), torch.randn(2, columns, tiny.HIDDEN)
    mask = torch.rand(2, columns) < 0.6
    with torch.no_grad():
        logits = head(h, e, head.source_keys(states, embeds), mask)
        first, _, _, second = head.source_mlp
        mlp = second(torch.relu(first(states)))
    assert logits.shape == (2, length, offset + columns)
    lowest = torch.finfo(torch.float32).min
    for row in range(2):
        for step in range(length):
            for target in range(offset):
                # 0 begins a sequence and is never written; ids between polarities and columns stand for nothing.
                want = h[row, step] @ e[target] if 1 <= target < 5 else torch.tensor(lowest)
                assert logits[row, step, target].item() == pytest.approx(want.item(), abs=1e-4)
            for column in range(columns):
                want = (h[row, step] @ embeds[row, column] + h[row, step] @ mlp[row, column]) / 2
                want = want if mask[row, column] else torch.tensor(lowest)
                assert logits[row, step, offset + column].item() == pytest.approx(want.item(), abs=1e-4)


def test_half_precision_masks_stay_finite(tiny):
    head = LRSAPointerHead(tiny.config()).to(torch.bfloat16).eval()
    h, e = torch.randn(1, 2, tiny.HIDDEN, dtype=torch.bfloat16), torch.randn(5, tiny.HIDDEN, dtype=torch.bfloat16)
    keys = torch.randn(1, 3, tiny.HIDDEN, dtype=torch.bfloat16)
    logits = head(h, e, keys, torch.tensor([[True, False, True]]))
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
    assert logits.float().softmax(-1)[..., 6].max() == 0
