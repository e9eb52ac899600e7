"""LRSA for transformers: models. Importing registers them, and the processor, with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from processing import LRSAProcessor, MABSAPipeline

from .configuration_lrsa import LRSAConfig
from .modeling_lrsa import LRSAForMABSA, LRSAModel
from .pretrained_lrsa import LRSAPreTrainedModel


AutoConfig.register("lrsa", LRSAConfig, exist_ok=True)
AutoModel.register(LRSAConfig, LRSAForMABSA, exist_ok=True)
AutoProcessor.register(LRSAConfig, LRSAProcessor, exist_ok=True)
if "mabsa" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline("mabsa", pipeline_class=MABSAPipeline, pt_model=AutoModel)

__all__ = ["LRSAConfig", "LRSAForMABSA", "LRSAModel", "LRSAPreTrainedModel", "LRSATrainer"]


def __getattr__(name):
    if name == "LRSATrainer":
        from .trainer import LRSATrainer

        return LRSATrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
