"""`torch.compile` of the decode step."""

import pytest
import torch
from transformers import CompileConfig

from .cases import KINDS


def counting_backend():
    """A backend that compiles nothing, and the list of the graphs that it was given."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    return backend, graphs


ONE_LAYER = {"bart vit": {"text_changes": {"decoder_layers": 1}}, "bert regions": {"decoder_layers": 1}}


def batches_of(tiny, model, lengths):
    """Batches of two posts of given lengths, each with other inputs left out."""
    for index, pair in enumerate(lengths):
        yield tiny.batch(
            [
                tiny.post(
                    model,
                    10 * index + row,
                    length=length,
                    picture=index % 2 == 0,
                    image_rationale=3 + index if index % 3 == 0 else 0,
                    text_rationale=2 + row if index in (0, 3) else 0,
                )
                for row, length in enumerate(pair)
            ]
        )


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["bart vit", "bert regions"])
def test_decode_step_compiles_once_for_each_source_length(tiny, fresh_dynamo, name):
    """With a static cache, in one graph; whatever of picture and rationales a batch has."""
    model = tiny.model(**KINDS[name], **ONE_LAYER[name])
    backend, graphs = counting_backend()
    settings = CompileConfig(backend=backend, mode=None, fullgraph=True, dynamic=False)
    settings._compile_all_devices = True
    options = {"max_new_tokens": 10, "min_new_tokens": 7}
    counts = []
    for inputs in batches_of(tiny, model, [(9, 7), (9, 4), (8, 9), (6, 5), (6, 6), (9, 9)]):
        want = model.generate(**inputs, **options)
        found = model.generate(**inputs, **options, cache_implementation="static", compile_config=settings)
        assert torch.equal(found, want) and found.shape[1] > 7
        counts.append(len(graphs))
    assert counts == [1, 1, 1, 2, 2, 2]


def test_compiled_forward_with_a_growing_cache(tiny, fresh_dynamo):
    """Prefill, first step and later steps are three graphs, which serve every length of source and targets."""
    model = tiny.model(**KINDS["bert regions"], decoder_layers=1)
    compiled = tiny.model(**KINDS["bert regions"], decoder_layers=1)
    backend, graphs = counting_backend()
    compiled.forward = torch.compile(compiled.forward, backend=backend, dynamic=True)
    for inputs in batches_of(tiny, model, [(9, 7), (9, 4), (6, 5), (11, 8)]):
        options = {"max_new_tokens": 7, "min_new_tokens": 4, "num_beams": 2}
        assert torch.equal(compiled.generate(**inputs, **options), model.generate(**inputs, **options))
        assert len(graphs) == 3
