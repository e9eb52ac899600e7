import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModel, ModernBertConfig

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.adapters import (
    count_parameters,
    freeze_backbone,
    load_adapter,
    load_merged,
    lora_config,
    new_parts,
    save_adapter,
)
from modeling_lrsa.trainer import LRSATrainer, LRSATrainingArguments
from processing import DataCollatorForMABSA


KINDS = ("bert", "roberta", "mpnet", "distilbert", "electra", "bart")

# The linear layers of each of the two layers of the tiny text models; BART's decoder has three.
SELF = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
BERT = (*SELF, "attention.output.dense", "intermediate.dense", "output.dense")
MPNET = (*(f"attention.attn.{name}" for name in "qkvo"), "intermediate.dense", "output.dense")
DISTILBERT = (*(f"attention.{name}_lin" for name in ("q", "k", "v", "out")), "ffn.lin1", "ffn.lin2")
BART = (*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")), "fc1", "fc2")
TARGETS = {
    kind: {f"model.encoder.text_model.{place}.{layer}.{name}" for layer in range(2) for name in names}
    for kind, place, names in (
        ("bert", "encoder.layer", BERT),
        ("roberta", "encoder.layer", BERT),
        ("electra", "encoder.layer", BERT),
        ("mpnet", "encoder.layer", MPNET),
        ("distilbert", "transformer.layer", DISTILBERT),
        ("bart", "layers", BART),
    )
}
CROSS = tuple(name.replace("self_attn", "encoder_attn") for name in BART[:4])
TARGETS["bart"] |= {f"model.decoder.layers.{layer}.{name}" for layer in range(3) for name in (*BART, *CROSS)}

LINEAR, NORM, RANK = 32 * 32 + 32, 2 * 32, 4
# Adapters of a layer: four projections of an attention, and two linear layers of 32 by 40.
LORA_ATTENTION, LORA_FEED_FORWARD = 4 * RANK * (32 + 32), 2 * RANK * (32 + 40)
LORA = dict.fromkeys(KINDS, 2 * (LORA_ATTENTION + LORA_FEED_FORWARD))
LORA["bart"] += 3 * (2 * LORA_ATTENTION + LORA_FEED_FORWARD)
ATTENTION = 4 * LINEAR
FUSION_STREAM = 2 * ATTENTION + 2 * NORM + 1


def fresh_decoder(feed_forward):
    layer = 2 * ATTENTION + 3 * NORM + (32 * feed_forward + feed_forward) + (feed_forward * 32 + 32)
    return 3 * layer + (256 + 2) * 32 + NORM


# DistilBERT's configuration has no intermediate_size: the fresh decoder takes four times the width.
DECODER = dict.fromkeys(KINDS, fresh_decoder(40)) | {"distilbert": fresh_decoder(4 * 32), "bart": 0}
TARGET_EMBEDDINGS, POINTER_HEAD = 5 * 32, 2 * LINEAR


def numbers(model):
    return sum(parameter.numel() for parameter in model.parameters())


def adapted(model, **options):
    return get_peft_model(model, lora_config(model, **{"r": RANK} | options))


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def shaken(model, seed=0):
    """As after training: every trained parameter is somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def parts(tiny, tmp_path_factory):
    """Folders of pre-trained text models and of a vision model."""
    folder = tmp_path_factory.mktemp("parts")
    for kind in KINDS:
        torch.manual_seed(1)
        AutoModel.from_config(tiny.text_config(kind)).save_pretrained(folder / kind)
    AutoModel.from_config(tiny.image_side("vit")["vision_config"]).save_pretrained(folder / "vit")
    return folder


def built(tiny, parts, kind="bert", vision=None, seed=0, **config):
    torch.manual_seed(seed)
    vision = vision and str(parts / vision)
    return tiny.open_gates(LRSAForMABSA.from_text_vision_pretrained(str(parts / kind), vision, **config))


def logits(tiny, model, seed=3):
    with torch.no_grad():
        return model.eval()(**tiny.batch(tiny.mixed_posts(model, seed), labels=True)).logits


def difference(tiny, one, other):
    return (logits(tiny, one) - other).abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_to_the_number(tiny, kind):
    model = tiny.model(kind, num_fusion_layers=2)
    size = numbers(model)
    peft_model = adapted(model)
    places = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert places == TARGETS[kind]
    new = 2 * FUSION_STREAM + TARGET_EMBEDDINGS + POINTER_HEAD + DECODER[kind]
    assert count_parameters(peft_model) == (new + LORA[kind], size + LORA[kind])
    assert peft_model.peft_config["default"].lora_alpha == 2 * RANK


def test_defaults(tiny):
    config = lora_config(tiny.model())
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.05)


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_new_parts(tiny, kind):
    model = tiny.model(kind, "vit", num_fusion_layers=1, image_rationale_reader="queries")
    want = ["model.encoder.image_projection", "model.encoder.rationale_queries", "model.encoder.fusion.0"]
    want += ["model.target_embeddings", "pointer_head"] + ["model.decoder"] * (kind == "bert")
    assert sorted(new_parts(model)) == sorted(want)
    size = numbers(model)
    peft_model = adapted(model)
    new = (24 * 32 + 32) + 3 * 32 + 2 * FUSION_STREAM + TARGET_EMBEDDINGS + POINTER_HEAD + DECODER[kind]
    assert count_parameters(peft_model) == (new + LORA[kind], size + LORA[kind])


def test_a_new_bare_parameter_is_not_left_out_silently(tiny):
    model = tiny.model(num_fusion_layers=1)
    model.model.encoder.extra = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="model.encoder holds extra beside pre-trained parts"):
        lora_config(model)


def test_a_text_model_with_names_of_its_own(tiny):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    text = ModernBertConfig(vocab_size=60, max_position_embeddings=40, pad_token_id=0, **sizes)
    model = LRSAForMABSA(type(tiny.config())(text_config=text, num_fusion_layers=0))
    with pytest.raises(ValueError, match=r"of ModernBertModel\. Targets \(--lora_targets\) can be: Wi, Wo, Wqkv\."):
        lora_config(model, targets=["Wqkv", "query"])
    adapted(model)
    places = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    names = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    assert places == {f"model.encoder.text_model.layers.{layer}.{name}" for layer in range(2) for name in names}


def test_a_text_model_without_linear_layers_is_refused(tiny):
    model = tiny.model(text_changes={"num_hidden_layers": 0}, num_fusion_layers=0)
    with pytest.raises(ValueError, match="of BertModel.* none, as there are none"):
        lora_config(model)


@pytest.mark.parametrize(("kind", "name", "places"), [("bert", "dense", 2 * 3), ("bart", "fc1", 2 + 3)])
def test_targets_are_sought_in_layers_alone(tiny, kind, name, places):
    """BERT's pooler has a layer `dense` too, which nothing reads."""
    model = tiny.model(kind, num_fusion_layers=1)
    adapted(model, targets=[name])
    found = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert len(found) == places and not any("pooler" in name for name in found)


def test_a_trained_vision_model_is_refused(tiny):
    with pytest.raises(ValueError, match="freeze_vision=True"):
        lora_config(tiny.model(image="vit", freeze_vision=False))


def train(tiny, model, folder, base, **changes):
    """Trains and returns the training loss before and after."""
    processor = tiny.processor(base)
    fields = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 12,
        "lora_learning_rate": 3e-3,
        "new_parts_learning_rate": 3e-3,
        "fusion_learning_rate": 3e-3,
        "warmup_steps": 0,
        "disable_tqdm": True,
        "report_to": "none",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "load_best_model_at_end": False,
        "train_sampling_strategy": "random",
        "predict_with_generate": False,
        "seed": 0,
    }
    trainer = LRSATrainer(
        model=model,
        args=LRSATrainingArguments(**fields | changes),
        train_dataset=tiny.raw_posts(),
        eval_dataset=tiny.raw_posts(),
        data_collator=DataCollatorForMABSA(processor),
        processing_class=processor,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    return trainer, before, trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize("position", ["before", "inside", "after"])
@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_the_trained_copies_are_those_that_are_used(tiny, kind, position):
    """LoRA starts at nothing, so new parts get the gradients that they get without it."""
    fields = {"num_fusion_layers": 2, "fusion_position": position, "image_rationale_reader": "queries"}
    model, other = (tiny.model(kind, "vit", **fields) for _ in range(2))
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    model(**inputs).loss.backward()
    peft_model = adapted(other)
    peft_model.eval()(**inputs).loss.backward()
    gradients = {name: parameter.grad for name, parameter in other.named_parameters() if parameter.requires_grad}
    new = tuple(new_parts(model))
    wanted = {name: parameter.grad for name, parameter in model.named_parameters() if name.startswith(new)}
    found = {name.replace("modules_to_save.default.", ""): gradient for name, gradient in gradients.items()}
    assert wanted.keys() == {name for name in found if ".lora_" not in name}
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() < 1e-6, name
    for name, gradient in found.items():
        # The second matrix is zero at first, and so is the gradient of the first.
        assert gradient.abs().max() > 0 or ".lora_A." in name or name.endswith("k_proj.bias"), name


def test_gradient_checkpointing_gives_the_same_gradients(tiny):
    model = tiny.model(num_fusion_layers=1)
    peft_model = shaken(adapted(model, dropout=0.0))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    model.config.text_config.attention_probs_dropout_prob = 0.0
    inputs = tiny.batch(tiny.mixed_posts(model), labels=True)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        peft_model.train()
        peft_model.zero_grad()
        peft_model(**inputs).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, atol=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_training_changes_adapters_and_new_parts_alone(tiny, tmp_path, kind):
    model = tiny.model(kind, num_fusion_layers=1)
    peft_model = adapted(model)
    start = snapshot(peft_model)
    trainable = {name for name, parameter in peft_model.named_parameters() if parameter.requires_grad}
    _, before, after = train(tiny, peft_model, tmp_path, model, num_train_epochs=20)
    assert changed(peft_model, start) == trainable
    assert after < before - 0.9


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_a_frozen_backbone_stays(tiny, tmp_path, kind):
    model = tiny.model(kind, num_fusion_layers=1)
    size = numbers(model)
    freeze_backbone(model)
    new = FUSION_STREAM + TARGET_EMBEDDINGS + POINTER_HEAD + DECODER[kind]
    assert count_parameters(model) == (new, size)
    start = snapshot(model)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if name.startswith(tuple(new_parts(model)))}
    _, before, after = train(tiny, model, tmp_path, model, num_train_epochs=20)
    assert changed(model, start) == trainable
    assert after < before - 0.8
    model.train()(**tiny.batch(tiny.mixed_posts(model), labels=True)).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} <= trainable


def test_a_frozen_backbone_with_batch_norm_stays(tiny):
    """Running statistics are no parameters, but change in training."""
    model = tiny.model(image="resnet", num_fusion_layers=1, freeze_vision=False)
    freeze_backbone(model)
    start = {name: value.clone() for name, value in model.model.encoder.vision_model.state_dict().items()}
    model.train()(**tiny.batch(tiny.mixed_posts(model), labels=True)).loss.backward()
    for name, value in model.model.encoder.vision_model.state_dict().items():
        assert torch.equal(value, start[name]), name


def test_the_best_checkpoint_comes_back(tiny, tmp_path):
    """With a rate so high that the last epoch is not the best one."""
    model = tiny.model(num_fusion_layers=1)
    peft_model = adapted(model)
    rates = dict.fromkeys(("lora_learning_rate", "new_parts_learning_rate", "fusion_learning_rate"), 0.3)
    selection = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    selection |= {"metric_for_best_model": "loss", "greater_is_better": False, "lr_scheduler_type": "constant"}
    trainer, _, after = train(tiny, peft_model, tmp_path, model, num_train_epochs=3, **rates, **selection)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][:-1]
    assert after == pytest.approx(min(losses), abs=1e-6) and len(losses) == 3
    assert losses[-1] > min(losses) + 0.1


def test_learning_rates_by_part(tiny, tmp_path):
    model = tiny.model("bart", num_fusion_layers=1)
    peft_model = adapted(model)
    rates = {"lora_learning_rate": 1e-3, "new_parts_learning_rate": 2e-3, "fusion_learning_rate": 3e-3}
    trainer = LRSATrainer(
        model=peft_model,
        args=LRSATrainingArguments(str(tmp_path), use_cpu=True, gate_learning_rate=4e-3, **rates),
        eval_dataset=tiny.raw_posts(),
        processing_class=tiny.processor(model),
    )
    sizes = {}
    for group in trainer.parameter_groups(peft_model):
        sizes[group["lr"]] = sizes.get(group["lr"], 0) + sum(parameter.numel() for parameter in group["params"])
    assert sizes == {1e-3: LORA["bart"], 2e-3: TARGET_EMBEDDINGS + POINTER_HEAD, 3e-3: FUSION_STREAM - 1, 4e-3: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_and_pretrained_parts_are_the_model(tiny, parts, tmp_path, kind):
    fields = {"num_fusion_layers": 1, "id2label": {0: "good", 1: "bad"}, "end_points_to": "last"}
    model = built(tiny, parts, kind, "vit", **fields)
    size, config = numbers(model), model.config.to_dict()
    peft_model = shaken(adapted(model))
    want = logits(tiny, peft_model)
    save_adapter(peft_model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "configuration_lrsa.py",
    }
    loaded = load_adapter(str(tmp_path))
    assert not any(parameter.requires_grad for parameter in loaded.parameters()) and not loaded.training
    assert difference(tiny, loaded, want) < 1e-6
    assert loaded.config.to_dict() == config
    of_peft = PeftModel.from_pretrained(built(tiny, parts, kind, "vit", seed=5, **fields), tmp_path)
    assert difference(tiny, of_peft, want) < 1e-6

    inputs = tiny.batch(tiny.mixed_posts(model, 3))
    sequences = peft_model.generate(**inputs, num_beams=2)
    assert torch.equal(loaded.generate(**inputs, num_beams=2), sequences)
    merged = loaded.merge_and_unload()
    assert difference(tiny, merged, want) < 1e-5
    assert torch.equal(merged.generate(**inputs, num_beams=2), sequences)
    merged.save_pretrained(tmp_path / "merged")
    whole = AutoModel.from_pretrained(tmp_path / "merged")
    assert difference(tiny, whole, want) < 1e-5
    assert not changed(whole, snapshot(merged))
    assert numbers(whole) == numbers(merged) == size


def test_an_adapter_goes_on_training(tiny, parts, tmp_path):
    peft_model = shaken(adapted(built(tiny, parts, num_fusion_layers=1)))
    save_adapter(peft_model, tmp_path)
    loaded = load_adapter(str(tmp_path), is_trainable=True)
    assert loaded.training
    assert count_parameters(loaded) == count_parameters(peft_model)
    assert difference(tiny, loaded, logits(tiny, peft_model)) < 1e-6


def test_an_adapter_over_a_saved_model(tiny, parts, tmp_path):
    base, first, second = (str(tmp_path / name) for name in ("base", "first", "second"))
    built(tiny, parts, num_fusion_layers=1).save_pretrained(base)
    peft_model = shaken(adapted(LRSAForMABSA.from_pretrained(base)))
    save_adapter(peft_model, first)
    want = logits(tiny, peft_model)
    assert json.loads((tmp_path / "first" / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    for load in (AutoModel.from_pretrained, LRSAForMABSA.from_pretrained, load_adapter):
        assert difference(tiny, load(first), want) < 1e-6
    merged = load_merged(first)
    assert type(merged) is LRSAForMABSA and difference(tiny, merged, want) < 1e-5
    again = shaken(adapted(merged), seed=1)
    save_adapter(again, second)
    want = logits(tiny, again)
    assert difference(tiny, load_merged(second), want) < 1e-5


@pytest.mark.parametrize("change", ["lost", "other", "narrow"])
@pytest.mark.parametrize("name", ["query.lora_B.weight", "pointer_head.source_mlp.0.weight"])
def test_weights_without_counterpart_are_an_error(tiny, parts, tmp_path, name, change):
    base, folder = str(tmp_path / "base"), str(tmp_path / "adapter")
    built(tiny, parts, num_fusion_layers=1).save_pretrained(base)
    save_adapter(shaken(adapted(LRSAForMABSA.from_pretrained(base))), folder)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    key = next(key for key in weights if key.endswith(name))
    value = weights.pop(key)
    if change == "other":
        weights[key.replace("base_model.model.", "base_model.model.other.")] = value
    elif change == "narrow":
        weights[key] = value[:-1].contiguous()
    save_file(weights, file)
    with pytest.raises(ValueError, match="does not fit its base: [12] weights"):
        load_adapter(folder)
    with pytest.raises((ValueError, RuntimeError), match="does not fit this model|size|shape"):
        AutoModel.from_pretrained(folder)


def test_an_adapter_that_names_no_base(tiny, tmp_path):
    model = tiny.model(num_fusion_layers=1)
    save_adapter(adapted(model), tmp_path)
    with pytest.raises(ValueError, match="Neither a base model nor its pre-trained text model"):
        load_adapter(str(tmp_path))


def test_attention_weights_of_adapted_and_merged_models(tiny, parts):
    """PEFT copies the fusion layers with the config that they read."""
    model = built(tiny, parts, num_fusion_layers=1)
    want = None
    peft_model = adapted(model).eval()
    inputs = tiny.batch(tiny.mixed_posts(model))
    for one in (peft_model, peft_model.merge_and_unload()):
        one.set_attn_implementation("sdpa")
        one.set_attn_implementation("eager")
        attentions = one(**inputs, output_fusion_attentions=True).fusion_attentions
        assert [weights.shape[:2] for weights in attentions] == [(8, 2), (8, 2)]
        want = attentions[0] if want is None else want
        assert torch.allclose(attentions[0], want)
