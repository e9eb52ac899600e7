"""Tiny models of several kinds, and ways to generate."""

import pytest

from .cases import KINDS, MODES


@pytest.fixture(scope="module")
def models(tiny):
    return {name: tiny.model(**fields) for name, fields in KINDS.items()}


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


@pytest.fixture
def model(models, name):
    return models[name]


@pytest.fixture(params=["greedy", "beam"])
def mode(request):
    return MODES[request.param]
