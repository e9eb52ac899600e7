"""Arguments of `lrsa train`, given by name."""

from typing import Any

from transformers import HfArgumentParser

from modeling_lrsa.model_to_train import ModelArguments
from modeling_lrsa.trainer import LRSATrainingArguments
from modeling_lrsa.training_posts import DataArguments


Arguments = tuple[ModelArguments, DataArguments, LRSATrainingArguments]


def argument_parser() -> HfArgumentParser:
    """Returns the parser of `lrsa train`."""
    return HfArgumentParser((ModelArguments, DataArguments, LRSATrainingArguments))


def parse_arguments(arguments: dict[str, Any]) -> Arguments:
    """Reads arguments as `lrsa train` reads those of a recipe."""
    parser = argument_parser()
    parser.set_defaults(disable_tqdm=True, **arguments)
    return parser.parse_args_into_dataclasses([], look_for_args_file=False)
