"""Checkpoints of VLP-MABSA and AoM, of any sizes, are read whole or refused."""

import collections
import importlib.util
import json
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.conversion import ADDED_TOKENS, CheckpointError, added_tokens, convert, read_checkpoint


def load_maker():
    spec = importlib.util.spec_from_file_location(
        "checkpoint_maker", Path(__file__).parents[1] / "checkpoint_maker.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = load_maker()
SOURCES = ("vlp-mabsa", "aom")


def save(state, path):
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def refusal(path, source="vlp-mabsa", num_heads=2):
    with pytest.raises(CheckpointError) as caught:
        convert(path, source, num_heads)
    message = str(caught.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    return message


# --- whatever the sizes


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_sizes_come_from_the_tensors(source, data, tmp_path):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    heads, slots = draw(1, 3), draw(1, 60)
    sizes = {
        "vocabulary": draw(4, 70),
        "width": heads * draw(1, 4) * 2,
        "ffn": draw(1, 20),
        "layers": (draw(1, 3), draw(1, 3)),
        "positions": slots + draw(6, 50),
        "features": draw(1, 9),
        "tokens": draw(17, len(ADDED_TOKENS[source])),
        "spare": data.draw(st.sampled_from([5, 0, 6])),
    }
    state = maker.checkpoint(source, **sizes, seed=draw(0, 1000))
    (tmp_path / "config.json").write_text(json.dumps({"num_image_tokens": slots}))
    model, unused = convert(save(state, tmp_path / "a.pt"), source, heads)

    text, config = model.config.text_config, model.config
    assert (text.vocab_size, text.d_model) == state["encoder.embed_tokens.weight"].shape
    assert (text.encoder_layers, text.decoder_layers) == sizes["layers"]
    assert text.encoder_ffn_dim == text.decoder_ffn_dim == sizes["ffn"]
    assert text.encoder_attention_heads == text.decoder_attention_heads == heads
    assert config.max_text_length == sizes["positions"] - slots - 2
    assert (config.num_image_tokens, config.image_feature_size) == (slots, sizes["features"])
    first, tokens = added_tokens(config, source)
    assert first == sizes["vocabulary"]
    assert tokens == maker.ADDED[source][: len(tokens)]
    assert {"<<AESC>>", "<<POS>>", "<<NEU>>", "<<NEG>>"} <= set(tokens) and first + len(tokens) <= text.vocab_size
    if sizes["spare"] == 5:
        assert len(tokens) == sizes["tokens"]

    inputs = torch.randint(0, sizes["vocabulary"], (2, 4)), torch.ones(2, 4, dtype=torch.long)
    features = torch.randn(2, slots, sizes["features"])
    logits = model(*inputs, image_features=features, labels=torch.tensor([[7, 7, 3, 1]] * 2)).logits
    assert logits.shape == (2, 4, 6 + 4) and logits.isfinite().all()
    assert_weights_are_all_there(model, state, unused, source)


def assert_weights_are_all_there(model, state, unused, source):
    """Each tensor lies, as often as in the checkpoint, among the model's; what does not is named as unused."""
    own = collections.Counter(value.numpy().tobytes() for value in model.state_dict().values())
    for name, value in state.items():
        if name in ("decoder.causal_masks", "decoder.mapping", "decoder.decoder.embed_tokens.weight", *unused):
            continue
        if name.startswith("context_gcn.gc") and value.dim() == 2:
            value = value.T.contiguous()
        assert own[value.numpy().tobytes()], name
    if source == "vlp-mabsa":
        assert unused == []
    else:
        owners = (
            "attention.query_layer",
            "senti_linear",
            "dep_linear1",
            "gat_linear",
            "senti_gcn.gc1",
            "senti_gcn.gc2",
        )
        assert sorted(unused) == sorted(f"{owner}.{part}" for owner in owners for part in ("weight", "bias"))


def outputs(model):
    torch.manual_seed(1)
    features = torch.randn(2, model.config.num_image_tokens, model.config.image_feature_size)
    ids = torch.randint(4, 40, (2, 6))
    return model(ids, image_features=features, labels=torch.tensor([[7, 8, 3, 1]] * 2)).logits


@pytest.mark.parametrize("source", SOURCES)
def test_every_form_of_file_gives_the_same(source, tmp_path):
    state = maker.checkpoint(source)
    forms = {name: save(state, tmp_path / name) for name in ("a.bin", "a.pt", "a.safetensors", "model.safetensors")}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    wrapped = {f"module.seq2seq_model.{name}": value for name, value in state.items()}
    (tmp_path / "folder").mkdir()
    save(state, tmp_path / "folder" / "pytorch_model.bin")
    paths = [*forms.values(), tmp_path / "old.pt", save(wrapped, tmp_path / "w.bin"), tmp_path, tmp_path / "folder"]
    wanted = outputs(convert(paths[0], source, 2)[0])
    for path in paths[1:]:
        assert torch.equal(outputs(convert(path, source, 2)[0]), wanted), path


def test_a_converted_model_survives_saving(tmp_path):
    model, _ = convert(save(maker.checkpoint("aom"), tmp_path / "a.pt"), "aom", 2)
    model.save_pretrained(tmp_path / "out")
    assert torch.equal(outputs(LRSAForMABSA.from_pretrained(tmp_path / "out")), outputs(model))


def test_who_tells_the_heads(tmp_path):
    def heads(num_heads=None, width=128, **settings):
        path = save(maker.checkpoint("vlp-mabsa", width=width), tmp_path / "a.pt")
        (tmp_path / "config.json").write_text(json.dumps(settings))
        text = convert(path, "vlp-mabsa", num_heads)[0].config.text_config
        return text.encoder_attention_heads, text.decoder_attention_heads

    assert heads() == (2, 2)
    assert heads(encoder_attention_heads=4, decoder_attention_heads=8) == (4, 8)
    assert heads(16, encoder_attention_heads=4, decoder_attention_heads=8) == (16, 16)
    with pytest.raises(CheckpointError, match="width 8 is no multiple of .*--num-heads"):
        heads(width=8)
    with pytest.raises(CheckpointError, match="8 can't be divided into 3 attention heads"):
        heads(3, width=8)


@pytest.mark.parametrize("side, layers", [("encoder", (1, 2)), ("decoder", (2, 1))])
def test_layers_that_are_missing_as_a_whole(side, layers, tmp_path):
    """Tensors alone can't tell; what is beside the checkpoint does."""
    path = save(maker.checkpoint("vlp-mabsa", layers=layers), tmp_path / "a.pt")
    convert(path, "vlp-mabsa", 2)
    (tmp_path / "config.json").write_text('{"encoder_layers": 2, "decoder_layers": 2}')
    assert refusal(path).endswith(f"its {side} has 1 layers, 2 by the config.json beside it.")


def test_dropouts_are_those_of_bart_base(tmp_path):
    """The projects took their layers from it, and what is written into their config.json had no effect."""
    path = save(maker.checkpoint("vlp-mabsa"), tmp_path / "a.pt")
    written = {"dropout": 0.3, "attention_dropout": 0.0, "activation_dropout": 0.0, "activation_function": "relu"}
    for settings_beside, activation in (({}, "gelu"), (written, "relu")):
        (tmp_path / "config.json").write_text(json.dumps(settings_beside))
        config = convert(path, "vlp-mabsa", 2)[0].config
        text = config.text_config
        assert (text.dropout, text.attention_dropout, text.activation_dropout) == (0.1, 0.1, 0.1)
        assert (config.pointer_dropout, config.pointer_mlp_dropout) == (0.1, 0.3)
        assert text.activation_function == activation


# --- what is no checkpoint


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["a.bin", "a.safetensors", "old.pt"])
def test_truncated_files(source, name, tmp_path):
    state, path = maker.checkpoint(source), tmp_path / name
    if name == "old.pt":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        save(state, path)
    whole = path.read_bytes()
    for length in (0, 1, 10, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "truncated" in refusal(path, source), length
    path.write_bytes(b"hello, this is a text " * 9)
    assert "damaged" in refusal(path, source)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def dangerous(kind, path, ran):
    payload = Payload(ran)
    if kind == "in a state dict":
        torch.save(maker.checkpoint("vlp-mabsa") | {"extra": payload}, path)
    elif kind == "old format":
        torch.save(maker.checkpoint("vlp-mabsa") | {"extra": payload}, path, _use_new_zipfile_serialization=False)
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(payload, protocol=int(kind[-1])))
    else:
        module = torch.nn.Linear(2, 2)
        module.payload = payload
        torch.save(module, path, pickle_protocol=4 if kind.endswith("4") else 2)


@pytest.mark.parametrize(
    "kind",
    ["in a state dict", "old format", "pickle 0", "pickle 2", "pickle 4", "module saved whole", "whole, protocol 4"],
)
def test_no_code_in_a_file_is_run(kind, tmp_path):
    ran = tmp_path / "ran"
    dangerous(kind, tmp_path / "a.pt", ran)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the refusal is all that is said
        message = refusal(tmp_path / "a.pt")
    assert "state_dict()" in message and "would run code" in message
    assert not ran.exists()
    if "pickle" in kind:
        pickle.loads((tmp_path / "a.pt").read_bytes()).close()  # it is as dangerous as it is meant to be
        assert ran.exists()


def changed(state, **changes):
    state = dict(state)
    for name, value in changes.items():
        name = name.replace("__", ".")
        state.pop(name) if value is None else state.__setitem__(name, value)
    return state


X = torch.zeros(3, 3)
WRONG = {
    "another architecture": ({"bert.embeddings.weight": X}, "encoder.embed_tokens.weight is not in it"),
    "extra": ({"encoder__extra__weight": X, "unheard__of": X}, "2 weights more: encoder.extra.weight, unheard.of."),
    "of AoM": ({"noun_linear__weight": X}, "1 weights more: noun_linear.weight."),
    "missing": ({"encoder__layers__0__fc2__bias": None}, "it lacks 1 weights: .*layers.0.fc2.bias"),
    "no layers": ({"decoder__decoder__layers__0__fc1__weight": None}, "layers.0.fc1.weight is not in it"),
    "size": ({"encoder__layers__0__fc2__bias": X}, r"layers.0.fc2.bias is \(3, 3\), .* \(8,\)"),
    "embedding of one dimension": ({"encoder__embed_tokens__weight": X[0]}, "a matrix is expected"),
    "two tables": ({"decoder__decoder__embed_tokens__weight": X}, "share a table"),
    "few positions": ({"encoder__embed_positions__weight": X}, "has 1 positions"),
    "pre-trained": ({"decoder__mapping": torch.tensor([0, 2, 51, 52])}, r"\[0, 2, 51, 52\], not what vlp-mabsa has"),
    "extraction alone": (
        {"decoder__mapping": torch.tensor([0, 2, 52, 53, 54, 57])},
        "not what vlp-mabsa has for the joint task",
    ),
    "tags beyond the table": ({"decoder__mapping": torch.tensor([0, 2, 90, 91, 92, 93])}, "not what vlp-mabsa has"),
    "not a number": (
        {"encoder__layers__0__fc2__bias": X[0] / 0},
        "layers.0.fc2.bias holds infinite values or what is no number",
    ),
    "whole numbers": ({"encoder__layers__0__fc2__bias": X[0].int()}, "fc2.bias is a .*int32 .* real numbers"),
    "complex": ({"encoder__layers__0__fc2__bias": X[0] * 1j}, "layers.0.fc2.bias is a .*complex64"),
    "sparse": ({"encoder__layers__0__fc2__bias": X[0].to_sparse()}, "layers.0.fc2.bias is a torch.sparse_coo"),
    "without values": ({"encoder__layers__0__fc2__bias": X[0].to("meta")}, "layers.0.fc2.bias is .*meta"),
    "mapping of fractions": (
        {"decoder__mapping": torch.tensor([0.0, 2, 51, 52, 53, 54])},
        "not what vlp-mabsa has for the joint task",
    ),
    "mapping of no list": ({"decoder__mapping": torch.tensor(3)}, "not what vlp-mabsa has for the joint task"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_weights_are_named(kind, tmp_path):
    changes, message = WRONG[kind]
    state = changes if kind == "another architecture" else changed(maker.checkpoint("vlp-mabsa"), **changes)
    save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "a.pt", "vlp-mabsa", 2)
    refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: {k: v for k, v in state.items() if "context_gcn" not in k}, "lacks 4 weights: .*aspect_graph"),
        (lambda state: {k: v for k, v in state.items() if "_gcn.gc1" not in k}, "lacks 2 weights: .*aspect_graph"),
        (
            lambda state: state | {k.replace("gc2", "gc3"): v for k, v in state.items() if "context_gcn" in k},
            r"2 weights more: context_gcn.gc3.weight, context_gcn.gc3.bias\.",
        ),
    ],
)
def test_aom_has_two_graph_layers(change, message, tmp_path):
    save(change(maker.checkpoint("aom")), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "a.pt", "aom", 2)


@pytest.mark.parametrize("source", SOURCES)
def test_a_table_stored_once_under_either_name(source, tmp_path):
    """`safetensors.torch.save_model` keeps one name of what is tied: the decoder's."""
    state = maker.checkpoint(source)
    names = ("encoder.embed_tokens.weight", "decoder.decoder.embed_tokens.weight")
    wanted = outputs(convert(save(state, tmp_path / "a.pt"), source, 2)[0])
    for name in names:
        once = {key: value for key, value in state.items() if key != name}
        assert torch.equal(outputs(convert(save(once, tmp_path / "a.safetensors"), source, 2)[0]), wanted)


def test_one_is_not_taken_for_the_other(tmp_path):
    for source, other in (SOURCES, SOURCES[::-1]):
        refusal(save(maker.checkpoint(source), tmp_path / "a.pt"), other)


@pytest.mark.parametrize(
    "content", [{"epoch": 1, "model": {}}, {3: X}, [X], X, {}], ids=["nested", "numbers", "list", "tensor", "empty"]
)
def test_no_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    refusal(tmp_path / "a.pt")


def test_files_that_are_not_there(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.pt")
    assert "neither model.safetensors nor pytorch_model.bin" in refusal(tmp_path)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"activation_function": "magic"}', '{"num_image_tokens": "many"}', '{"num_image_tokens": -4}',
     '{"encoder_attention_heads": "two"}', '{"encoder_attention_heads": -2}', '{"num_image_tokens": 100000}'],
)  # fmt: skip
def test_settings_beside_that_make_no_model(content, tmp_path):
    save(maker.checkpoint("vlp-mabsa"), tmp_path / "a.pt")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "a.pt", "vlp-mabsa", None if "heads" in content else 2)
    assert len(str(caught.value).splitlines()) == 1 and "lacks" not in str(caught.value)
    assert re.search(r"config\.json|attention heads|positions", str(caught.value))
