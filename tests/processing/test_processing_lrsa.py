import copy
import logging

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoProcessor, PreTrainedTokenizerFast

from processing import LRSAProcessor, MABSABatch


TEXT = "the pizza in Rotterdam was great"
PIZZA = {"start": 4, "end": 9, "polarity": "positive"}
ROTTERDAM = {"start": 13, "end": 22, "polarity": "neutral"}
LOGGER = "processing.processing_lrsa"


def assert_equal(one: MABSABatch, other: MABSABatch):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert one.posts == other.posts


# --- texts and aspects


def test_a_single_post_is_a_batch_of_one(image_text_processor, picture):
    single = image_text_processor(
        text=TEXT,
        images=picture,
        image_rationales="a pizza",
        text_rationales="great food",
        aspects=[PIZZA],
        return_tensors="pt",
    )
    batch = image_text_processor(
        text=[TEXT],
        images=[picture],
        image_rationales=["a pizza"],
        text_rationales=["great food"],
        aspects=[[PIZZA]],
        return_tensors="pt",
    )
    assert_equal(single, batch)
    assert set(single) == {
        "input_ids",
        "attention_mask",
        "word_ids",
        "labels",
        "pixel_values",
        "image_attention_mask",
        "image_rationale_input_ids",
        "image_rationale_attention_mask",
        "text_rationale_input_ids",
        "text_rationale_attention_mask",
    }
    assert set(image_text_processor.model_input_names) <= set(single)
    assert all(isinstance(value, torch.Tensor) and len(value) == 1 for value in single.values())


def test_rows_of_a_batch_are_the_single_posts_padded(processor):
    texts = [TEXT, "rain", ""]
    aspects = [[ROTTERDAM, PIZZA], [{"start": 0, "end": 4, "polarity": "negative"}], []]
    batch = processor(text=texts, aspects=aspects, return_tensors="pt")
    fill = {
        "input_ids": processor.tokenizer.pad_token_id,
        "attention_mask": 0,
        "word_ids": -1,
        "labels": -100,
    }
    assert set(batch) == set(fill)
    for row, (text, gold) in enumerate(zip(texts, aspects)):
        alone = processor(text=text, aspects=gold, return_tensors="pt")
        for name, value in fill.items():
            length = alone[name].shape[1]
            assert batch[name][row, :length].equal(alone[name][0])
            assert (batch[name][row, length:] == value).all()
    assert batch["labels"][2].tolist() == [1] + [-100] * 6
    assert batch["attention_mask"][2].sum() == 2  # the special tokens of a post without words


def test_words_and_the_string_that_they_make_give_the_same_tensors(tokenizer):
    processor = LRSAProcessor(None, tokenizer)
    words = TEXT.split()
    gold = [{"start": 1, "end": 2, "polarity": "positive"}, {"start": 3, "end": 4, "polarity": "neutral"}]
    from_words = processor(text=[words], aspects=[gold], return_tensors="pt")
    from_text = processor(text=[TEXT], aspects=[[PIZZA, ROTTERDAM]], return_tensors="pt")
    for name in from_text:
        assert from_words[name].equal(from_text[name])
    assert from_words.posts[0].text == TEXT and from_words.posts[0].is_words and not from_text.posts[0].is_words
    alone = processor(text=words, aspects=gold, is_split_into_words=True, return_tensors="pt")
    assert_equal(alone, from_words)
    assert len(processor(text=words).posts) == len(words)  # without the flag: a batch of strings


def test_words_and_strings_in_one_batch(processor):
    batch = processor(text=[TEXT.split(), TEXT, []], return_tensors="pt")
    assert batch["input_ids"][0].equal(batch["input_ids"][1])
    assert [post.is_words for post in batch.posts] == [True, False, True]
    assert batch["word_ids"][2].eq(-1).all()


def test_without_padding_lists_come_back(processor):
    single = processor(text=TEXT, aspects=[PIZZA], padding=False)
    batch = processor(text=[TEXT, "rain"], aspects=[[PIZZA], []], padding=False)
    assert isinstance(single["input_ids"][0], int)
    assert single["input_ids"] == batch["input_ids"][0] and single["labels"] == batch["labels"][0]
    assert batch["labels"] == [single["labels"], [1]]
    assert len(batch["input_ids"][1]) < len(batch["input_ids"][0])


def test_aspects_without_polarity_give_no_labels(processor):
    bare = {"start": 4, "end": 9}
    for gold in (bare, {**bare, "polarity": None}):
        batch = processor(text=[TEXT, TEXT], aspects=[[PIZZA], [gold]], return_tensors="pt")
        assert set(batch) == {"input_ids", "attention_mask", "word_ids"}
        masc = processor(text=[TEXT], aspects=[[gold]], task="masc", return_tensors="pt")
        labelled = processor(text=[TEXT], aspects=[[PIZZA]], return_tensors="pt")
        assert masc["aspect_spans"][0, 0].equal(labelled["labels"][0, :2] - processor.pointer_offset)
    assert processor(text=[TEXT], aspects=[[]], task="masc")["aspect_spans"] == [[[-1, -1]]]


def test_a_polarity_that_the_model_does_not_tell(processor):
    with pytest.raises(ValueError, match="unknown polarity 'angry': one of positive, neutral, negative"):
        processor(text=[TEXT], aspects=[[{**PIZZA, "polarity": "angry"}]])


@pytest.mark.parametrize(
    "values",
    [
        {"text": None},
        {"text": None, "images": [None]},
        {"text": []},
        {"text": [TEXT, TEXT], "aspects": [[PIZZA]]},
        {"text": [TEXT, TEXT], "image_rationales": "one"},
        {"text": [TEXT], "text_rationales": "one"},
        {"text": [TEXT], "text_rationales": ["one", "two"]},
        {"text": [TEXT, TEXT], "images": Image.new("RGB", (9, 9))},
    ],
)
def test_columns_that_do_not_match(processor, values):
    with pytest.raises(ValueError, match="must have one entry for each|needs `text`"):
        processor(**values)


def test_a_tokenizer_that_takes_words_for_rests_is_told_of(tokenizers, caplog):
    """Byte-level ones do unless they are loaded with `add_prefix_space=True`."""
    backend = Tokenizer.from_str(tokenizers["bpe"].backend_tokenizer.to_str())
    for prefix in (False, True):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
        caplog.clear()
        LRSAProcessor(None, made)
        assert ("load the tokenizer with `add_prefix_space=True`" in caplog.text) is not prefix
    LRSAProcessor(None, tokenizers["wordpiece"])
    assert not caplog.text


# --- length


def test_long_text_is_cut_with_a_warning_that_says_how_much(tokenizers, caplog):
    processor = LRSAProcessor(None, tokenizers["wordpiece"], max_text_length=10)
    words = ["a"] * 8 + ["pizza", "b", "c"]
    gold = [{"start": 7, "end": 8, "polarity": "positive"}, {"start": 8, "end": 9, "polarity": "negative"}]
    with caplog.at_level(logging.WARNING, LOGGER):
        batch = processor(text=[words, ["a"] * 8], aspects=[gold, []], return_tensors="pt")
    assert len(caplog.records) == 1
    assert (
        "A text of 11 words is longer than the model's 10 tokens: the last 3 words, from 'pizza b c' on, are cut."
        in caplog.text
    )
    assert batch["input_ids"].shape == (2, 10)
    assert batch["input_ids"][0].equal(batch["input_ids"][1])
    # An aspect in what is cut is gone; one that still has its columns stays.
    assert batch["labels"][0].tolist() == [13, 13, 2, 1]
    assert processor(text=words, aspects=gold, is_split_into_words=True, task="masc")["aspect_spans"] == [[[8, 8]]]


def test_long_text_is_an_error_on_request(tokenizer):
    processor = LRSAProcessor(None, tokenizer)
    assert processor.max_text_length == 512
    with pytest.raises(ValueError, match="A text of 600 words .* 512 tokens: the last 90 words"):
        processor(text="a " * 600, on_long_text="error")
    assert len(processor(text="a " * 510, on_long_text="error")["input_ids"][0]) == 512
    with pytest.raises(ValueError, match="longer than the model's 6 tokens: the last 1 words"):
        processor(text="a a a a a", max_length=6, on_long_text="error")


def test_rationales_are_cut_at_their_own_length(tokenizer, caplog):
    processor = LRSAProcessor(None, tokenizer, max_rationale_length=12)
    with caplog.at_level(logging.WARNING):
        batch = processor(text=["a"], text_rationales=["a " * 1000], return_tensors="pt")
    assert batch["text_rationale_input_ids"].shape == (1, 12)
    assert batch["text_rationale_input_ids"][0, -1] == tokenizer("a").input_ids[-1]
    assert not caplog.records
    # The limit of rationales is not one of texts.
    assert processor(text=["a " * 20], return_tensors="pt")["input_ids"].shape == (1, 22)


@pytest.mark.parametrize("length", [-1, 0, 2])
def test_a_rationale_needs_room_beside_special_tokens(tokenizer, length):
    with pytest.raises(ValueError, match="leaves no room beside 2 special tokens: it must be at least 3"):
        LRSAProcessor(None, tokenizer, max_rationale_length=length)
    shortest = LRSAProcessor(None, tokenizer, max_rationale_length=3)
    assert len(shortest(text="rain", text_rationales="a pizza in the oven")["text_rationale_input_ids"][0]) == 3


def test_fixed_widths(processor):
    processor.max_rationale_length = 9
    rationales = ["a pizza in the oven, steaming and fragrant, with olives", None]
    settings = {"padding": "max_length", "max_length": 20, "return_tensors": "pt"}
    fixed = processor(text=[TEXT, "rain"], text_rationales=rationales, **settings)
    ragged = processor(text=[TEXT, "rain"], text_rationales=rationales, return_tensors="pt", max_length=20)
    widths = {name: value.shape[1] for name, value in fixed.items()}
    assert widths == {
        "input_ids": 20,
        "attention_mask": 20,
        "word_ids": 20,
        "text_rationale_input_ids": 9,
        "text_rationale_attention_mask": 9,
    }
    for name, value in ragged.items():
        assert torch.equal(fixed[name][:, : value.shape[1]], value)
    assert (fixed["attention_mask"].sum(), fixed["word_ids"].max()) == (
        ragged["attention_mask"].sum(),
        ragged["word_ids"].max(),
    )


def test_a_length_that_a_tokenizer_was_saved_with_counts_only_with_its_padding(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.init_kwargs["max_length"] = 4
    words = "the pizza in Rotterdam"
    assert LRSAProcessor(None, tokenizer)(text=words)["word_ids"][0][-2] == 3
    tokenizer.init_kwargs["padding"] = "max_length"
    assert len(LRSAProcessor(None, tokenizer)(text=words)["input_ids"][0]) == 4


def test_rationales_are_cut_as_the_tokenizer_cuts(tokenizer):
    processor = LRSAProcessor(None, tokenizer, max_rationale_length=7)
    rationale = "a pizza in the oven, steaming and fragrant"
    tokenizer = copy.deepcopy(tokenizer)  # which keeps how it last cut
    cut = processor(text=["rain"], text_rationales=[rationale])["text_rationale_input_ids"][0]
    assert cut == tokenizer(rationale, truncation=True, max_length=7).input_ids


# --- rationales


def test_missing_rationales(processor):
    batch = processor(
        text=["a", "b", "c"],
        image_rationales=["great coffee", None, ""],
        text_rationales=[None, None, None],
        return_tensors="pt",
    )
    assert not [name for name in batch if name.startswith("text_rationale")]
    assert "pixel_values" not in batch and "image_attention_mask" not in batch
    alone = processor.tokenizer("great coffee").input_ids
    assert batch["image_rationale_input_ids"][0].tolist() == alone
    assert batch["image_rationale_attention_mask"].sum(1).tolist() == [len(alone), 0, 0]
    assert (batch["image_rationale_input_ids"][1:] == processor.tokenizer.pad_token_id).all()
    assert not [name for name in processor(text="a", return_tensors="pt") if "rationale" in name]


@pytest.mark.parametrize("name", ["[SEP]", "[MASK]", "[PAD]", "<s>", "</s>", "<mask>"])
def test_special_tokens_written_in_rationales_are_text(tokenizer, name):
    ids = LRSAProcessor(None, tokenizer)(text="a", image_rationales=f"say {name} now")["image_rationale_input_ids"][0]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert not special & set(ids[1:-1])


# --- saving


@pytest.mark.parametrize("pictures", [False, True])
def test_saved_and_loaded_again(tokenizer, image_processor, picture, tmp_path, pictures):
    made = LRSAProcessor(
        image_processor if pictures else None,
        tokenizer,
        num_special_targets=3,
        id2label={0: "bad", 1: "good"},
        pointer_offset=9,
        end_points_to="last",
        max_text_length=77,
        max_rationale_length=9,
    )
    made.save_pretrained(tmp_path)
    loaded = LRSAProcessor.from_pretrained(tmp_path)
    assert loaded.index_format == made.index_format
    assert (loaded.max_text_length, loaded.max_rationale_length) == (77, 9)
    assert (loaded.image_processor is None) == (not pictures)
    assert loaded.model_input_names == made.model_input_names
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    twice = LRSAProcessor.from_pretrained(again)
    assert (again / "processor_config.json").read_text() == (tmp_path / "processor_config.json").read_text()
    inputs = {
        "text": [TEXT, "rain"],
        "images": [picture, None],
        "image_rationales": ["a pizza in the oven, steaming", None],
        "aspects": [[{**PIZZA, "polarity": "good"}], []],
        "return_tensors": "pt",
    }
    wanted = made(**inputs)
    assert ("pixel_values" in wanted) == pictures
    for other in (loaded, twice):
        found = other(**inputs)
        if pictures:
            # The Auto class may choose torchvision's image processor, whose resizing differs by a grey level.
            assert (found.pop("pixel_values") - wanted["pixel_values"]).abs().max() < 0.05
        assert_equal(found, MABSABatch({name: wanted[name] for name in found}, posts=wanted.posts))


def test_same_settings_same_config(tokenizer, tmp_path):
    made = LRSAProcessor(None, tokenizer)
    made.save_pretrained(tmp_path)
    loaded = LRSAProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == made.to_dict() == LRSAProcessor(None, tokenizer).to_dict()
    values = {name: made.to_dict()[name] for name in ("num_special_targets", "pointer_offset", "end_points_to")}
    assert values == {"num_special_targets": 2, "pointer_offset": 5, "end_points_to": "first"}
    assert made.to_dict()["id2label"] == {0: "positive", 1: "neutral", 2: "negative"}
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_what_a_processor_has_done_does_not_change_what_it_saves_as(tokenizer, tmp_path):
    """A tokenizer keeps the length that rationales were last cut at, and saves it as its own."""
    made = LRSAProcessor(None, copy.deepcopy(tokenizer))
    made(text="a", text_rationales="a " * 500)
    made.save_pretrained(tmp_path)
    loaded = LRSAProcessor.from_pretrained(tmp_path)
    assert len(loaded(text="a " * 300)["input_ids"][0]) == 302


def test_auto_processor_with_the_code_in_the_folder(processor, tmp_path):
    """Fetching code from the folder must need no other file of the package than what it copied."""
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "processing_lrsa.py").is_file()
    assert {path.name for path in tmp_path.glob("*_lrsa.py")} == {
        "processing_lrsa.py",
        "batch_lrsa.py",
        "decoding_lrsa.py",
        "images_lrsa.py",
        "indexing_lrsa.py",
        "linguistic_columns_lrsa.py",
        "pipeline_lrsa.py",
        "public_images_lrsa.py",
        "words_lrsa.py",
    }
    loaded = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(loaded).__name__ == "LRSAProcessor"
    batch = loaded(text=TEXT, aspects=[PIZZA], return_tensors="pt")
    wanted = processor(text=TEXT, aspects=[PIZZA], return_tensors="pt")
    assert all(batch[name].equal(wanted[name]) for name in wanted)
