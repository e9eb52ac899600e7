"""AoM's modules against their formulas, written out position by position, in double precision."""

import itertools
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_lrsa.aspect_graph_lrsa import LRSAAspectAttention, LRSAAspectGraph


EXACT = {"atol": 1e-9, "rtol": 1e-9}


def random_weights(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return module.double().eval()


def attention(tiny, seed=0, **fields):
    return random_weights(LRSAAspectAttention(tiny.config("bart", **fields)), seed)


def graph(tiny, seed=0, layers=2, **fields):
    return random_weights(LRSAAspectGraph(tiny.config("bart", num_graph_layers=layers, **fields)), seed)


def random_inputs(tiny, seed, batch=4, slots=3, columns=7):
    """States, source mask, nouns, dependencies, sentiment. The first post has no noun, the second no picture."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    states = torch.randn(batch, slots + columns, tiny.HIDDEN, generator=generator, dtype=torch.double)
    text = torch.arange(columns) < (1 + (uniform(batch) * columns).long()).unsqueeze(-1)
    picture = torch.ones(batch, slots, dtype=torch.bool)
    picture[1:2] = False
    nouns = (uniform(batch, columns) < 0.5) & text
    if batch > 1:
        nouns[0] = False
    arcs = (uniform(batch, columns, columns) < 0.4).triu(1)
    arcs = (arcs | arcs.transpose(1, 2)) & text.unsqueeze(1) & text.unsqueeze(2)
    dependencies = arcs + 5.0 * torch.eye(columns)  # AoM writes 5 on the diagonal, which the graph does not keep
    sentiment = (uniform(batch, columns) * 2 - 1) * (uniform(batch, columns) < 0.4)
    return states, torch.cat([picture, text], dim=1), nouns, dependencies, sentiment


def random_shape(seed):
    rng = random.Random(seed)
    return {"batch": rng.randint(1, 4), "slots": rng.choice([0, 1, 5]), "columns": rng.randint(1, 8)}


def attention_by_definition(module, states, nouns, padded):
    """Every noun is scored anew for every position that asks, with the position's own term."""
    batch, source, hidden = states.shape
    text = states[:, source - nouns.shape[1] :]
    lists = [list(text[b, nouns[b]]) for b in range(batch)]
    longest = max(map(len, lists))
    out = torch.empty_like(states)
    for b, i in itertools.product(range(batch), range(source)):
        candidates = lists[b] + [states.new_zeros(hidden)] * (longest - len(lists[b]) if padded else 0)
        aspect = states.new_zeros(hidden)
        if candidates:
            pairs = [torch.cat([module.noun_linear(v), module.multi_linear(states[b, i])]) for v in candidates]
            weights = torch.cat([module.att_linear(torch.tanh(pair)) for pair in pairs]).softmax(0)
            aspect = sum(weight * v for weight, v in zip(weights, candidates))
        both = torch.cat([module.alpha_linear1(states[b, i]), module.alpha_linear2(aspect)])
        alpha = torch.sigmoid(module.linear(both))
        out[b, i] = (1 - alpha) * states[b, i] + alpha * aspect
    return out


def graph_by_definition(module, states, mask, nouns, dependencies, sentiment):
    """The graph is made entry by entry, and each layer node by node."""
    batch, source, _ = states.shape
    slots = source - nouns.shape[1]
    out = torch.empty_like(states)
    for b in range(batch):
        edges = torch.eye(source, dtype=states.dtype)
        for i, j in itertools.permutations(range(source), 2):
            cosine = states[b, i] @ states[b, j] / (states[b, i].norm() * states[b, j].norm())
            slot, word = min(i, j), max(i, j) - slots
            if slot >= slots:
                edges[i, j] = dependencies[b, i - slots, j - slots] * cosine
            elif word >= 0 and nouns[b, word] and mask[b, slot]:
                edges[i, j] = cosine
        values = [states.new_zeros(1)] * slots + list(sentiment[b].to(states).unsqueeze(-1))
        nodes = [module.context(state + module.sentiment(value)) for state, value in zip(states[b], values)]
        for layer in module.layers:
            moved = [layer.linear.weight @ node for node in nodes]
            sums = [sum(edges[i, j] * moved[j] for j in range(source)) for i in range(source)]
            nodes = [
                torch.relu(mask[b, i] * (sums[i] / (edges[i].sum() + 1) + layer.linear.bias)) for i in range(source)
            ]
        out[b] = states[b] + module.proportion * torch.stack(nodes)
    return out


# --- aspect-aware attention


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_attention_is_its_formula_and_the_position_that_asks_cancels(tiny, seed, padded):
    module = attention(tiny, seed, pad_nouns_in_softmax=padded)
    states, _, nouns, *_ = random_inputs(tiny, seed, **random_shape(seed))
    torch.testing.assert_close(module(states, nouns), attention_by_definition(module, states, nouns, padded), **EXACT)


@torch.no_grad()
def test_the_aspect_of_a_post_without_nouns_is_zero(tiny):
    states, _, nouns, *_ = random_inputs(tiny, 0)
    assert not nouns[0].any() and nouns[1:].any()
    for padded in (False, True):  # what is padded with zeros alone is zero, too
        module = attention(tiny, pad_nouns_in_softmax=padded)
        nothing = module.alpha_linear2(torch.zeros_like(states[0]))
        alpha = torch.sigmoid(module.linear(torch.cat([module.alpha_linear1(states[0]), nothing], dim=-1)))
        torch.testing.assert_close(module(states, nouns)[0], (1 - alpha) * states[0], **EXACT)
        assert torch.isfinite(module(states, torch.zeros_like(nouns))).all()


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_a_post_depends_on_its_batch_only_where_padding_takes_a_share(tiny, padded):
    states, _, nouns, *_ = random_inputs(tiny, 3, columns=9)
    counts = nouns.sum(-1)
    shorter = (counts > 0) & (counts < counts.max())
    assert shorter.sum() == 2
    module = attention(tiny, pad_nouns_in_softmax=padded)
    alone = torch.cat([module(states[i : i + 1], nouns[i : i + 1]) for i in range(len(states))])
    change = (module(states, nouns) - alone).abs().amax((1, 2))
    assert change[~shorter].max() < 1e-9
    assert change[shorter].min() > 1e-3 if padded else change[shorter].max() < 1e-9


@torch.no_grad()
def test_nouns_are_scored_once_a_post(tiny):
    module = attention(tiny)
    batch, slots, columns, hidden = 4, 20, 10, tiny.HIDDEN
    states, _, nouns, *_ = random_inputs(tiny, 0, batch, slots, columns)
    with FlopCounterMode(display=False) as counter:
        module(states, nouns)
    rows = columns + (slots + columns) + 1  # scores of columns; gates of positions; the gate's part of the aspect
    assert counter.get_total_flops() == 2 * batch * (rows * (hidden * hidden + hidden) + columns * hidden)


# --- graph


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_graph_is_its_formula(tiny, seed):
    module = graph(tiny, seed, layers=1 + seed % 3, graph_proportion=0.3)
    inputs = random_inputs(tiny, seed, **random_shape(seed))
    torch.testing.assert_close(module(*inputs), graph_by_definition(module, *inputs), **EXACT)


@torch.no_grad()
def test_adjacency_is_symmetric_with_ones_and_its_picture_has_no_edge_where_it_is_masked(tiny):
    states, mask, nouns, dependencies, _ = random_inputs(tiny, 1)
    edges = LRSAAspectGraph.adjacency(states, mask, nouns, dependencies)
    slots = states.shape[1] - nouns.shape[1]
    assert torch.equal(edges.diagonal(dim1=1, dim2=2), torch.ones_like(edges[:, 0]))
    torch.testing.assert_close(edges, edges.transpose(1, 2), **EXACT)
    image = edges[:, :slots]
    assert not image[:, :, :slots].triu(1).any(), "no edges within a picture"
    assert nouns[1].any() and not mask[1, :slots].any() and not image[1, :, slots:].any()
    linked = image[2, :, slots:] != 0
    assert torch.equal(linked, nouns[2].expand(slots, -1)) and linked.any()
    assert (edges < 0).any()


@torch.no_grad()
def test_missing_dependencies_and_sentiment_are_none_at_all(tiny):
    module = graph(tiny)
    states, mask, nouns, dependencies, sentiment = random_inputs(tiny, 2)
    no_arcs, no_sentiment = torch.zeros_like(dependencies), torch.zeros_like(sentiment)
    got = module(states, mask, nouns, None, None)
    torch.testing.assert_close(got, graph_by_definition(module, states, mask, nouns, no_arcs, no_sentiment), **EXACT)
    assert torch.equal(module(states, mask, nouns, None, sentiment), module(states, mask, nouns, no_arcs, sentiment))
    assert torch.equal(
        module(states, mask, nouns, dependencies, None), module(states, mask, nouns, dependencies, no_sentiment)
    )


def test_no_gradient_goes_through_the_adjacency(tiny):
    module = graph(tiny)
    states, mask, nouns, dependencies, sentiment = random_inputs(tiny, 4)
    states.requires_grad_()
    fixed = LRSAAspectGraph.adjacency(states, mask, nouns, dependencies)
    assert not fixed.requires_grad
    probe = torch.randn(states.shape, generator=torch.Generator().manual_seed(0), dtype=states.dtype)
    (got,) = torch.autograd.grad((module(states, mask, nouns, dependencies, sentiment) * probe).sum(), states)
    # The same with the graph given as a number.
    value = torch.nn.functional.pad(sentiment, (3, 0)).double().unsqueeze(-1)
    nodes = module.context(states + module.sentiment(value))
    for layer in module.layers:
        nodes = layer(nodes, fixed, mask)
    (want,) = torch.autograd.grad(((states + module.proportion * nodes) * probe).sum(), states)
    torch.testing.assert_close(got, want, **EXACT)


# --- in a model


def aom_inputs(tiny, model, seed=0):
    inputs = tiny.batch([tiny.post(model, seed + i, length=5 + i, picture=True) for i in range(4)], labels=True)
    columns = inputs["input_ids"].shape[1]
    _, _, nouns, dependencies, sentiment = random_inputs(tiny, seed, columns=columns)
    nouns[0, 1] = True
    return inputs | {"noun_mask": nouns, "dependency_matrix": dependencies, "sentiment_value": sentiment}


@pytest.mark.parametrize("padded", [False, True])
def test_gradient_reaches_every_parameter_but_the_one_that_cancels(tiny, padded):
    model = tiny.model(
        "bart",
        "regions",
        num_fusion_layers=0,
        aspect_attention=True,
        num_graph_layers=2,
        pad_nouns_in_softmax=padded,
    )
    model(**aom_inputs(tiny, model)).loss.backward()
    modules = model.get_encoder()
    for part in (modules.aspect_attention, modules.aspect_graph):
        for name, parameter in part.named_parameters():
            if name.startswith("multi_linear"):
                assert parameter.grad is None and not parameter.requires_grad
            elif name == "att_linear.bias":  # the same for all nouns, so it cancels as well
                assert parameter.grad.abs().max() < 1e-6
            else:
                assert parameter.grad.abs().max() > 1e-6, name
    hidden = tiny.HIDDEN
    halves = modules.aspect_attention.att_linear.weight.grad[0].split(hidden)
    assert halves[0].abs().max() > 1e-6 and not halves[1].any()


@torch.no_grad()
def test_the_pointer_head_reads_no_graph_and_the_decoder_does(tiny):
    model = tiny.model("bart", "regions", num_fusion_layers=0, aspect_attention=True, num_graph_layers=2)
    inputs = aom_inputs(tiny, model)
    del inputs["labels"]
    outputs = model.get_encoder()(**inputs)
    columns = inputs["input_ids"].shape[1]
    added = outputs.last_hidden_state[:, -columns:] - outputs.text_states
    text = inputs["attention_mask"].bool()
    assert not added[~text].any(), "the graph adds nothing to padding"
    assert added[text].abs().max() > 1e-3
    other = model.get_encoder()(**inputs | {"sentiment_value": -inputs["sentiment_value"]})
    assert torch.equal(outputs.text_states, other.text_states)
    assert not torch.allclose(outputs.last_hidden_state, other.last_hidden_state, atol=1e-4)


def test_nouns_of_another_length_are_refused(tiny):
    model = tiny.model("bart", "regions", num_fusion_layers=0, aspect_attention=True)
    inputs = aom_inputs(tiny, model)
    inputs["noun_mask"] = torch.nn.functional.pad(inputs["noun_mask"], (2, 0))
    columns = inputs["input_ids"].shape[1]
    with pytest.raises(ValueError, match=rf"noun_mask is \(4, {columns + 2}\), the text \(4, {columns}\)"):
        model(**inputs)


@torch.no_grad()
def test_posts_of_a_model_do_not_depend_on_their_batch(tiny):
    model = tiny.model("bart", "regions", num_fusion_layers=0, aspect_attention=True, num_graph_layers=2)
    inputs = aom_inputs(tiny, model)
    together = model(**inputs).logits
    steps = inputs["labels"].ne(-100).sum(-1)
    for row in range(len(together)):
        alone = model(**{name: value[row : row + 1] for name, value in inputs.items()}).logits[0]
        torch.testing.assert_close(together[row, : steps[row]], alone[: steps[row]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(tiny, dtype, padded):
    """Under autocast states are in single precision and scores of nouns are not."""
    model = tiny.model(
        "bart", "regions", num_fusion_layers=0, aspect_attention=True, num_graph_layers=2, pad_nouns_in_softmax=padded
    )
    inputs = aom_inputs(tiny, model)
    wanted = model(**inputs).loss.item()
    with torch.autocast("cpu", dtype=dtype):
        loss = model(**inputs).loss
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=0.03)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.to(dtype)(**inputs).loss.item() == pytest.approx(wanted, rel=0.05)
