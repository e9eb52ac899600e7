import copy
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lrsa import soft_targets as module
from modeling_lrsa.frozen_states import collator_for
from modeling_lrsa.predictor import prepare_for_model
from modeling_lrsa.soft_targets import add_teachers, soft_targets
from modeling_lrsa.trainer import LRSATrainer, LRSATrainingArguments
from processing import PostError
from processing.posts import FEATURES


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))


def posts_of(tiny):
    return Dataset.from_list(tiny.raw_posts(), features=FEATURES)


# --- the distributions


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    smoothing=st.floats(0, 1),
    weight=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_formula(seed, smoothing, weight, dtype):
    torch.manual_seed(seed)
    possible = torch.rand(2, 3, 7) < 0.6
    possible[:, :, 2] = True
    lowest = torch.finfo(dtype).min
    # As accelerate hands on the logits of a model in half precision.
    logits = torch.randn(2, 3, 7).to(dtype).masked_fill(~possible, lowest).float()
    teacher = torch.rand(2, 3, 7).softmax(-1)
    labels = torch.tensor([[2, 2, -100], [2, -100, -100]])
    found = soft_targets(logits, labels, smoothing, teacher, weight)
    for row, step in np.ndindex(2, 3):
        among = [target for target in range(7) if possible[row, step, target]]
        mass = sum(teacher[row, step, target].item() for target in among)
        for target in range(7):
            want = 0.0
            if target in among and labels[row, step] != -100:
                label = (1 - smoothing) * (target == 2) + smoothing / len(among)
                want = (1 - weight) * label + weight * teacher[row, step, target].item() / mass
            assert found[row, step, target].item() == pytest.approx(want, abs=1e-6)
    plain = soft_targets(logits, labels)
    assert plain.sum().item() == 3 and (plain[0, :2, 2] == 1).all()


# --- the loss


def arguments(folder, **changes):
    fields = {"use_cpu": True, "disable_tqdm": True, "load_best_model_at_end": False, "warmup_steps": 0}
    fields |= dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "no")
    return LRSATrainingArguments(str(folder), **fields | {"train_sampling_strategy": "random"} | changes)


def trainer_of(tiny, model, folder, data=None, **changes):
    processor = tiny.processor(model)
    return LRSATrainer(
        model,
        arguments(folder, **changes),
        train_dataset=data or tiny.raw_posts(),
        eval_dataset=tiny.raw_posts(),
        data_collator=collator_for(model, processor),
        processing_class=processor,
    )


def batch_of(tiny, model):
    return dict(tiny.batch(tiny.mixed_posts(model), labels=True))


def without_dropout(model):
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    return model


def test_smoothed_loss(tiny, tmp_path):
    """Rows of different lengths: the share of smoothing goes to what each row's own columns allow."""
    model = without_dropout(tiny.model(image="regions", num_fusion_layers=1)).train()
    inputs = batch_of(tiny, model)
    trainer = trainer_of(tiny, model, tmp_path, label_smoothing_factor=0.2)
    loss = trainer.compute_loss(model, dict(inputs))
    with torch.no_grad():
        logits = model(**inputs).logits
    terms, widths = [], set()
    for row, labels in enumerate(inputs["labels"].tolist()):
        for step, label in enumerate(labels):
            if label != -100:
                scores = [score for score in logits[row, step].tolist() if score > -1e30]
                total = math.log(sum(map(math.exp, scores)))
                own = total - logits[row, step, label].item()
                terms.append(0.8 * own + 0.2 * sum(total - score for score in scores) / len(scores))
                widths.add(len(scores))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5) and len(widths) > 3
    sums = trainer.compute_loss(model, dict(inputs), num_items_in_batch=torch.tensor(10))
    assert sums.item() == pytest.approx(sum(terms) / 10, rel=1e-5)
    # An evaluation's loss is that of the labels, to be compared with others'.
    model.eval()
    assert torch.equal(trainer.compute_loss(model, dict(inputs)), model(**inputs).loss)


def test_the_loss_on_tags_stays(tiny, tmp_path):
    model = without_dropout(tiny.model(num_fusion_layers=0, tagging_weight=0.5)).train()
    inputs = batch_of(tiny, model)
    trainer = trainer_of(tiny, model, tmp_path, label_smoothing_factor=0.2)
    tags = model(**inputs).tagging_loss
    number = (inputs["labels"] != -100).sum()
    whole, half = (trainer.compute_loss(model, dict(inputs), num_items_in_batch=n) for n in (None, 2 * number))
    torch.testing.assert_close(2 * half, whole)
    model.tagger = None
    torch.testing.assert_close(whole, trainer.compute_loss(model, dict(inputs)) + tags)


def test_teacher_loss_has_the_gradient_of_labels_and_divergence(tiny, tmp_path):
    model = without_dropout(tiny.model(num_fusion_layers=0)).train()
    teacher = tiny.model(num_fusion_layers=1, seed=5)
    inputs, rationales = batch_of(tiny, model), batch_of(tiny, teacher)
    for name in ("input_ids", "attention_mask", "word_ids", "labels"):
        rationales[name] = inputs[name]
    with torch.no_grad():
        wanted = teacher(**rationales).logits
    trainer = trainer_of(tiny, model, tmp_path, distillation_weight=0.3)
    model.zero_grad()
    trainer.compute_loss(model, inputs | {"teacher_probabilities": wanted.softmax(-1)}).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    output = model(**inputs)
    asked = inputs["labels"] != -100
    divergence = torch.nn.functional.kl_div(
        output.logits[asked].log_softmax(-1), wanted[asked].log_softmax(-1), log_target=True, reduction="none"
    )
    divergence = torch.where(wanted[asked] > -1e30, divergence, 0).sum(-1).mean()
    (0.7 * output.loss + 0.3 * divergence).backward()
    assert len(found) > 50 and divergence > 0.05
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_a_loss_in_half_precision(tiny, tmp_path):
    model = tiny.model(num_fusion_layers=1).train()
    trainer = trainer_of(tiny, model, tmp_path, label_smoothing_factor=0.1, bf16=True, max_steps=2)
    assert 0 < trainer.train().training_loss < 20


@pytest.mark.parametrize("form", ["smoothed", "taught"])
def test_gradient_accumulation_equals_one_batch(tiny, tmp_path, monkeypatch, form):
    start = without_dropout(tiny.model(num_fusion_layers=0))
    teacher = tiny.model(num_fusion_layers=1, seed=5)
    processor, posts = tiny.processor(start), posts_of(tiny)
    data = prepare_for_model(start, processor, posts)
    more = {"label_smoothing_factor": 0.3}
    if form == "taught":
        loads(tiny, monkeypatch, teacher=teacher)
        data, more = add_teachers(data, posts, ["teacher"]), {}
    losses = {}
    for size, accumulated in ((8, 1), (2, 4)):
        trainer = trainer_of(
            tiny,
            copy.deepcopy(start),
            tmp_path,
            data,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_steps=3,
            optim="sgd",
            logging_steps=1,
            logging_strategy="steps",
            **dict.fromkeys(("learning_rate", "new_parts_learning_rate"), 0.1),
            **more,
        )
        trainer.train()
        losses[size] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[2] == pytest.approx(losses[8], abs=1e-5) and losses[8][-1] < losses[8][0]


@pytest.mark.parametrize("name", ["label_smoothing_factor", "distillation_weight"])
def test_shares_that_are_none(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}"):
        arguments(tmp_path, **{name: 1.5})


# --- teachers


def loads(tiny, monkeypatch, **models):
    """Lets names stand for models in place of folders."""
    monkeypatch.setattr(module, "load_model", lambda name: (models[name], tiny.processor(models[name])))


def test_teachers_read_what_they_were_trained_with(tiny, monkeypatch):
    """A column of bytes that makes a batch's probabilities: those of the teacher, rationales read, labels given."""
    student = tiny.model(num_fusion_layers=0)
    models = {"one": tiny.model(num_fusion_layers=1, seed=5), "two": tiny.model("roberta", seed=6)}
    processors = {name: tiny.processor(model) for name, model in models.items()}
    loads(tiny, monkeypatch, **models)
    posts, processor = posts_of(tiny), tiny.processor(student)
    data = prepare_for_model(student, processor, posts)
    batches = {}
    for names in (["one"], ["two"], ["one", "two"]):
        taught = add_teachers(data, posts, names)
        batches["+".join(names)] = collator_for(student, processor)([taught[index] for index in range(8)])
    plain = collator_for(models["one"], processors["one"])
    plain = plain(prepare_for_model(models["one"], processors["one"], posts).to_list())
    with torch.no_grad():
        want = models["one"](**plain).logits.softmax(-1)
    found = batches["one"]["teacher_probabilities"]
    asked = plain["labels"] != -100
    torch.testing.assert_close(found[asked], want[asked], atol=1e-5, rtol=0)
    assert not found[~asked].any() and torch.equal(batches["one"]["labels"], plain["labels"])
    both = (found + batches["two"]["teacher_probabilities"]) / 2
    torch.testing.assert_close(batches["one+two"]["teacher_probabilities"], both)
    assert (found - both).abs().max() > 0.05

    calls = []
    monkeypatch.setattr(models["one"], "forward", lambda **inputs: calls.append(1))
    again = [add_teachers(data, posts, ["one"])["teacher_probabilities"] for _ in range(2)]
    assert not calls, "computed once, read from disk after that"
    assert again[0] == again[1]
    assert module.weights_key(models["one"]) != module.weights_key(models["two"])


def test_a_teacher_of_other_columns(tiny, monkeypatch):
    student, teacher = tiny.model(num_fusion_layers=0), tiny.model(end_points_to="last")
    posts, processor = posts_of(tiny), tiny.processor(student)
    data = prepare_for_model(student, processor, posts)
    loads(tiny, monkeypatch, **{"runs/other": teacher})
    with pytest.raises(PostError, match="teacher: runs/other points at other columns than the student: take one with"):
        add_teachers(data, posts, ["runs/other"])
