"""Loads a trained model with its processor."""

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from processing import LRSAProcessor, PostError

from .adapters import load_merged
from .modeling_lrsa import LRSAForMABSA


def load_model(name: str) -> tuple[LRSAForMABSA, LRSAProcessor]:
    """Loads a trained model, or an adapter merged into its base, and the processor from one folder or repository."""
    try:
        model, processor = load_merged(name), LRSAProcessor.from_pretrained(name)
        processor.check_fits(model.config)
        return model, processor
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        told = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise PostError(f"{name}: no LRSA model with its processor: {told}") from error
