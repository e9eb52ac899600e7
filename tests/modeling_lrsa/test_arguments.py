import datetime

import pytest

from modeling_lrsa.arguments import argument_parser, parse_arguments, wrong_argument


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("learning_rat", 1, "learning_rat is no argument; `lrsa train --help` lists them"),
        (2, "x", "2 is no argument; `lrsa train --help` lists them"),
        ("num_train_epochs", "two", "num_train_epochs: could not convert string to float: 'two'"),
        ("learning_rate", datetime.date(2024, 1, 1), "learning_rate: datetime.date(2024, 1, 1) is no number"),
        ("learning_rate", float("inf"), "learning_rate: inf is no number"),
        ("drop_inputs", True, "drop_inputs: True is no number"),
        ("num_fusion_layers", 1.5, "num_fusion_layers: 1.5 is no whole number"),
        ("seed", [1], "seed: a single value is expected"),
        ("bf16", [True], "bf16: a single value is expected"),
        ("freeze_embeddings", 3, "freeze_embeddings: 3 is neither true nor false"),
        ("text_model", {"a": 1}, "text_model: a single value is expected"),
        ("fusion_position", "sideways", "fusion_position: 'sideways' is none of before, inside, after, input"),
        ("rationales", "all", "rationales: 'all' is none of both, text, image, none"),
        ("on_bad_image", "ignore", "on_bad_image: 'ignore' is none of error, skip"),
        ("seed", None, None),
        ("seed", 1e3, None),
        ("learning_rate", "1e-4", None),
        ("fusion_position", "input", None),
        ("save_strategy", "no", None),
        ("teacher", ["a", "b"], None),
        ("teacher", "a", None),
        ("activation_checkpointing_kwargs", {"use_reentrant": True}, None),
        ("freeze_embeddings", "yes", None),
    ],
)
def test_what_is_wrong_with_an_argument(name, value, told):
    assert wrong_argument(argument_parser(), name, value) == told


def test_values_are_those_that_were_given():
    model, data, training = parse_arguments(
        {"fusion_position": "after", "rationales": "text", "learning_rate": "1e-5", "save_strategy": "no"}
        | {"load_best_model_at_end": False, "disable_tqdm": False, "use_cpu": True}
    )
    assert (model.fusion_position, data.rationales, training.learning_rate) == ("after", "text", 1e-5)
    assert training.save_strategy == "no" and not training.disable_tqdm
