"""Exports a model to ONNX graphs that `processing.LRSAOnnxPredictor` runs without torch."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.export import Dim
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from processing import LRSAProcessor

from .encoder_lrsa import LRSAEncoderOutput
from .grammar_lrsa import LRSAGrammarLogitsProcessor, text_units
from .modeling_lrsa import LRSAForMABSA
from .pretrained_lrsa import CACHE


# Sizes of the tensors that are traced, all different and none 1, so that no graph is made for one of them.
ROWS, COLUMNS, IMAGE_RATIONALE, TEXT_RATIONALE, TARGETS = 2, 7, 5, 6, 11


class VisionGraph(nn.Module):
    """Pictures in, `image_features` out."""

    def __init__(self, model: LRSAForMABSA):
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image_features": self.encoder.get_image_features(pixel_values)}


class DecodingGraph(nn.Module):
    """One decoding step: processed scores of the next target, and the keys and values that the next step reads."""

    def __init__(self, model: LRSAForMABSA):
        super().__init__()
        self.model = model

    def step(
        self,
        decoder_input_ids: torch.Tensor,
        max_length: torch.Tensor,
        encoder_outputs: LRSAEncoderOutput,
        units: torch.Tensor,
        cache: Cache | None = None,
    ) -> tuple[torch.Tensor, EncoderDecoderCache]:
        outputs = self.model(
            decoder_input_ids=decoder_input_ids if cache is None else decoder_input_ids[:, -1:],
            encoder_outputs=encoder_outputs,
            cache=cache,
            use_cache=True,
        )
        config = self.model.config
        grammar = LRSAGrammarLogitsProcessor(config, units, len(config.decoder_prefix), max_length)
        return grammar(decoder_input_ids, outputs.logits[:, -1]), outputs[CACHE]

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        max_length: torch.Tensor,
        source: dict[str, torch.Tensor],
        cross: list[torch.Tensor],
        past: list[torch.Tensor],
    ) -> dict:
        """
        Args:
            decoder_input_ids: (batch, length) all targets so far, the prefix first.
            max_length: () length cap of a sequence, prefix included.
            source, cross, past: what the graphs return, `past` being `present` of the step before.
        """
        source = dict(source)
        units = source.pop("units")
        encoder_outputs = LRSAEncoderOutput(pointer_mask=units >= 0, **source)
        cache = EncoderDecoderCache(_cache(past), _cache(cross))
        scores, cache = self.step(decoder_input_ids, max_length, encoder_outputs, units, cache)
        return {"scores": scores, "present": _keys_and_values(cache.self_attention_cache)}


class EncodingGraph(DecodingGraph):
    """The encoder, and the first decoding step, which computes the keys and values of the source for all others."""

    def forward(self, max_length: torch.Tensor, **inputs: torch.Tensor) -> dict:
        encoder_outputs = self.model.model.encoder(**inputs)
        encoder_outputs.source_keys = self.model._source_keys(encoder_outputs)
        units = text_units(encoder_outputs.pointer_mask, inputs["word_ids"])
        prefix = torch.tensor([self.model.config.decoder_prefix], device=units.device)
        scores, cache = self.step(prefix.expand(units.shape[0], -1), max_length, encoder_outputs, units)
        source = {name: value for name, value in encoder_outputs.items() if name != "pointer_mask"}
        return {
            "scores": scores,
            "source": source | {"units": units},
            "cross": _keys_and_values(cache.cross_attention_cache),
            "present": _keys_and_values(cache.self_attention_cache),
        }


def _cache(tensors: list[torch.Tensor]) -> DynamicCache:
    return DynamicCache(list(zip(tensors[::2], tensors[1::2])))


def _keys_and_values(cache: DynamicCache) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def sample_inputs(model: LRSAForMABSA) -> dict[str, torch.Tensor]:
    """Inputs of the encoder, of sizes that stand for any."""
    config = model.config

    def ones(length: int) -> torch.Tensor:  # each a tensor of its own: one given twice is one input of the graph
        return torch.ones(ROWS, length, dtype=torch.long)

    inputs = {"input_ids": ones(COLUMNS), "attention_mask": ones(COLUMNS), "word_ids": ones(COLUMNS)}
    if config.has_images:
        inputs["image_features"] = torch.zeros(ROWS, config.num_image_tokens, config.image_feature_size)
        inputs["image_attention_mask"] = torch.ones(ROWS, dtype=torch.long)
    if config.num_fusion_layers:
        for kind, length in (("image", IMAGE_RATIONALE), ("text", TEXT_RATIONALE)):
            inputs[f"{kind}_rationale_input_ids"] = ones(length)
            inputs[f"{kind}_rationale_attention_mask"] = ones(length)
    if config.reads_linguistics:
        inputs["noun_mask"] = ones(COLUMNS)
        inputs["dependency_matrix"] = torch.ones(ROWS, COLUMNS, COLUMNS)
        inputs["sentiment_value"] = torch.ones(ROWS, COLUMNS)
    return inputs


def _dynamic_shapes(name: str, value):
    """Which dimensions differ from call to call: rows, and lengths of text, rationales, targets, keys and values."""
    if isinstance(value, dict):
        return {key: _dynamic_shapes(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [dict.fromkeys((0, 2), Dim.AUTO) for _ in value]
    free = {"max_length": 0, "pixel_values": 1, "image_features": 1, "dependency_matrix": 3}
    dims = free.get(name, min(value.dim(), 2))
    return dict.fromkeys(range(dims), Dim.AUTO)


def _tidy(program) -> None:
    """Transposes constants for good, and strips what tracing noted, paths of this machine included.

    The exporter leaves a transposition at run time where two layers share a weight, as the passes over both rationales
    do, and what is no constant is not quantised.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    transposed: dict[tuple, onnx_ir.Value] = {}
    for node in list(program.graph):
        node.metadata_props.clear()
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not weight.is_initializer():
            continue
        key = (weight.name, *node.attributes["perm"].as_ints())
        if key not in transposed:
            array = np.ascontiguousarray(weight.const_value.numpy().transpose(key[1:]))
            name = "_".join(map(str, key))
            transposed[key] = onnx_ir.Value(
                name=name,
                shape=onnx_ir.Shape(array.shape),
                type=weight.type,
                const_value=onnx_ir.Tensor(array, name=name),
            )
            program.graph.register_initializer(transposed[key])
        node.outputs[0].replace_all_uses_with(transposed[key])
        program.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(program)


@torch.no_grad()
def export_onnx(model: LRSAForMABSA, processor: LRSAProcessor, folder: str | Path, int8: bool = False) -> None:
    """Writes a model as ONNX graphs, with its configuration and processor, into a folder for `LRSAOnnxPredictor`.

    `encoder.onnx` holds the encoder and the first decoding step, `decoder.onnx` any later one, `vision.onnx`, where
    the model has one, the vision model. Batch size and all lengths are free. The grammar is part of the graphs.

    Args:
        int8: whether weights of matrix products and embeddings are stored, and products computed, in 8 bits.

    Raises:
        ImportError: a package of the extra `onnx` is missing.
        ValueError: the model is not in float32.
    """
    try:
        import onnxruntime  # noqa: F401, the exporter asks for it only later
        from transformers.exporters import (
            ExportedModel,
            OnnxConfig,
            OnnxExporter,
            OnnxRuntimeDynamicConfig,
            OnnxRuntimeQuantizer,
        )

        exporter = OnnxExporter()
    except ImportError as error:
        raise ImportError(f"ONNX export needs more packages: pip install lrsa[onnx] ({error})") from error
    if model.dtype != torch.float32:
        raise ValueError(f"The model is in {model.dtype}; ONNX export takes float32: `model.float()`.")
    settings = OnnxRuntimeDynamicConfig(["MatMul", "Gemm", "Gather"], per_channel=True, reduce_range=True)
    quantizer = OnnxRuntimeQuantizer(settings) if int8 else None
    model = model.eval()
    components = {}

    def export(name: str, graph: nn.Module, **inputs):
        component = exporter.export(graph, inputs, OnnxConfig(dynamic_shapes=_dynamic_shapes(name, inputs)))
        components[name] = component.components["model"]
        _tidy(components[name].program)
        if quantizer is not None:
            components[name].program = quantizer.quantize(components[name].program, inputs, exporter.export_format)

    if model.model.encoder.vision_model is not None and processor.image_processor is not None:
        pictures = processor.image_processor([Image.new("RGB", (64, 64))] * ROWS, return_tensors="pt")
        export("vision", VisionGraph(model), pixel_values=pictures["pixel_values"].to(model.device))
    inputs = {name: tensor.to(model.device) for name, tensor in sample_inputs(model).items()}
    max_length = torch.tensor(TARGETS + 3, device=model.device)
    encoding = EncodingGraph(model)
    export("encoder", encoding, max_length=max_length, **inputs)
    first = encoding(max_length, **inputs)
    export(
        "decoder",
        DecodingGraph(model),
        decoder_input_ids=torch.ones(ROWS, TARGETS, dtype=torch.long, device=model.device),
        max_length=max_length,
        source=first["source"],
        cross=first["cross"],
        past=[tensor[:, :, :1].repeat(1, 1, TARGETS - 1, 1) for tensor in first["present"]],
    )
    exported = ExportedModel(components, exporter.export_format, model.config, model.generation_config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as fresh:
        exported.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        move_whole(Path(fresh), folder)


def move_whole(fresh: Path, folder: Path) -> None:
    """Moves the files of an export to where there may be a former one.

    `encoder.onnx`, without which a folder holds no model, goes first and comes last: no graphs of two exports mix.
    """
    (folder / "encoder.onnx").unlink(missing_ok=True)
    for former in folder.glob("*.onnx*"):
        former.unlink()
    for file in sorted(fresh.iterdir(), key=lambda file: file.name == "encoder.onnx"):
        file.replace(folder / file.name)
