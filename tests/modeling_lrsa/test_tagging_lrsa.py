"""Tags of columns, and the loss on them."""

import pytest
import torch

from modeling_lrsa.tagging_lrsa import LRSATagger


def target(model, column):
    return model.config.pointer_offset + column


@pytest.fixture
def model(tiny):
    return tiny.model(tagging_weight=0.5)


def labelled(model):
    """Words: 0 in column 1, 1 in columns 2 and 3, 2 in 4; one post with words 0 to 1 positive and 2 negative."""
    first = model.config.num_special_targets
    triples = [target(model, 1), target(model, 2), first, target(model, 4), target(model, 4), first + 2]
    word_ids = torch.tensor([[-1, 0, 1, 1, 2, -1], [-1, 0, 1, 1, 2, -1]])
    labels = torch.tensor([[*triples, 1], [1, *[-100] * 6]])
    return labels, word_ids >= 0, word_ids


def test_tags_are_of_whole_words(model):
    labels, mask, word_ids = labelled(model)
    assert model.tagger.tags(labels, mask, word_ids).tolist() == [
        [-100, 1, 2, 2, 5, -100],
        [-100, 0, 0, 0, 0, -100],
    ]


def test_tags_without_words_are_of_columns(model):
    labels, mask, _ = labelled(model)
    assert model.tagger.tags(labels, mask)[0].tolist() == [-100, 1, 2, 0, 5, -100]


def test_tags_of_no_aspect(model):
    _, mask, word_ids = labelled(model)
    assert model.tagger.tags(torch.tensor([[1], [1]]), mask, word_ids).tolist() == [[-100, 0, 0, 0, 0, -100]] * 2


def test_loss_is_summed_over_columns_with_a_tag(tiny, model):
    labels, mask, word_ids = labelled(model)
    tagger = LRSATagger(model.config).eval()
    states = torch.randn(2, 6, tiny.HIDDEN)
    tags = tagger.tags(labels, mask, word_ids)
    scores = tagger.scores(states).log_softmax(-1)
    want = -sum(scores[i, j, tags[i, j]] for i in range(2) for j in range(6) if tags[i, j] >= 0)
    torch.testing.assert_close(tagger(states, labels, mask, word_ids), want)


def test_it_is_a_part_of_the_loss_in_training(tiny, model):
    inputs = tiny.batch([tiny.post(model, 0), tiny.post(model, 1)], labels=True)
    model.train()
    torch.manual_seed(0)
    mean = model(**inputs)
    number = (inputs["labels"] != -100).sum()
    torch.manual_seed(0)
    half = model(**inputs, num_items_in_batch=2 * number)
    torch.testing.assert_close(half.loss * 2, mean.loss)
    torch.testing.assert_close(half.tagging_loss * 2, mean.tagging_loss)
    mean.tagging_loss.backward()
    assert model.tagger.scores.weight.grad.abs().sum() > 0
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    model.config.tagging_weight = 1.0
    torch.manual_seed(0)
    torch.testing.assert_close(model(**inputs).tagging_loss, 2 * half.tagging_loss * 2)
