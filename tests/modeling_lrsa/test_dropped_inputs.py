import copy

import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import ViTImageProcessor

from modeling_lrsa.dropped_inputs import COLUMNS, DroppedInputs
from modeling_lrsa.frozen_states import add_frozen_states, collator_for
from modeling_lrsa.trainer import LRSATrainer, LRSATrainingArguments
from processing.posts import FEATURES
from processing.preparation import prepare_posts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))


class Rows:
    """Many posts with everything."""

    def __len__(self):
        return 500

    def __getitem__(self, index):
        return {
            "image": "p",
            "image_features": None,
            "image_rationale_input_ids": [1, 2],
            "text_rationale_states": b"s",
        }


def left(rows):
    """Which of picture, image rationale and text rationale each row still has."""
    return [
        tuple(any(row.get(name) for name in columns) for columns in COLUMNS.values())
        for row in (rows[index] for index in range(len(rows)))
    ]


def test_shares():
    """Each is dropped by itself, a third of the time: of all eight subsets there are as many as that says."""
    rows = DroppedInputs(Rows(), 1 / 3, seed=0)
    kept = []
    for rows.epoch in range(4):
        kept += left(rows)
    for subset in {tuple(bool(bits & bit) for bit in (1, 2, 4)) for bits in range(8)}:
        want = (2 / 3) ** sum(subset) * (1 / 3) ** (3 - sum(subset))
        assert kept.count(subset) / len(kept) == pytest.approx(want, abs=0.025)
    assert rows[0].keys() == Rows()[0].keys()
    row = DroppedInputs(Rows(), 1, seed=0)[3]
    assert (row["image"], row["image_rationale_input_ids"], row["text_rationale_states"]) == (None, [], None)
    assert left(DroppedInputs(Rows(), 0, seed=0)) == [(True, True, True)] * 500


def test_what_is_dropped_follows_from_seed_and_epoch():
    seen = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            rows = DroppedInputs(Rows(), 0.5, seed)
            rows.epoch = epoch
            torch.rand(seed + 1)  # what others draw is of no account
            order = left(rows)
            assert left(rows) == order
            seen[seed, epoch] = tuple(order)
    assert len(set(seen.values())) == 4


def forms_of_data(tiny, model, processor):
    rows = [dict(row) for row in tiny.raw_posts()]
    for row in rows if model.config.has_images else ():
        row["image"] = ImageFeature().encode_example(Image.new("RGB", (8, 8), (200, 30, 90)))
    posts = Dataset.from_list(rows, features=FEATURES)
    prepared = prepare_posts(posts, processor)
    return {"posts": posts, "prepared": prepared, "frozen": add_frozen_states(prepared, model, processor)}


@pytest.mark.parametrize("form", ["posts", "prepared", "frozen"])
def test_batches_lack_what_is_dropped(tiny, form):
    model = tiny.model(image="vit", num_fusion_layers=1)
    processor = tiny.processor(model, ViTImageProcessor(size={"height": 8, "width": 8}))
    data = forms_of_data(tiny, model, processor)[form]
    collate = collator_for(model, processor)
    full = collate([data[index] for index in range(8)])
    for share in (0.5, 1):
        dropped = DroppedInputs(data, share, seed=3)
        batch = collate([dropped[index] for index in range(8)])
        assert torch.equal(batch["input_ids"], full["input_ids"]) and torch.equal(batch["labels"], full["labels"])
        nothing = torch.zeros(8, 1)
        masks = [batch.get(f"{kind}_attention_mask", nothing) for kind in COLUMNS]
        there = list(zip(*(mask.view(8, -1).bool().any(-1).tolist() for mask in masks)))
        assert there == left(dropped) and (share == 1) is (not any(map(any, there)))
        with torch.no_grad():
            assert torch.isfinite(model(**batch).loss)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize("form", ["posts", "frozen"])
def test_resumed_amid_an_epoch_the_losses_are_those_of_the_uninterrupted(tiny, tmp_path, strategy, form):
    """Eight posts in batches of two: steps 2 and 6 lie amid an epoch, 4 at the start of one."""
    start = tiny.model(num_fusion_layers=1)
    data = forms_of_data(tiny, start, tiny.processor(start))[form]
    seen = []

    def losses(folder, drop_inputs=0.5, resume=None, **more):
        model = copy.deepcopy(start)
        args = LRSATrainingArguments(
            str(tmp_path / folder),
            use_cpu=True,
            max_steps=8,
            per_device_train_batch_size=2,
            train_sampling_strategy=strategy,
            drop_inputs=drop_inputs,
            save_steps=2,
            save_total_limit=None,
            logging_steps=1,
            disable_tqdm=True,
            load_best_model_at_end=False,
            **dict.fromkeys(("save_strategy", "logging_strategy"), "steps"),
            eval_strategy="no",
            **more,
        )
        processor = tiny.processor(model)
        collate = collator_for(model, processor)

        def noting(rows):
            seen.append([bool(row.get("text_rationale") or row.get("text_rationale_states")) for row in rows])
            return collate(rows)

        trainer = LRSATrainer(model, args, train_dataset=data, data_collator=noting, processing_class=processor)
        trainer.train(resume_from_checkpoint=resume)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    whole = losses("whole")
    assert 0 < sum(map(sum, seen)) < 8  # of two epochs' eight text rationales some are left
    assert whole != pytest.approx(losses("nothing dropped", drop_inputs=0.0), abs=1e-4)
    for step in (2, 4, 6):
        again = losses("again", resume=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert again == pytest.approx(whole, abs=1e-6)
    if strategy == "random":
        assert losses("workers", dataloader_num_workers=2) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none(tmp_path, share):
    with pytest.raises(ValueError, match=f"drop_inputs={share} is a share: it must be between 0 and 1"):
        LRSATrainingArguments(str(tmp_path), use_cpu=True, drop_inputs=share)
