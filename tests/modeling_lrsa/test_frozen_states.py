import pytest
import torch
from datasets import Image
from PIL import Image as Picture
from transformers import ViTImageProcessor

from modeling_lrsa.frozen_states import add_frozen_states, collator_for, weights_key
from processing import DataCollatorForMABSA
from processing.posts import FEATURES, Dataset
from processing.preparation import prepare_posts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))


def image_processor():
    return ViTImageProcessor(size={"height": 8, "width": 8})


def dataset(tiny, pictures=False):
    rows = [dict(row) for row in tiny.raw_posts()]
    for index, row in enumerate(rows):
        if pictures and index % 3 == 1:
            picture = Picture.new("RGB", (16, 12), (40 * index, 255 - 30 * index, 90))
            row["image"] = Image().encode_example(picture)
    data = Dataset.from_list(rows, features=FEATURES)
    data._fingerprint = f"raw posts {pictures}"
    return data


def counted(monkeypatch, module, method):
    calls, original = [], getattr(module, method)
    monkeypatch.setattr(module, method, lambda *a, **k: calls.append(1) or original(*a, **k))
    return calls


FORMS = [("bert", "inside", 2), ("bart", "after", 1), ("roberta", "before", 2)]


@pytest.mark.parametrize("text, position, layers", FORMS)
def test_cached_rationales(tiny, monkeypatch, text, position, layers):
    model = tiny.model(text, num_fusion_layers=layers, fusion_position=position)
    processor = tiny.processor(model)
    prepared = prepare_posts(dataset(tiny), processor)
    calls = counted(monkeypatch, model.get_encoder(), "get_rationale_states")
    cached = add_frozen_states(prepared, model, processor)
    assert len(calls) > 0
    assert not any("rationale_input_ids" in name for name in cached.column_names)
    first = len(calls)
    again = add_frozen_states(prepared, model, processor)
    assert len(calls) == first and again[0] == cached[0]

    plain = DataCollatorForMABSA(processor)(prepared.to_list())
    states = collator_for(model, processor)(cached.to_list())
    assert states["text_rationale_states"].shape[2:] == (layers if position == "inside" else 1, tiny.HIDDEN)
    assert torch.equal(states["text_rationale_attention_mask"].any(-1), torch.tensor([i % 2 == 0 for i in range(8)]))
    with torch.no_grad():
        want, found = model(**plain), model(**states)
        assert len(calls) == first + 2  # the plain batch alone is encoded: image and text rationales
    columns = want.logits > torch.finfo(torch.float32).min
    torch.testing.assert_close(found.logits[columns], want.logits[columns], atol=2e-3, rtol=0)
    assert found.loss.item() == pytest.approx(want.loss.item(), abs=2e-3)


def test_rationales_are_encoded_once_for_all_tasks_and_whatever_else_is_prepared(tiny, monkeypatch):
    model = tiny.model(num_fusion_layers=1)
    processor = tiny.processor(model)
    prepared = prepare_posts(dataset(tiny), processor)
    one = add_frozen_states(prepared, model, processor)
    calls = counted(monkeypatch, model.get_encoder(), "get_rationale_states")
    spans = add_frozen_states(prepare_posts(dataset(tiny), processor, "masc"), model, processor)
    more = add_frozen_states(prepared.add_column("more", list(range(8))), model, processor)
    assert not calls and "aspect_spans" in spans.column_names and more["more"] == list(range(8))
    for name in ("image_rationale_states", "text_rationale_states"):
        assert one[name] == spans[name] == more[name]
    add_frozen_states(prepared.select([1, 0]), model, processor)
    assert calls  # other posts


@pytest.mark.parametrize("image", ["vit"])
def test_cached_pictures(tiny, monkeypatch, image):
    model = tiny.model(image=image, num_fusion_layers=1)
    processor = tiny.processor(model, image_processor())
    prepared = prepare_posts(dataset(tiny, pictures=True), processor)
    calls = counted(monkeypatch, model.get_encoder(), "get_image_features")
    cached = add_frozen_states(prepared, model, processor)
    first = len(calls)
    assert first > 0 and "image" not in cached.column_names
    add_frozen_states(prepared, model, processor)
    assert len(calls) == first

    plain = DataCollatorForMABSA(processor)(list(prepared))
    features = collator_for(model, processor)(cached.to_list())
    assert "pixel_values" in plain and features["image_features"].shape == (8, 5, 24)
    assert torch.equal(plain["image_attention_mask"], features["image_attention_mask"])
    assert plain["image_attention_mask"].tolist() == [int(i % 3 == 1) for i in range(8)]
    with torch.no_grad():
        want = model(**plain).logits
        calls.clear()
        found = model(**features).logits
    assert not calls
    columns = want > torch.finfo(torch.float32).min
    torch.testing.assert_close(found[columns], want[columns], atol=2e-3, rtol=0)


def test_what_is_trained_is_not_cached(tiny):
    shared = tiny.model(image="vit", num_fusion_layers=1, rationale_encoder="shared", freeze_vision=False)
    processor = tiny.processor(shared, image_processor())
    prepared = prepare_posts(dataset(tiny, pictures=True), processor)
    assert add_frozen_states(prepared, shared, processor).column_names == prepared.column_names


def test_cache_follows_the_weights(tiny, monkeypatch):
    model = tiny.model(num_fusion_layers=1)
    processor = tiny.processor(model)
    prepared = prepare_posts(dataset(tiny), processor)
    one = add_frozen_states(prepared, model, processor)
    model.get_encoder().rationale_model.get_input_embeddings().weight.data.mul_(2.0)
    two = add_frozen_states(prepared, model, processor)
    assert one[0]["text_rationale_states"] != two[0]["text_rationale_states"]


def test_weights_key(tiny):
    one, two, other = tiny.model(seed=0), tiny.model(seed=0), tiny.model(seed=1)
    assert weights_key(one) == weights_key(two) != weights_key(other)
    assert weights_key(one, 1) != weights_key(one, 2)
    wide, former = weights_key(one), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert weights_key(one) != wide
    finally:
        torch.set_float32_matmul_precision(former)
    next(two.parameters()).data[0, 0] += 1e-3
    assert weights_key(one) != weights_key(two)
