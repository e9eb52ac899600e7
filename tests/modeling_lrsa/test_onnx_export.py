import json

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessorPil

from modeling_lrsa.onnx_export import export_onnx
from processing import LRSAOnnxPredictor


ONE_LAYER = {"num_hidden_layers": 1}
ONE_LAYER_BART = {"encoder_layers": 1, "decoder_layers": 2}
MODELS = {
    # The vision model, a decoder of the text model's own, image queries, ends at last sub-tokens.
    "bart with vit": {
        "text": "bart",
        "image": "vit",
        "text_changes": ONE_LAYER_BART,
        "decoder_pointer_input": "embeddings",
        "end_points_to": "last",
        "image_rationale_reader": "queries",
    },
    "bert with regions": {
        "image": "regions",
        "text_changes": ONE_LAYER,
        "decoder_layers": 1,
        "rationale_encoder": "shared",
        "fusion_match_embeddings": True,
        "fusion_position": "before",
    },
    "text alone": {
        "text": "roberta",
        "text_changes": {"num_hidden_layers": 3},
        "num_fusion_layers": 2,
        "decoder_layers": 2,
    },
    "after the encoder": {
        "text": "distilbert",
        "image": "resnet",
        "text_changes": {"n_layers": 1},
        "fusion_position": "after",
        "decoder_layers": 1,
    },
    "aom": {
        "text": "bart",
        "image": "regions",
        "text_changes": ONE_LAYER_BART,
        "aspect_attention": True,
        "num_graph_layers": 2,
        "num_fusion_layers": 1,
        "num_special_targets": 3,
        "decoder_prefix": [0, 2, 2],
        "image_bracket_token_ids": [57, 58],
    },
    "baseline": {"image": "regions", "text_changes": ONE_LAYER, "decoder_layers": 1, "num_fusion_layers": 0},
}
FAST = ("baseline",)  # an export takes long, and the predictor's own tests make another
EACH = pytest.mark.parametrize(
    "exported", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in MODELS], indirect=True
)


def picture_processor(model):
    if model.config.vision_config is None:
        return None
    side = {"vit": 8, "resnet": 32}[model.config.vision_config.model_type]
    return ViTImageProcessorPil(size={"height": side, "width": side})


@pytest.fixture(scope="module")
def exported(request, tiny, tmp_path_factory):
    """A tiny model, and the predictor of its graphs."""
    model = tiny.model(**MODELS[request.param])
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(model, tiny.processor(model, picture_processor(model)), folder)
    return model, LRSAOnnxPredictor(folder)


def batch(tiny, model, posts):
    inputs = tiny.batch(posts)
    if model.config.reads_linguistics:
        generator = torch.Generator().manual_seed(len(posts))
        rows, columns = inputs["input_ids"].shape
        inputs["noun_mask"] = torch.randint(2, (rows, columns), generator=generator)
        inputs["dependency_matrix"] = torch.randint(2, (rows, columns, columns), generator=generator).float()
        inputs["sentiment_value"] = torch.rand(rows, columns, generator=generator) * 2 - 1
        if rows == 1:
            del inputs["noun_mask"]
        if rows == 3:
            del inputs["dependency_matrix"], inputs["sentiment_value"]
    return inputs


def arrays(inputs):
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def generate(model, **inputs):
    """What torch generates: target ids, and the probability of each."""
    outputs = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    targets = outputs.sequences[:, -len(outputs.scores) :, None]
    odds = torch.stack(outputs.scores, dim=1).softmax(-1)
    return outputs.sequences.tolist(), odds.gather(2, targets).squeeze(-1).numpy()


@EACH
def test_generates_as_torch_does(exported, tiny):
    # Rows with every subset of picture and rationales, alone and together: other sizes than those that were traced.
    model, predictor = exported
    lengths = set()
    for seed in range(4):
        posts = tiny.mixed_posts(model, seed)
        for rows in (posts, posts[:1], posts[1:2], posts[2:5], posts[7:]):
            inputs = batch(tiny, model, rows)
            expected, odds = generate(model, **inputs)
            sequences, probabilities = predictor.generate(**arrays(inputs))
            assert sequences.tolist() == expected
            assert np.abs(probabilities - odds).max() < 5e-6
            lengths.add(sequences.shape[1])
    assert len(lengths) >= 4


@EACH
def test_processed_scores_of_every_step(exported, tiny):
    model, predictor = exported
    inputs = batch(tiny, model, tiny.mixed_posts(model, 5))
    outputs = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    seen, run = [], predictor._run

    def recording(name, values):
        result = run(name, values)
        if "scores" in result:
            seen.append(result["scores"])
        return result

    predictor._run = recording
    try:
        predictor.generate(**arrays(inputs))
    finally:
        predictor._run = run
    assert len(seen) == len(outputs.scores) > 4
    for scores, expected in zip(seen, outputs.scores):
        allowed = np.isfinite(scores)
        assert np.array_equal(allowed, expected.isfinite().numpy())
        assert np.abs(scores[allowed] - expected.numpy()[allowed]).max() < 2e-5


@EACH
def test_given_spans(exported, tiny):
    model, predictor = exported
    inputs = batch(tiny, model, tiny.mixed_posts(model, 6))
    columns = [(row >= 0).nonzero().flatten().tolist() for row in inputs["word_ids"]]
    spans = torch.full((8, 3, 2), -1)
    for row, places in enumerate(columns):
        for number in range(row % 4):
            spans[row, number] = places[number]
    expected, odds = generate(model, **inputs, aspect_spans=spans)
    sequences, probabilities = predictor.generate(**arrays(inputs | {"aspect_spans": spans}))
    width = len(expected[0])  # torch stops where every row has ended
    assert sequences[:, :width].tolist() == expected
    assert np.abs(probabilities[:, :width] - odds).max() < 5e-6
    polarities = sequences[:, len(model.config.decoder_prefix) + 2 :: 3][:, :3]
    assert (polarities[7] != 1).all() and (polarities[0] == 1).all()


@EACH
def test_length_cap(exported, tiny):
    model, predictor = exported
    inputs = batch(tiny, model, tiny.mixed_posts(model, 0))
    usual = predictor.max_new_tokens
    assert usual == 61
    try:
        for cap in (3, 4, 6, 8):
            predictor.max_new_tokens = cap
            expected, _ = generate(model, **inputs, max_new_tokens=cap)
            assert predictor.generate(**arrays(inputs))[0].tolist() == expected
    finally:
        predictor.max_new_tokens = usual


def test_half_precision_is_refused(tiny):
    model = tiny.model(num_fusion_layers=0, text_changes=ONE_LAYER, decoder_layers=1).to(torch.bfloat16)
    with pytest.raises(ValueError, match="takes float32"):
        export_onnx(model, tiny.processor(model), "nowhere")


@pytest.mark.slow
def test_int8_is_near(tiny, tmp_path):
    model = tiny.model(text_changes=ONE_LAYER, decoder_layers=1)
    export_onnx(model, tiny.processor(model), tmp_path, int8=True)
    predictor = LRSAOnnxPredictor(tmp_path)
    inputs = batch(tiny, model, tiny.mixed_posts(model, 0))
    outputs = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    first = predictor._run("encoder", predictor._complete(arrays(inputs)) | {"max_length": np.array(62)})["scores"]
    allowed = np.isfinite(first)
    assert np.array_equal(allowed, outputs.scores[0].isfinite().numpy())
    deviation = np.abs(first[allowed] - outputs.scores[0].numpy()[allowed])
    assert 1e-4 < deviation.mean() < 0.05
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "lrsa"
