import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import PostError
from processing.mapping_file import read_mapping


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return read_mapping(path, "recipe", "names to values")

    return read


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z]{1,6}", fullmatch=True), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex("[a-z]{1,6}", fullmatch=True), VALUES))
def test_json_is_read_as_json(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("json") / "settings.json"
    path.write_text(json.dumps(given, indent=1))
    assert read_mapping(path, "recipe", "names to values") == given


def test_lines_and_words(read):
    found = read("save_strategy: no\n\nfreeze: true  # a comment\nwords: [on, Off, yes]\ninner:\n  deep: 1e-4\n")
    assert found == {
        "save_strategy": "no",
        "freeze": True,
        "words": ["on", "Off", "yes"],
        "inner": {"deep": "1e-4"},
    }
    assert found.lines == {"save_strategy": 1, "freeze": 3, "words": 4, "inner": 5}
    assert found["inner"].lines == {"deep": 6}


def test_own_keys_win_over_merged_ones(read):
    found = read("one: &one {a: 1, b: 2}\ntwo:\n  <<: *one\n  b: 3\nthree: {b: 4, <<: *one}\n")
    assert found["two"] == {"a": 1, "b": 3} and found["three"] == {"a": 1, "b": 4}
    assert found["two"].lines == {"a": 1, "b": 4}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: a stands here again; keep one."),
        ("one: &one {a: 1}\ntwo:\n  <<: *one\n  b: 1\n  b: 2\n", ":5: b stands here again; keep one."),
        ("a: 1\n[b]: 2\n", ":2: a list or a mapping is no key"),
        ("a: [1\nb: 2\n", ":2: neither YAML nor JSON: "),
        ("- a\n", ": a mapping of names to values is expected."),
        ("", ": a mapping of names to values is expected."),
    ],
)
def test_bad_files(read, text, told):
    with pytest.raises(PostError) as error:
        read(text)
    assert f"settings.yaml{told}" in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name, told in (
        ("none.yaml", "no such recipe."),
        (".", "can't be read (Is a directory); name the file of a recipe."),
        ("latin.yaml", "no UTF-8 (invalid continuation byte); save the file as UTF-8."),
    ):
        with pytest.raises(PostError) as error:
            read_mapping(tmp_path / name, "recipe", "names to values")
        assert str(error.value) == f"{tmp_path / name}: {told}"
