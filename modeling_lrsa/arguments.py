"""Arguments of `lrsa train`, given by name in a recipe or a suite."""

import math
from typing import Any, get_type_hints

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from .model_to_train import ModelArguments
from .trainer import LRSATrainingArguments
from .training_posts import DataArguments


Arguments = tuple[ModelArguments, DataArguments, LRSATrainingArguments]
GROUPS = (ModelArguments, DataArguments, LRSATrainingArguments)
# Those that may be a mapping; the parser takes them for texts.
MAPPINGS = {name for group in GROUPS for name, hint in get_type_hints(group).items() if "dict" in str(hint)}


def argument_parser(**settings) -> HfArgumentParser:
    """Returns the parser of `lrsa train`; `settings` are those of `ArgumentParser`."""
    return HfArgumentParser(GROUPS, **settings)


def parse_arguments(arguments: dict[str, Any]) -> Arguments:
    """Reads arguments as `lrsa train` reads those of a recipe."""
    parser = argument_parser()
    parser.set_defaults(**{"disable_tqdm": True} | arguments)
    return parser.parse_args_into_dataclasses([], look_for_args_file=False)


def wrong_argument(parser: HfArgumentParser, name: Any, value: Any) -> str | None:
    """Returns what is wrong with an argument and its value, as far as the parser tells."""
    action = next((action for action in parser._actions if action.dest == name), None)
    if action is None:
        return f"{name} is no argument; `lrsa train --help` lists them"
    problem = None if value is None else _wrong_value(action, value)
    return problem and f"{name}: {problem}"


def _wrong_value(action, value: Any) -> str | None:
    if isinstance(value, dict) and action.dest not in MAPPINGS or isinstance(value, list) and action.nargs != "+":
        return "a single value is expected"
    if isinstance(value, str) and callable(action.type):
        try:
            action.type(value)
        except Exception as error:  # argparse takes any of these for a wrong value
            return " ".join(str(error).split()).rstrip(".")
    elif action.type is string_to_bool and not isinstance(value, bool):
        return f"{value!r} is neither true nor false"
    elif action.type in (int, float) and action.nargs is None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{value!r} is no number"
        if action.type is int and value != int(value):
            return f"{value!r} is no whole number"
    if action.choices is not None and value not in action.choices:
        return f"{value!r} is none of {', '.join(map(str, action.choices))}"
    return None
