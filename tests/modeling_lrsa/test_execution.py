"""How a model is run: attention implementations, precision, compilation, placement, sharded files."""

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import AttentionInterface

from modeling_lrsa import LRSAForMABSA


KINDS = [("bart", "vit"), ("bert", "resnet"), ("bert", None), ("bart", "regions")]
KEY_NAMES = Path(__file__).with_name("key_names.txt")


def run(tiny, model, **changes):
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    with torch.no_grad():
        return model(**inputs, **changes)


# --- attention


FLEX = [(*kind, "flex_attention") for kind in KINDS]  # compiles, which takes a while


@pytest.mark.parametrize(
    "text, image, implementation",
    [(*kind, "eager") for kind in KINDS]
    + [FLEX[2], *(pytest.param(*kind, marks=pytest.mark.slow) for kind in FLEX if kind != FLEX[2])],
)
def test_attention_implementations_agree(tiny, text, image, implementation):
    model = tiny.model(text, image, num_fusion_layers=2)
    parts = ("", "text_config", "decoder_config")
    model.set_attn_implementation(dict.fromkeys(parts, "sdpa"))
    wanted = run(tiny, model).logits
    model.set_attn_implementation(dict.fromkeys(parts, implementation))
    assert model.config._attn_implementation == model.config.text_config._attn_implementation == implementation
    torch.testing.assert_close(run(tiny, model).logits, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("part", ["", "text_config", "vision_config", "decoder_config"])
def test_attention_by_sub_model(tiny, part):
    """Each part asks for the implementation that its own sub-config names."""
    calls = set()

    def spy(module, *args, **kwargs):
        calls.add(type(module).__name__)
        return AttentionInterface()["sdpa"](module, *args, **kwargs)

    AttentionInterface.register("spy", spy)
    model = tiny.model("bert", "vit", num_fusion_layers=1, attn_implementation="sdpa")
    wanted = run(tiny, model).logits
    model.set_attn_implementation(
        {"": "sdpa", "text_config": "sdpa", "vision_config": "sdpa", "decoder_config": "sdpa"} | {part: "spy"}
    )
    found = run(tiny, model).logits
    asked = {
        "": "LRSACrossAttention",
        "text_config": "BertSelfAttention",
        "vision_config": "ViTAttention",
        "decoder_config": "BartAttention",
    }
    assert calls == {asked[part]}
    assert found.shape == wanted.shape


def test_flash_attention_is_refused(tiny):
    """It reads keys of another length than the queries wrongly, as in cross-attention over right-padded batches."""
    with pytest.raises(ValueError, match="does not support Flash Attention"):
        tiny.model(attn_implementation="flash_attention_2")


# --- precision


@pytest.mark.parametrize("text, image", KINDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision(tiny, tmp_path, text, image, dtype, tolerance):
    model = tiny.model(text, image, num_fusion_layers=2)
    model.save_pretrained(tmp_path)
    half = LRSAForMABSA.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    wanted, found = model(**inputs), half(**inputs)
    assert found.logits.dtype == dtype and found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=tolerance)
    found.loss.backward()
    wanted.loss.backward()
    gradients = dict(model.named_parameters())
    for name, parameter in half.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    gate = next(name for name in gradients if name.endswith("text.gate"))
    assert half.get_parameter(gate).grad.item() == pytest.approx(gradients[gate].grad.item(), rel=0.2, abs=0.01)
    inputs.pop("labels")
    sequences = half.generate(**inputs, num_beams=2)
    assert len(sequences) == 8 and (sequences[:, -1] == model.config.eos_token_id).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tiny, dtype):
    model = tiny.model("bart", "vit", num_fusion_layers=2)
    wanted = run(tiny, model)
    with torch.autocast("cpu", dtype=dtype):
        found = run(tiny, model)
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=0.03)


# --- compilation


@pytest.mark.parametrize("text, image", KINDS)
@pytest.mark.parametrize(
    "position",
    [pytest.param("before", marks=pytest.mark.slow), "inside", pytest.param("after", marks=pytest.mark.slow)],
)
def test_forward_is_one_graph(tiny, text, image, position):
    """And batches of one padded shape share it, whatever is missing in their rows."""
    torch._dynamo.reset()
    model = tiny.model(text, image, num_fusion_layers=2, fusion_position=position)
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for seed in range(3):
        posts = [tiny.post(model, 10 * seed + row, 8, bool(image), 5, 6) for row in range(3)]
        inputs = tiny.batch(posts)
        inputs["labels"] = torch.full((3, 4), 1)
        for kind in ("image", "text"):
            inputs[f"{kind}_rationale_attention_mask"][seed] = 0
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs).loss, model(**inputs).loss)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiled_gradients(tiny):
    torch._dynamo.reset()
    model = tiny.model("bert", "vit", num_fusion_layers=2)
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    model(**inputs).loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss.backward()
    for name, gradient in wanted.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-4, msg=name)


# --- placement and files


@pytest.mark.parametrize("text, image", KINDS)
@pytest.mark.parametrize("placement", ["cpu", "auto", "disk"])
def test_device_maps(tiny, tmp_path, text, image, placement):
    model = tiny.model(text, image, num_fusion_layers=2)
    model.save_pretrained(tmp_path / "model", max_shard_size="30KB")
    wanted = run(tiny, model).logits
    device_map = placement
    if placement == "disk":
        device_map = {"model.encoder": "disk", "model.decoder": "disk", "model.target_embeddings": "cpu"}
        device_map["pointer_head"] = "cpu"
    loaded = LRSAForMABSA.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert any(parameter.is_meta for parameter in loaded.parameters()) == (placement == "disk")
    torch.testing.assert_close(run(tiny, loaded).logits, wanted)


def test_key_names(tiny):
    """A checkpoint's names are a promise: what is stored here must load in every later version."""
    lines = []
    for text, image, fields in (("bart", "vit", {}), ("bert", "regions", {"image_rationale_reader": "queries"})):
        lines.append(f"# {text} {image}")
        lines += sorted(
            f"{name} {tuple(value.shape)}" for name, value in tiny.model(text, image, **fields).state_dict().items()
        )
    assert KEY_NAMES.read_text().splitlines() == lines
