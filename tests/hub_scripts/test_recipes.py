"""The recipes in `examples/recipes`: each is read as `lrsa train` reads it, and says what it is meant to."""

import math
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler
from transformers.trainer_utils import IntervalStrategy

from hub_scripts import commands
from hub_scripts.cli import main
from modeling_lrsa.model_to_train import build_model
from modeling_lrsa.trainer import LRSATrainer
from processing import compute_mabsa_metrics


RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
# Peak learning rate, seed, posts of the train split.
BASELINES = {
    "vlp_mabsa_twitter2015": (7e-5, 66, 2101),
    "vlp_mabsa_twitter2017": (7.5e-5, 66, 1746),
    "aom_twitter2015": (7.5e-5, 57, 2101),
    "aom_twitter2017": (7.5e-5, 28, 1746),
}


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Reads a recipe by `lrsa train` itself, which stops where training would begin."""

    def read(name, *flags):
        taken = []

        def keep(*arguments):
            taken.extend(arguments)
            return {"best_step": 0, "seed": 0, "validation": compute_mabsa_metrics([], [])}

        monkeypatch.setattr(commands, "run", keep)
        command = ["train", str(RECIPES / f"{name}.yaml"), "--output_dir", str(tmp_path), "--use_cpu", "true"]
        assert main([*command, *flags]) == 0
        return taken

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_read(name, read):
    model, data, training = read(name, "--data", "elsewhere")
    assert data.data == "elsewhere"
    assert training.load_best_model_at_end and training.metric_for_best_model == "jmasa_f1"
    assert model.model is None


def test_all_baselines_are_under_test():
    assert {name for name in NAMES if name.startswith(("vlp_mabsa", "aom"))} == set(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
def test_schedule_of_the_baselines(name, read):
    _, _, args = read(name)
    peak, seed, posts = BASELINES[name]
    assert (args.learning_rate, args.seed) == (peak, seed)
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.gradient_accumulation_steps) == (35, 16, 1)
    steps = 35 * math.ceil(posts / 16)
    assert steps == {2101: 4620, 1746: 3850}[posts]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    schedule = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for step, rate in enumerate(rates):
        share = step / steps
        theirs = peak * share / 0.1 if share < 0.1 else peak * (1 - share) / 0.9
        assert abs(rate - theirs) < 1.1e-3 * peak, step
    assert max(rates) == peak and rates.index(peak) == math.ceil(steps / 10)


@pytest.mark.parametrize("name", BASELINES)
def test_optimizer_and_selection_of_the_baselines(name, read):
    _, _, args = read(name)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon, args.weight_decay) == (0.9, 0.999, 1e-6, 0)
    assert args.max_grad_norm == 0 and args.label_smoothing_factor == 0
    assert args.train_sampling_strategy == "random" and not args.dataloader_drop_last
    assert args.generation_num_beams == 4 and args.predict_with_generate
    if name.startswith("aom"):
        assert (args.eval_strategy, args.eval_steps, args.eval_delay) == (IntervalStrategy.STEPS, 50, 100)
    else:
        assert args.eval_strategy == IntervalStrategy.EPOCH


@pytest.mark.parametrize("name", BASELINES)
def test_form_of_the_baselines(name, read, text_folder):
    arguments, _, args = read(name, "--text_model", str(text_folder))
    assert arguments.vision_model == "microsoft/resnet-152"
    arguments.vision_model = None
    model, _ = build_model(arguments)
    aom = name.startswith("aom")
    config = model.config
    assert (config.num_fusion_layers, config.decoder_pointer_input) == (0, "embeddings")
    assert (config.aspect_attention, config.num_graph_layers, config.pad_nouns_in_softmax) == (aom, 2 * aom, False)
    groups = LRSATrainer(model=model, args=args, train_dataset=[], eval_dataset=[]).parameter_groups(model)
    assert {group["lr"] for group in groups} == {args.learning_rate}
    assert {group["weight_decay"] for group in groups} == {0}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == trained


def test_the_final_scores_are_of_the_beams_that_select(text_folder, posts_folder, tmp_path, monkeypatch):
    from modeling_lrsa import training

    beams, evaluate = [], training.evaluate

    def spy(model, processor, posts, batch_size, num_beams, **kwargs):
        beams.append(num_beams)
        return evaluate(model, processor, posts, batch_size, num_beams, **kwargs)

    monkeypatch.setattr(training, "evaluate", spy)
    options = {"text_model": text_folder, "data": posts_folder, "num_train_epochs": 1, "decoder_layers": 1}
    options |= {"num_fusion_layers": 0}
    command = ["train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    for flags in ([], ["--generation_num_beams", "3"]):
        assert main([*command, "--output_dir", str(tmp_path / "out"), *flags]) == 0
    assert beams == [1, 3]
