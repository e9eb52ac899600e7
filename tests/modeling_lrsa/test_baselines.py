"""VLP-MABSA and AoM, number for number, on tiny reference runs of the originals with every intermediate.

The runs lie beside the checkout, in `shared/fixtures`; any folder of their form is taken.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.conversion import convert, convert_state_dict
from modeling_lrsa.encoder_lrsa import LRSAEncoderOutput
from modeling_lrsa.fusion_lrsa import LRSADualCrossAttention


FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
RUNS = sorted(path.parent.name for path in FIXTURES.glob("*/outputs.npz"))
pytestmark = pytest.mark.skipif(not RUNS, reason=f"no reference runs in {FIXTURES}")


class Run:
    def __init__(self, name):
        folder = FIXTURES / name
        self.config = json.loads((folder / "config.json").read_text())
        self.is_aom = self.config["model"] == "aom"
        self.state = load_file(folder / "model.safetensors")
        self.model, self.unused = convert(folder, "aom" if self.is_aom else "vlp-mabsa")
        arrays = {part: dict(np.load(folder / f"{part}.npz")) for part in ("inputs", "outputs")}
        given = {name: torch.from_numpy(array) for name, array in arrays["inputs"].items()}
        self.outputs = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays["outputs"].items()}
        self.offset = self.config["text_offset"]
        self.source_mask = given["attention_mask"].bool()
        self.labels, self.label_mask = given["labels"], given["label_mask"].bool()
        self.inputs = {"image_features": given["image_features"]}
        for name in ("input_ids", "attention_mask", "noun_mask"):
            if name in given:
                self.inputs[name] = given[name][:, self.offset :]
        for name in ("dependency_matrix", "sentiment_value"):
            if name in given:
                self.inputs[name] = given[name]

    @property
    def own_labels(self):
        return torch.where(self.label_mask, self.labels, -100)[:, 3:]


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    return Run(request.param)


def close(found, want, tolerance, mask=None):
    difference = (found - want).abs()
    assert (difference if mask is None else difference[mask]).max() < tolerance


def test_encoder(run):
    encoder, seen = run.model.get_encoder(), {}
    text_model = encoder.text_model
    hooks = [text_model.layernorm_embedding.register_forward_hook(lambda *a: seen.update(embedding=a[-1]))]
    with torch.no_grad():
        outputs = encoder(**run.inputs)
    if run.is_aom:
        hooks.append(
            encoder.aspect_attention.register_forward_hook(lambda *a: seen.update(encoder=a[1][0], a3m=a[-1]))
        )
        with torch.no_grad():
            encoder(**run.inputs)
    for hook in hooks:
        hook.remove()
    mask, want = run.source_mask, run.outputs
    close(seen["embedding"], want["encoder_embedding_output"], 1e-5, mask)
    close(seen["encoder"] if run.is_aom else outputs.last_hidden_state, want["encoder_last_hidden_state"], 1e-5, mask)
    assert torch.equal(outputs.source_mask, mask)
    memory = run.model.pointer_head.source_mlp(outputs.text_states)
    close(memory, want["pointer_memory"][:, run.offset :], 1e-5, mask[:, run.offset :])
    if run.is_aom:
        close(seen["a3m"], want["a3m_output"], 1e-5, mask)
        close(outputs.last_hidden_state, want["mix_feature"], 1e-5, mask)
        words = run.inputs["noun_mask"], run.inputs["dependency_matrix"]
        close(encoder.aspect_graph.adjacency(seen["a3m"], mask, *words), want["gcn_adjacency"], 1e-5)


def test_logits_and_loss(run):
    with torch.no_grad():
        logits = run.model(**run.inputs, decoder_input_ids=run.labels).logits
        labelled = run.model(**run.inputs, labels=run.own_labels)
    want = run.outputs["logits_eval"]
    rows = F.pad(run.label_mask[:, 1:], (0, 1))
    possible = want > -1e20
    assert torch.equal((logits > -1e20)[rows], possible[rows])
    close(logits, want, 1e-4, rows.unsqueeze(-1) & possible)
    close(labelled.loss, run.outputs["loss"], 1e-5)
    close(labelled.logits, logits[:, 2:-1], 1e-5, (rows[:, 2:-1].unsqueeze(-1) & possible[:, 2:-1]))


def test_gradients(run):
    """Each weight's, by its name there. Those that do not matter have rounding noise there, and nothing here."""
    model = copy.deepcopy(run.model)
    model(**run.inputs, labels=run.own_labels).loss.backward()
    found = {name: p.grad.double().norm().item() for name, p in model.named_parameters() if p.grad is not None}
    names = run.config["param_names_sorted"]
    checked = 0
    for name, want in zip(names, run.outputs["grad_l2"].tolist()):
        own = next(iter(convert_state_dict({name: run.state[name]})[0]), None)
        gradient = found.get(own, 0.0)
        if own is None or np.isnan(want):
            assert np.isnan(want) and gradient < 1e-6, name
            continue
        assert gradient == pytest.approx(want, rel=1e-3, abs=1e-6), name
        checked += 1
    assert checked > 60


GENERATED = [("maxlen10_a0.6", "max_lengths_10_a0.6"), ("maxlen13_a0", None)]


def caps_of(run, caps):
    return run.outputs[caps].tolist() if caps else [13] * len(run.labels)


def same(found, want):
    length = max(len(found), len(want))
    return torch.equal(*(F.pad(row, (0, length - len(row)), value=1) for row in (found, want)))


def encoded(run, row):
    """The row as its whole batch encodes it, on which padded nouns make it depend."""
    with torch.no_grad():
        outputs = run.model.get_encoder()(**run.inputs)
    return LRSAEncoderOutput(**{name: value[row : row + 1] for name, value in outputs.items()})


@pytest.mark.parametrize("name, caps", GENERATED)
def test_greedy(run, name, caps):
    for row, cap in enumerate(caps_of(run, caps)):
        sequence = run.model.generate(
            encoder_outputs=encoded(run, row), max_length=cap, constrained_decoding=False, forced_eos_token_id=1
        )[0]
        assert same(sequence, run.outputs[f"greedy_{name}"][row])


def reference_beam_search(run, encoder_outputs, cap, longest, beams=4):
    """The originals' search on our logits: lengths count the prefix, an early end keeps its EOS, caps are a row's."""

    def log_probabilities(sequences):
        rows = {name: value.expand(len(sequences), *value.shape[1:]) for name, value in encoder_outputs.items()}
        with torch.no_grad():
            scores = run.model(
                encoder_outputs=LRSAEncoderOutput(**rows), decoder_input_ids=torch.tensor(sequences)
            ).logits[:, -1]
        if len(sequences[0]) + 1 == cap:
            scores[:, 1] += 1e32
        return scores.log_softmax(-1)

    finished = []

    def finish(sequence, score):
        finished.append((score / len(sequence), sequence))
        finished.sort(key=lambda pair: -pair[0])
        del finished[beams:]

    prefix = [0, 2, 2]
    scores, tokens = log_probabilities([prefix])[0].topk(beams + 1)
    running = []
    for place, (score, token) in enumerate(zip(scores.tolist(), tokens.tolist())):
        if token == 1:
            if place < beams:
                finish([*prefix, 1], score)
        elif len(running) < beams:
            running.append((score, [*prefix, token]))
    while len(running[0][1]) < cap:
        steps = log_probabilities([sequence for _, sequence in running])
        totals = steps + torch.tensor([score for score, _ in running]).unsqueeze(-1)
        scores, places = totals.flatten().topk(2 * beams)
        following = []
        for place, (score, index) in enumerate(zip(scores.tolist(), places.tolist())):
            sequence, token = running[index // steps.shape[1]][1], index % steps.shape[1]
            if token == 1:
                if place < beams:
                    finish(sequence, score)
            elif len(following) < beams:
                following.append((score, [*sequence, token]))
        if len(running[0][1]) + 1 >= cap or not following:
            break
        running = following
        if len(finished) == beams and finished[-1][0] >= scores[0].item() / (longest - 1):
            break
    return torch.tensor([*finished[0][1], 1])


@pytest.mark.parametrize("name, caps", GENERATED)
def test_beam_search(run, name, caps):
    """Equal where transformers' rule agrees; the originals' own rule, on our logits, gives every row."""
    caps = caps_of(run, caps)
    agree = 0
    for row, cap in enumerate(caps):
        want, outputs = run.outputs[f"beam4_{name}"][row], encoded(run, row)
        assert same(reference_beam_search(run, outputs, cap, max(caps)), want)
        found = run.model.generate(
            encoder_outputs=outputs, num_beams=4, max_length=cap, constrained_decoding=False, forced_eos_token_id=1
        )[0]
        agree += same(found, want)
    assert agree >= len(caps) - 1


# --- with fusion on top


@pytest.fixture
def folder(run, tmp_path):
    run.model.save_pretrained(tmp_path / "baseline")
    return tmp_path / "baseline"


def rationales(run):
    generator = torch.Generator().manual_seed(0)
    rows, tokens = len(run.labels), run.model.config.text_config.vocab_size
    ids = {kind: torch.randint(5, tokens, (rows, 7), generator=generator) for kind in ("image", "text")}
    return {f"{kind}_rationale_input_ids": value for kind, value in ids.items()}


@pytest.mark.parametrize("fields", [{}, {"fusion_position": "after", "rationale_encoder": "shared"}])
def test_fusion_starts_at_the_baseline(run, folder, fields):
    model = LRSAForMABSA.from_pretrained(folder, num_fusion_layers=2, **fields)
    with torch.no_grad():
        want = run.model(**run.inputs, labels=run.own_labels).logits
        assert torch.equal(model(**run.inputs, labels=run.own_labels).logits, want)
        assert torch.equal(model(**run.inputs, **rationales(run), labels=run.own_labels).logits, want)


def test_fusion_learns_after_one_step(run, folder):
    model = LRSAForMABSA.from_pretrained(folder, num_fusion_layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = run.inputs | rationales(run) | {"labels": run.own_labels}
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    blocks = [module for module in model.modules() if isinstance(module, LRSADualCrossAttention)]
    assert len(blocks) == 4
    for block in blocks:
        for name, parameter in block.named_parameters():
            assert parameter.grad.abs().max() > 0, name


# --- tasks


def gold_triples(run):
    return [row[row >= 0][:-1].view(-1, 3).tolist() for row in run.own_labels]


def test_masc_from_the_same_checkpoint(run):
    gold = gold_triples(run)
    longest = max(map(len, gold))
    spans = [[[s - 6, e - 6] for s, e, _ in row] + [[-1, -1]] * (longest - len(row)) for row in gold]
    sequences = run.model.generate(**run.inputs, aspect_spans=torch.tensor(spans))
    found = [row[3 : 3 + 3 * len(want)].view(-1, 3).tolist() for row, want in zip(sequences, gold)]
    assert [[triple[:2] for triple in row] for row in found] == [[triple[:2] for triple in row] for row in gold]
    pairs = [(a[2], b[2]) for row, want in zip(found, gold) for a, b in zip(row, want)]
    assert {a for a, _ in pairs} <= {3, 4, 5}
    if run.config.get("overfit_steps_on_these_samples"):
        assert sum(a == b for a, b in pairs) >= 0.8 * len(pairs)


def test_the_grammar_holds_behind_the_prefix(run):
    sequences = run.model.generate(**run.inputs, num_beams=4)
    assert (sequences[:, :3] == torch.tensor([0, 2, 2])).all()
    for row in sequences[:, 3:].tolist():
        triples = row[: row.index(1)]
        assert len(triples) % 3 == 0
        starts, ends, polarities = triples[::3], triples[1::3], triples[2::3]
        assert all(6 <= start <= end for start, end in zip(starts, ends)) and set(polarities) <= {3, 4, 5}
