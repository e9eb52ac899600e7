"""Rationales behind the text, as embeddings, and in the decoder's memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.rationale_reader_lrsa import packed_places


INPUT = {"fusion_position": "input", "rationale_encoder": "embeddings"}
FORMS = {
    "input": INPUT,
    "input in memory": INPUT | {"rationale_memory": True},
    "embeddings": {"rationale_encoder": "embeddings", "num_fusion_layers": 2},
    "memory": {"rationale_memory": True, "num_fusion_layers": 2},
    "shared in memory": {"rationale_memory": True, "rationale_encoder": "shared", "fusion_position": "after"},
    "one way, no gate": {"fusion_directions": "content", "fusion_gate": False, "num_fusion_layers": 2},
}
KINDS = {
    "text": {"text": "bert", "image": None},
    "vision": {"text": "roberta", "image": "vit"},
    "regions": {"text": "bart", "image": "regions", "image_bracket_token_ids": [5, 6]},
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def form(request):
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


def without_rationales(posts):
    return [post | {"image_rationale": [], "text_rationale": []} for post in posts]


def baseline_of(tiny, model, kind):
    baseline = tiny.model(**kind, num_fusion_layers=0, seed=1)
    assert baseline.load_state_dict(model.state_dict(), strict=False).missing_keys == []
    return baseline


def test_without_rationales_it_is_its_baseline(tiny, kind, form):
    model = tiny.model(**kind, **form)
    baseline = baseline_of(tiny, model, kind)
    posts = tiny.mixed_posts(model)
    inputs, full = tiny.batch(without_rationales(posts), labels=True), tiny.batch(posts, labels=True)
    bare = torch.tensor([not post["image_rationale"] and not post["text_rationale"] for post in posts])
    with torch.no_grad():
        want = baseline(**inputs)
        assert torch.equal(model(**inputs).logits, want.logits)
        found = model(**full).logits
        # Masked tokens of other rows' rationales are summed over, as padding is: nothing but rounding.
        torch.testing.assert_close(found[bare], want.logits[bare], atol=1e-5, rtol=1e-5)
        assert ((found - want.logits).abs().amax((1, 2))[~bare] > 1e-3).all()
    inputs.pop("labels")
    cap = {"max_new_tokens": 10, "num_beams": 3}
    assert torch.equal(model.generate(**inputs, **cap), baseline.generate(**inputs, **cap))


def test_a_row_alone_and_in_a_batch(tiny, kind, form):
    model = tiny.model(**kind, **form)
    posts = tiny.mixed_posts(model)
    with torch.no_grad():
        together = model(**tiny.batch(posts, labels=True)).logits
        for row, post in enumerate(posts):
            alone = model(**tiny.batch([post], labels=True)).logits[0]
            length, width = alone.shape
            torch.testing.assert_close(together[row, :length, :width], alone, atol=1e-5, rtol=1e-5)
    sequences = model.generate(**tiny.batch(posts), max_new_tokens=10)
    for row, post in enumerate(posts):
        (alone,) = model.generate(**tiny.batch([post]), max_new_tokens=10).tolist()
        assert sequences[row, : len(alone)].tolist() == alone


def test_every_parameter_gets_a_gradient(tiny, kind, form):
    for posts_of in (list, without_rationales):
        model = tiny.model(**kind, **form).train()
        model(**tiny.batch(posts_of(tiny.mixed_posts(model)), labels=True)).loss.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_save_and_load(tiny, tmp_path, kind, form):
    model = tiny.model(**kind, **form)
    model.save_pretrained(tmp_path)
    loaded, report = LRSAForMABSA.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_on_top_of_a_baseline(tiny, tmp_path, form):
    baseline = tiny.model("bert", num_fusion_layers=0)
    baseline.save_pretrained(tmp_path)
    model = LRSAForMABSA.from_pretrained(tmp_path, **{"num_fusion_layers": 1} | form)
    posts = tiny.mixed_posts(model)
    with torch.no_grad():
        assert torch.equal(
            model(**tiny.batch(without_rationales(posts))).logits,
            baseline(**tiny.batch(without_rationales(posts))).logits,
        )


# --- tokens behind the text


@pytest.mark.parametrize("text", ["bert", "roberta", "mpnet", "distilbert", "electra", "bart"])
@pytest.mark.parametrize("image, slots", [(None, 0), ("regions", 4)])
def test_rationales_follow_their_own_text(tiny, text, image, slots):
    """Of three texts of different lengths each is encoded as [image ; text ; text rationale ; image rationale]."""
    model = tiny.model(text, image, **INPUT)
    posts = [
        tiny.post(model, length, length, picture=bool(image), image_rationale=4, text_rationale=length - 1)
        for length in (4, 6, 9)
    ]
    encoder = model.get_encoder()
    embed = encoder.text_model.get_input_embeddings()
    with torch.no_grad():
        outputs = encoder(**tiny.batch(posts))
        for row, post in enumerate(posts):
            tokens = embed(torch.tensor([post["input_ids"] + post["text_rationale"] + post["image_rationale"]]))
            if image:
                tokens = torch.cat([encoder.image_projection(post["image"]).unsqueeze(0), tokens], dim=1)
            want = encoder.text_model(inputs_embeds=tokens, attention_mask=torch.ones(tokens.shape[:2]).long())
            length = len(post["input_ids"])
            want = want.last_hidden_state[0, : slots + length]
            torch.testing.assert_close(outputs.last_hidden_state[row, : slots + length], want, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(outputs.text_states[row, :length], want[slots:], atol=1e-5, rtol=1e-5)
    # The decoder and the pointers see image and text alone.
    longest = len(posts[2]["input_ids"])
    assert outputs.source_mask.sum(1).tolist() == [slots + len(post["input_ids"]) for post in posts]
    assert outputs.source_mask.shape[1] == slots + longest and outputs.pointer_mask.shape[1] == longest


@pytest.mark.parametrize("text", ["bert", "roberta", "bart"])
@pytest.mark.parametrize("memory", [False, True])
def test_what_exceeds_the_positions_is_cut(tiny, text, memory):
    """40 positions: of a text of 12 tokens and rationales of 20 and 16, the image rationale's last tokens go."""
    model = tiny.model(text, "regions", **INPUT, rationale_memory=memory)
    room = model.config.max_text_length
    posts = [
        tiny.post(model, 0, 10, picture=True, image_rationale=16, text_rationale=20),
        tiny.post(model, 1, 5, picture=False, image_rationale=3, text_rationale=9),
        tiny.post(model, 2, room - 2, image_rationale=5, text_rationale=5),
    ]
    cut = [
        posts[0] | {"image_rationale": posts[0]["image_rationale"][: room - 12 - 20]},
        posts[1],
        posts[2] | {"image_rationale": [], "text_rationale": []},
    ]
    assert len(cut[0]["image_rationale"]) in (2, 4)
    with torch.no_grad():
        one, two = (model(**tiny.batch(p)).logits for p in (posts, cut))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), columns=st.integers(1, 9))
def test_packing(data, columns):
    fixed = data.draw(st.integers(0, columns))
    rows = data.draw(st.lists(st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=1, max_size=3))
    for row, place in zip(rows, packed_places(torch.tensor(rows), fixed).tolist()):
        kept = [column for column in range(columns) if column < fixed or row[column]]
        gone = [column for column in range(columns) if column not in kept]
        assert [place.index(position) for position in range(columns)] == kept + gone


# --- embeddings and memory


@pytest.mark.parametrize("text", ["bert", "mpnet", "bart"])
def test_embeddings_are_normalised_as_the_text_model_does(tiny, text):
    model = tiny.model(text, rationale_encoder="embeddings", fusion_position="before")
    encoder = model.get_encoder()
    assert encoder.rationale_model is None
    ids = torch.randint(5, tiny.VOCABULARY, (2, 6))
    with torch.no_grad():
        states = encoder.get_rationale_states(ids, torch.ones_like(ids))
    assert states.shape == (2, 6, 1, tiny.HIDDEN)
    table = encoder.text_model.get_input_embeddings().weight
    spread = table.std(-1, unbiased=False)[ids].unsqueeze(-1)
    want = (table[ids] - table[ids].mean(-1, keepdim=True)) / spread  # the norms of fresh models do nothing else
    torch.testing.assert_close(states.squeeze(2), want, atol=1e-3, rtol=1e-3)


def test_shorter_input_for_the_frozen_encoder_than_for_embeddings(tiny):
    """Embeddings have no positions, so a rationale of any length can be read."""
    ids = torch.randint(5, tiny.VOCABULARY, (1, tiny.POSITIONS + 1))
    assert tiny.model(rationale_encoder="embeddings").get_encoder().get_rationale_states(ids, None).shape[1] == 41
    with pytest.raises(ValueError, match="A rationale has 41 tokens, its encoder takes 40"):
        tiny.model().get_encoder().get_rationale_states(ids, torch.ones_like(ids))


@pytest.mark.parametrize("reader", ["text", "queries"])
@pytest.mark.parametrize("position", ["before", "inside", "after"])
def test_each_rationale_is_once_in_the_memory(tiny, reader, position):
    fields = {"image_rationale_reader": reader, "fusion_position": position, "num_fusion_layers": 2}
    model = tiny.model(image="regions", rationale_memory=True, **fields)
    posts = tiny.mixed_posts(model)
    inputs = tiny.batch(posts)
    with torch.no_grad():
        outputs = model.get_encoder()(**inputs)
        plain = tiny.model(image="regions", **fields).get_encoder()(**inputs)
    source = 4 + inputs["input_ids"].shape[1]
    lengths = [sum(len(post[f"{kind}_rationale"]) for kind in ("image", "text")) for post in posts]
    assert outputs.source_mask[:, source:].sum(1).tolist() == lengths
    assert outputs.last_hidden_state.shape[:2] == outputs.source_mask.shape
    assert torch.equal(outputs.last_hidden_state[:, :source], plain.last_hidden_state)
    assert torch.equal(outputs.text_states, plain.text_states)


def test_memory_of_one_direction_is_the_rationale(tiny):
    model = tiny.model(num_fusion_layers=1, fusion_directions="content", rationale_memory=True)
    states = torch.randn(1, 5, 1, tiny.HIDDEN)
    with torch.no_grad():
        outputs = model.get_encoder()(**tiny.batch([tiny.post(model, 0)]), text_rationale_states=states)
    assert torch.equal(outputs.last_hidden_state[:, -6:-1], states.squeeze(2))
    assert outputs.source_mask[0, -6:].tolist() == [True] * 5 + [False]  # and no image rationale
