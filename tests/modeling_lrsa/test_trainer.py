import copy
import json
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction, Seq2SeqTrainingArguments

from modeling_lrsa.frozen_states import add_frozen_states, collator_for
from modeling_lrsa.trainer import (
    LengthGroups,
    LRSATrainer,
    LRSATrainingArguments,
    SequenceMetrics,
    gates,
)
from processing import IndexFormat, compute_mabsa_metrics
from processing.posts import FEATURES
from processing.preparation import prepare_posts


def arguments(folder, **changes):
    fields = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "disable_tqdm": True,
        "report_to": "none",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "load_best_model_at_end": False,
        "train_sampling_strategy": "random",
        "predict_with_generate": False,
        "warmup_steps": 0,
        "seed": 0,
    }
    return LRSATrainingArguments(**fields | changes)


def test_one_process_keeps_to_one_gpu(tmp_path, monkeypatch, caplog):
    """Copies of a model in one process would share the hooks by which fusion stands in the encoder."""
    monkeypatch.setattr(LRSATrainingArguments, "n_gpu", property(lambda args: 4))
    assert arguments(tmp_path)._n_gpu == 1
    assert "One of 4 GPUs is used; `accelerate launch` uses all." in caplog.text


def test_inputs_are_dropped_where_workers_hear_of_epochs(tmp_path):
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    assert arguments(tmp_path, **workers).drop_inputs == 0
    with pytest.raises(ValueError, match="drop_inputs draws anew in each epoch.*leave out dataloader_persistent"):
        arguments(tmp_path, drop_inputs=0.3, **workers)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without accelerator")
def test_bfloat16_on_a_cpu_need_not_be_told_twice(tmp_path):
    args = arguments(tmp_path, bf16=True, use_cpu=False)
    assert args.use_cpu and args.device.type == "cpu"
    assert not arguments(tmp_path, use_cpu=False).use_cpu


def trainer_of(tiny, model, folder, data=None, **changes):
    processor = tiny.processor(model)
    return LRSATrainer(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=data or tiny.raw_posts(),
        eval_dataset=tiny.raw_posts(),
        data_collator=collator_for(model, processor),
        processing_class=processor,
    )


RATES = {
    "learning_rate": 1e-3,
    "new_parts_learning_rate": 2e-3,
    "fusion_learning_rate": 3e-3,
    "gate_learning_rate": 4e-3,
}


def rate_of(name, text):
    """By the parts of a model, in words of its own."""
    if name.endswith(".gate"):
        return 4e-3
    if name.startswith("model.encoder.fusion."):
        return 3e-3
    if name.startswith(("model.encoder.text_model.", "model.encoder.vision_model.")):
        return 1e-3
    return 1e-3 if text == "bart" and name.startswith("model.decoder.") else 2e-3


@pytest.mark.parametrize("text", ["bert", "bart"])
@pytest.mark.parametrize("freeze_vision", [True, False])
def test_parameter_groups(tiny, tmp_path, text, freeze_vision):
    model = tiny.model(text, "vit", num_fusion_layers=2, freeze_vision=freeze_vision, image_rationale_reader="queries")
    trainer = trainer_of(tiny, model, tmp_path, weight_decay=0.1, **RATES)
    groups = trainer.parameter_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [names[id(parameter)] for group in groups for parameter in group["params"]]
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert any(name.startswith("model.encoder.vision_model.") for name in grouped) is not freeze_vision
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == rate_of(name, text), name
            norm = "norm" in name.lower() and "rmalization" not in name.lower()
            if name.endswith(".bias") or norm:
                assert group["weight_decay"] == 0.0, name
            elif name.endswith("_proj.weight"):
                assert group["weight_decay"] == 0.1, name
    assert {group["lr"] for group in trainer.create_optimizer().param_groups} == {1e-3, 2e-3, 3e-3, 4e-3}


def test_arguments_of_transformers_give_one_rate(tiny, tmp_path):
    model = tiny.model(num_fusion_layers=1)
    trainer = trainer_of(tiny, model, tmp_path)
    trainer.args = Seq2SeqTrainingArguments(str(tmp_path), learning_rate=1e-3, use_cpu=True)
    assert {group["lr"] for group in trainer.parameter_groups(model)} == {1e-3}


@pytest.mark.parametrize("name", sorted(RATES))
def test_a_rate_of_zero(tiny, tmp_path, name):
    model = tiny.model(num_fusion_layers=1)
    groups = trainer_of(tiny, model, tmp_path, **RATES | {name: 0.0}).parameter_groups(model)
    assert {group["lr"] for group in groups} == {0.0, *(rate for other, rate in RATES.items() if other != name)}


def test_gates(tiny):
    model = tiny.model(image="regions", num_fusion_layers=1, gates=False)
    assert gates(model) == {"model.encoder.fusion.0.image": 0.0, "model.encoder.fusion.0.text": 0.0}
    model.get_encoder().fusion[0].text.gate.data.fill_(-0.375)
    assert gates(model)["model.encoder.fusion.0.text"] == pytest.approx(0.375)


@pytest.mark.parametrize("text", ["bert", "bart"])
def test_ids_of_the_tokenizer_stay_out(tiny, tmp_path, text):
    """Trainer writes the tokenizer's ids into model.config.get_text_config() and into the generation config."""
    model = tiny.model(text, num_fusion_layers=1)
    inputs = tiny.batch(tiny.mixed_posts(model))
    want = model.generate(**inputs, max_new_tokens=10)
    trainer = trainer_of(tiny, model, tmp_path, max_steps=1, predict_with_generate=True, **dict.fromkeys(RATES, 0.0))
    assert (trainer.processing_class.tokenizer.bos_token_id, trainer.processing_class.tokenizer.eos_token_id) == (2, 3)
    trainer.train()
    model.eval()
    config = model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 1, 1)
    assert torch.equal(model.generate(**inputs, max_new_tokens=10), want)
    predictions = trainer.predict(tiny.raw_posts()).predictions
    assert set(predictions[:, 0]) == {0} and all(1 in row for row in predictions.tolist())
    trainer.save_model(str(tmp_path / "model"))
    saved = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert (saved["bos_token_id"], saved["eos_token_id"], saved["pad_token_id"]) == (0, 1, 1)


def test_longest_text_outlives_training(tiny, tmp_path):
    """RoBERTa counts positions from its padding index, which stands where Trainer writes the tokenizer's."""
    model = tiny.model("roberta", num_fusion_layers=1, text_changes={"pad_token_id": 0})
    trainer = trainer_of(tiny, model, tmp_path, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = type(model).from_pretrained(tmp_path / "model")
    assert model.config.max_text_length == loaded.config.max_text_length == tiny.POSITIONS - 1
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model.eval()(**inputs).logits)


def test_resumed_training_equals_uninterrupted(tiny, tmp_path):
    start = tiny.model(num_fusion_layers=1)
    steps = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "save_total_limit": None} | RATES
    whole = copy.deepcopy(start)
    trainer_of(tiny, whole, tmp_path / "whole", **steps).train()
    again = copy.deepcopy(start)
    trainer = trainer_of(tiny, again, tmp_path / "again", **steps)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert trainer.state.global_step == 6
    moved = 0
    for (name, one), two, first in zip(whole.named_parameters(), again.parameters(), start.parameters()):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0, msg=name)
        moved += not torch.equal(one, first)
        if not one.requires_grad:
            assert torch.equal(one, first), name
    assert moved > 50


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def losses_of(tiny, model, folder, data=None, resume=None, **changes):
    trainer = trainer_of(tiny, model, folder, data, logging_strategy="steps", logging_steps=1, **changes)
    trainer.train(resume_from_checkpoint=resume)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_gradient_accumulation_equals_one_batch(tiny, tmp_path):
    start = without_dropout(tiny.model("bart", num_fusion_layers=1))
    trained, losses, rates = [], [], dict.fromkeys(RATES, 0.1)
    for size, accumulated in ((8, 1), (4, 2), (2, 4)):
        model = copy.deepcopy(start)
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        losses.append(losses_of(tiny, model, tmp_path, max_steps=3, optim="sgd", **rates, **sizes))
        trained.append(model)
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[2] == pytest.approx(losses[0], abs=1e-5)
    for (name, one), *others in zip(trained[0].named_parameters(), *(model.parameters() for model in trained[1:])):
        for other in others:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("text, encoder", [("bert", "frozen"), ("bart", "shared")])
def test_gradient_checkpointing_changes_no_loss(tiny, tmp_path, text, encoder, reentrant):
    start = without_dropout(tiny.model(text, num_fusion_layers=2, rationale_encoder=encoder))
    steps = {"max_steps": 4, "optim": "sgd", **dict.fromkeys(RATES, 0.1)}
    plain = losses_of(tiny, copy.deepcopy(start), tmp_path, **steps)
    kwargs = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    assert losses_of(tiny, start, tmp_path, **steps, **kwargs) == pytest.approx(plain, abs=1e-5)
    assert plain[-1] < plain[0] - 0.1


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_resumed_amid_an_epoch_losses_and_weights_are_those_of_the_uninterrupted(
    tiny, tmp_path, monkeypatch, strategy
):
    """Eight posts in batches of two: steps 2 and 6 lie amid an epoch, whose order must be the same again."""
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    start = tiny.model(num_fusion_layers=1)
    data = prepare_posts(Dataset.from_list(tiny.raw_posts(), features=FEATURES), tiny.processor(start))
    steps = {"max_steps": 8, "per_device_train_batch_size": 2, "train_sampling_strategy": strategy}
    steps |= {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    trained = copy.deepcopy(start)
    whole = losses_of(tiny, trained, tmp_path, data, **steps)
    for step in (2, 4, 6):
        model, checkpoint = copy.deepcopy(start), str(tmp_path / f"checkpoint-{step}")
        again = losses_of(tiny, model, tmp_path / "again", data, checkpoint, **steps)
        assert again == pytest.approx(whole, abs=1e-6)
        for (name, one), two in zip(trained.named_parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("text", ["bert", "bart"])
def test_evaluation_encodes_a_batch_once(tiny, tmp_path, text):
    """Both for the loss and for generation, with the figures of encoding it for each."""
    model = tiny.model(text, "vit", num_fusion_layers=1)
    trainer = trainer_of(tiny, model, tmp_path, predict_with_generate=True)
    rows = tiny.raw_posts()
    losses, sequences = [], []
    with torch.no_grad():
        for start in range(0, len(rows), 4):
            batch = trainer.data_collator(rows[start : start + 4])
            losses.append(model.eval()(**batch).loss.item())
            sequences += model.generate(**{k: v for k, v in batch.items() if k != "labels"}).tolist()
    calls = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    found = trainer.predict(rows)
    assert len(calls) == len(losses) == 2
    assert found.metrics["test_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    kept = model.config.eos_token_id
    for row, expected in zip(found.predictions.tolist(), sequences, strict=True):
        assert [x for x in row if x not in (kept, -100)] == [x for x in expected if x != kept]


def test_padding_is_reported(tiny, tmp_path, monkeypatch):
    def of_another_device(tensor, *args):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    changes = {"per_device_train_batch_size": 8, "logging_strategy": "epoch", "num_train_epochs": 2}
    trainer = trainer_of(tiny, tiny.model(), tmp_path, **changes)
    (batch,) = trainer.get_train_dataloader()
    masks = [batch[f"{name}attention_mask"].double() for name in ("", "image_rationale_", "text_rationale_")]
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "__array__", of_another_device)
        trainer.train()
    share = 1 - sum(mask.sum() for mask in masks) / sum(mask.numel() for mask in masks)
    logged = [entry["padding"] for entry in trainer.state.log_history if "padding" in entry]
    assert logged == [round(share.item(), 4)] * 2 and 0.2 < share < 0.8


def test_groups_of_length_follow_from_seed_and_epoch():
    lengths = [random.Random(0).randint(3, 40) for _ in range(64)]
    orders = {}
    for seed in (0, 0, 5):
        sampler = LengthGroups(4, lengths, seed)
        for epoch in (0, 1):
            torch.rand(seed + 1)  # what others draw is of no account
            sampler.set_epoch(epoch)
            order = list(sampler)
            assert sorted(order) == list(range(64))
            assert orders.setdefault((seed, epoch), order) == order
    assert len({tuple(order) for order in orders.values()}) == 4


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "posts"])
def test_defaults_select_the_best_epoch(tiny, tmp_path, monkeypatch, prepared):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    model = tiny.model(num_fusion_layers=1, gates=False)
    processor = tiny.processor(model)
    data = Dataset.from_list(tiny.raw_posts(), features=FEATURES)
    if prepared:
        data = add_frozen_states(prepare_posts(data, processor), model, processor)
    args = LRSATrainingArguments(str(tmp_path / "out"), use_cpu=True, num_train_epochs=3, disable_tqdm=True)
    trainer = LRSATrainer(
        model=model,
        args=args,
        train_dataset=data,
        eval_dataset=data,
        data_collator=collator_for(model, processor),
        processing_class=processor,
    )
    trainer.train()
    curve = [entry["eval_jmasa_f1"] for entry in trainer.state.log_history if "eval_jmasa_f1" in entry]
    assert len(curve) == 3 and trainer.state.best_metric == max(curve)
    assert trainer.evaluate()["eval_jmasa_f1"] == pytest.approx(max(curve))
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert losses[2] < losses[0]


def random_aspects(rng, words):
    aspects, start = [], rng.randint(0, 2)
    while start < words:
        end = min(words, start + rng.randint(1, 2))
        aspects.append({"start": start, "end": end, "polarity": rng.choice(["positive", "neutral", "negative"])})
        start = end + rng.randint(0, 2)
    return aspects


@pytest.mark.parametrize("end_points_to", ["first", "last"])
def test_sequence_metrics(tiny, end_points_to):
    config = tiny.config(end_points_to=end_points_to)
    layout = IndexFormat(config.num_special_targets, config.id2label, config.pointer_offset, config.end_points_to)
    for seed in range(20):
        rng = random.Random(seed)
        gold, found, rows = [], [], {"gold": [], "found": []}
        for _ in range(12):
            words = rng.randint(1, 7)
            word_ids = [-1] + [word for word in range(words) for _ in range(rng.randint(1, 3))] + [-1]
            gold.append(random_aspects(rng, words))
            found.append([dict(a) for a in gold[-1]] if rng.random() < 0.5 else random_aspects(rng, words))
            for aspect in found[-1]:
                if rng.random() < 0.3:
                    aspect["polarity"] = "neutral"
            for name, aspects in (("gold", gold[-1]), ("found", found[-1])):
                spans = [(a["start"], a["end"], a["polarity"]) for a in aspects]
                rows[name].append(layout.encode(spans, word_ids))
        width = max(len(row) for row in rows["gold"] + rows["found"]) + 1
        labels = np.array([row + [-100] * (width - len(row)) for row in rows["gold"]])
        # Generated: the prefix in front, EOS behind, and what Trainer pads batches with.
        sequences = [[0, *row] + [1] * (width - len(row) - seed % 2) for row in rows["found"]]
        sequences = np.array([row + [-100] * (width + 1 - len(row)) for row in sequences])
        metrics = SequenceMetrics(config)(EvalPrediction(predictions=sequences, label_ids=labels))
        assert metrics == pytest.approx(compute_mabsa_metrics(found, gold))


def test_sequence_metrics_of_nothing(tiny):
    empty = np.array([[0, 1], [0, 1]])
    metrics = SequenceMetrics(tiny.config())(EvalPrediction(predictions=empty, label_ids=empty[:, 1:]))
    assert metrics["jmasa_f1"] == 0.0


@pytest.mark.parametrize("text, layers", [("bert", 0), ("bert", 1), ("bart", 1)])
def test_eight_posts_are_learnt(tiny, tmp_path, text, layers):
    model = tiny.model(text, num_fusion_layers=layers, gates=False)
    posts = tiny.raw_posts()
    if not layers:
        posts = [row | {"image_rationale": None, "text_rationale": None} for row in posts]
    trainer = trainer_of(
        tiny,
        model,
        tmp_path,
        num_train_epochs=60,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        new_parts_learning_rate=3e-3,
        fusion_learning_rate=3e-3,
        gate_learning_rate=3e-3,
        lr_scheduler_type="constant",
        predict_with_generate=True,
    )
    trainer.train_dataset = trainer.eval_dataset = posts
    assert trainer.evaluate()["eval_jmasa_f1"] < 60
    trainer.train()
    scores = trainer.evaluate()
    assert scores["eval_jmasa_f1"] == scores["eval_mate_f1"] == scores["eval_masc_accuracy"] == 100.0
    processor = tiny.processor(model)
    inputs = processor(
        text=[row["text"] for row in posts],
        image_rationales=[row["image_rationale"] for row in posts],
        text_rationales=[row["text_rationale"] for row in posts],
        return_tensors="pt",
    )
    found = processor.post_process_mabsa(model.eval().generate(**inputs), inputs)
    kept = [[{name: a[name] for name in ("start", "end", "polarity")} for a in aspects] for aspects in found]
    assert kept == [row["aspects"] for row in posts]
