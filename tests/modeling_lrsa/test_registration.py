"""What is registered, in processes of their own: here all is imported already."""

import subprocess
import sys

import pytest


USES = """
import transformers
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

config = AutoConfig.for_model("lrsa", text_config={"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9})
assert type(AutoModel.from_config(config)).__name__ == "LRSAForMABSA"
assert type(config) is modeling_lrsa.LRSAConfig
assert PROCESSOR_MAPPING[modeling_lrsa.LRSAConfig].__name__ == "LRSAProcessor"
assert PIPELINE_REGISTRY.check_task("mabsa")[1]["impl"].__name__ == "MABSAPipeline"
"""
FIRST = [
    "import modeling_lrsa",
    *(
        pytest.param(code, marks=pytest.mark.slow)
        for code in (
            "from transformers import pipeline; import modeling_lrsa",
            "from modeling_lrsa import LRSAForMABSA; import modeling_lrsa",
            "import modeling_lrsa; from transformers import BartModel",
            "import modeling_lrsa; from processing import MABSAPipeline, LRSAProcessor",
            "from processing import MABSAPipeline; import modeling_lrsa",
            "from transformers import Trainer; import modeling_lrsa; from modeling_lrsa import LRSATrainer",
        )
    ),
]


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("first", FIRST)
def test_classes_are_registered_whatever_is_imported_first(first):
    run(first + USES)


def test_importing_the_package_imports_no_models():
    heavy = run("import sys, modeling_lrsa; print(*({'transformers.modeling_utils', 'datasets'} & set(sys.modules)))")
    assert not heavy.strip()
