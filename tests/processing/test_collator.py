import json

import pytest
import torch
from datasets import disable_progress_bars

from processing import DataCollatorForMABSA, MABSABatch, load_posts
from processing.preparation import prepare_posts


disable_progress_bars()

TEXT = "the pizza in Rotterdam was great"
ROWS = [
    {
        "text": TEXT,
        "aspects": [
            {"start": 4, "end": 9, "polarity": "positive"},
            {"start": 13, "end": 22, "polarity": "neutral"},
        ],
        "image": "there.png",
        "image_rationale": "a pizza, steaming",
        "text_rationale": "great food",
    },
    {
        "words": ["\u200d", "rain"],
        "aspects": [{"start": 1, "end": 2, "polarity": "negative"}],
        "text_rationale": "rain and more rain all day",
    },
    {"text": "nothing", "aspects": []},
]


@pytest.fixture
def posts(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "there.png")
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return load_posts(path)


def own_batch(processor, picture, **kwargs) -> MABSABatch:
    return processor(
        text=[row.get("text", row.get("words")) for row in ROWS],
        images=[picture, None, None],
        image_rationales=[row.get("image_rationale") for row in ROWS],
        text_rationales=[row.get("text_rationale") for row in ROWS],
        aspects=[row["aspects"] for row in ROWS],
        return_tensors="pt",
        **kwargs,
    )


def assert_equal(one: MABSABatch, other: MABSABatch):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name
    assert one.posts == other.posts


@pytest.mark.parametrize("task", ["mabsa", "masc"])
def test_prepared_rows_make_the_processors_own_batch(image_text_processor, posts, picture, task):
    prepared = prepare_posts(posts, image_text_processor, task)
    collate = DataCollatorForMABSA(image_text_processor)
    assert_equal(collate([prepared[i] for i in range(3)]), own_batch(image_text_processor, picture, task=task))


def test_raw_posts_are_tokenised_on_the_fly(image_text_processor, posts, picture):
    batch = DataCollatorForMABSA(image_text_processor)([posts[i] for i in range(3)])
    assert_equal(batch, own_batch(image_text_processor, picture))
    # Rows that are plain dictionaries need nothing but their text.
    bare = DataCollatorForMABSA(image_text_processor)([{"text": TEXT}, {"words": ["rain"]}])
    assert set(bare) == {"input_ids", "attention_mask", "word_ids"} and bare.posts[1].is_words


def test_a_batch_without_pictures_or_rationales_has_no_entries_for_them(image_text_processor, posts):
    prepared = prepare_posts(posts, image_text_processor)
    batch = DataCollatorForMABSA(image_text_processor)([prepared[2]])
    assert set(batch) == {"input_ids", "attention_mask", "word_ids", "labels"}
    one = DataCollatorForMABSA(image_text_processor)([prepared[1], prepared[2]])
    assert set(one) - set(batch) == {"text_rationale_input_ids", "text_rationale_attention_mask"}
    assert one["text_rationale_attention_mask"][1].sum() == 0


def test_predictions_of_collated_rows_have_their_offsets(image_text_processor, posts):
    prepared = prepare_posts(posts, image_text_processor)
    batch = DataCollatorForMABSA(image_text_processor)([prepared[i] for i in range(3)])
    sequences = torch.nn.functional.pad(batch["labels"].masked_fill(batch["labels"] == -100, 1), (1, 0))
    found = image_text_processor.post_process_mabsa(sequences, batch)
    assert [[aspect["aspect"] for aspect in row] for row in found] == [["pizza", "Rotterdam"], ["rain"], []]
    assert (found[0][1]["start"], found[0][1]["end"]) == (13, 22) and "word_start" not in found[0][0]
    assert (found[1][0]["start"], found[1][0]["word_start"], found[1][0]["word_end"]) == (2, 1, 2)


def test_cached_states_and_features(image_text_processor, posts):
    """Columns of the frozen parts: bytes of float16, empty where a post has nothing."""
    prepared = prepare_posts(posts, image_text_processor, rationales=False)
    states = [torch.randn(length, 2, 4).half() for length in (3, 0, 1)]
    features = [torch.randn(5, 6).half(), None, torch.randn(5, 6).half()]
    rows = [
        {
            **{name: value for name, value in prepared[i].items() if name != "image"},
            "text_rationale_states": states[i].numpy().tobytes(),
            "image_rationale_states": b"",
            "image_features": b"" if features[i] is None else features[i].numpy().tobytes(),
        }
        for i in range(3)
    ]
    batch = DataCollatorForMABSA(image_text_processor, state_shape=(2, 4), feature_size=6)(rows)
    assert batch["text_rationale_states"].shape == (3, 3, 2, 4)
    assert batch["text_rationale_attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    for row in range(3):
        assert batch["text_rationale_states"][row, : len(states[row])].equal(states[row].float())
    assert batch["image_rationale_attention_mask"].sum() == 0
    assert batch["image_attention_mask"].tolist() == [1, 0, 1]
    assert batch["image_features"][2].equal(features[2].float()) and not batch["image_features"][1].any()
