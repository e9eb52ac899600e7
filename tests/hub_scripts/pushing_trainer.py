"""Trains a tiny model of a text model's folder with pushes to the Hub; `test_trainer_push.py` runs it."""

import sys

from peft import get_peft_model
from transformers import AutoTokenizer

from modeling_lrsa import LRSAForMABSA, LRSATrainer
from modeling_lrsa.adapters import lora_config
from modeling_lrsa.frozen_states import collator_for
from modeling_lrsa.predictor import prepare_for_model
from modeling_lrsa.trainer import LRSATrainingArguments
from processing import LRSAProcessor, load_posts


text_model, posts_folder, output, repo, strategy, kind = sys.argv[1:]
model = LRSAForMABSA.from_text_vision_pretrained(text_model, None, num_fusion_layers=1, decoder_layers=1)
processor = LRSAProcessor.from_config(model.config, AutoTokenizer.from_pretrained(text_model))
posts = load_posts(posts_folder)
data = {split: prepare_for_model(model, processor, posts[split]) for split in ("train", "validation")}
arguments = LRSATrainingArguments(
    output,
    push_to_hub=True,
    hub_model_id=repo,
    hub_strategy=strategy,
    hub_always_push=True,
    num_train_epochs=2,
    use_cpu=True,
    disable_tqdm=True,
)
trainer = LRSATrainer(
    model=get_peft_model(model, lora_config(model)) if kind == "lora" else model,
    args=arguments,
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=collator_for(model, processor),
    processing_class=processor,
)
trainer.train()
trainer.push_to_hub(license="apache-2.0")
