"""Registers the classes with transformers, and imports none before it is asked for: what they need takes seconds."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder


def register_config() -> None:
    from transformers import AutoConfig

    from .configuration_lrsa import LRSAConfig

    AutoConfig.register("lrsa", LRSAConfig, exist_ok=True)


def register_model() -> None:
    from transformers.models.auto.modeling_auto import AutoModel

    from .configuration_lrsa import LRSAConfig

    class AsModel(type):
        def __getattr__(cls, name):
            from .modeling_lrsa import LRSAForMABSA

            return getattr(LRSAForMABSA, name)

    class Model(metaclass=AsModel):
        """Stands for `LRSAForMABSA`."""

        config_class = LRSAConfig

    AutoModel.register(LRSAConfig, Model, exist_ok=True)


def register_processor() -> None:
    from transformers.models.auto.processing_auto import AutoProcessor

    from processing import LRSAProcessor

    from .configuration_lrsa import LRSAConfig

    AutoProcessor.register(LRSAConfig, LRSAProcessor, exist_ok=True)


def register_pipeline() -> None:
    from transformers.pipelines import PIPELINE_REGISTRY, AutoModel

    from processing import MABSAPipeline

    if "mabsa" not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline("mabsa", pipeline_class=MABSAPipeline, pt_model=AutoModel)


class AfterImport(MetaPathFinder):
    """Calls a function right after the import of a module.

    Args:
        functions: by the module's name.
    """

    def __init__(self, functions: dict[str, Callable[[], None]]):
        self.functions = functions

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in self.functions else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def then_call(module) -> None:
            execute(module)
            if function := self.functions.pop(fullname, None):  # not before: a spec may be asked for alone
                function()

        spec.loader.exec_module = then_call
        return spec


def register() -> None:
    """Registers the configuration now, all else after what it stands beside in transformers."""
    register_config()
    functions = {
        "transformers.models.auto.modeling_auto": register_model,
        "transformers.models.auto.processing_auto": lambda: import_module("processing.processing_lrsa"),
        "processing.processing_lrsa": register_processor,
        "transformers.pipelines": lambda: import_module("processing.pipeline_lrsa"),
        "processing.pipeline_lrsa": register_pipeline,
    }
    sys.meta_path.insert(0, AfterImport(functions))
    for name in [name for name in functions if name in sys.modules]:
        functions.pop(name)()
