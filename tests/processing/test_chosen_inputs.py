import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing import PostError
from processing.chosen_inputs import RATIONALES, choose_rationales, keep_inputs, shuffle_rationales
from processing.posts import FEATURES, Dataset


def posts_of(rationales, **more):
    rows = [
        dict.fromkeys(FEATURES)
        | {"id": str(index), "text": "a b", "aspects": [], **dict(zip(RATIONALES, pair))}
        | more
        for index, pair in enumerate(rationales)
    ]
    return Dataset.from_list(rows, features=FEATURES)


def pairs(posts):
    return [tuple(post[name] for name in RATIONALES) for post in posts]


@pytest.mark.parametrize("which", ["both", "text", "image", "none"])
def test_choice_of_rationales(which):
    posts = posts_of([("i0", "t0"), (None, "t1"), ("i2", None)], image_features="file.npy")
    found = choose_rationales(posts, which)
    for (image, text), (had_image, had_text) in zip(pairs(found), pairs(posts)):
        assert image == (had_image if which in ("both", "image") else None)
        assert text == (had_text if which in ("both", "text") else None)
    assert found.column_names == posts.column_names and found.features == posts.features
    assert found["image_features"] == ["file.npy"] * 3 and found["text"] == posts["text"]
    assert (found._fingerprint == posts._fingerprint) is (which == "both")


def test_an_unknown_choice():
    with pytest.raises(PostError, match="rationales: 'all' is unknown; one of both, text, image, none is expected"):
        choose_rationales(posts_of([("i", "t")]), "all")


def test_kept_inputs():
    posts = posts_of([("i0", "t0")], image_features="file.npy")
    bare = keep_inputs(posts, ["text_rationale"])[0]
    assert (bare["image"], bare["image_features"], bare["image_rationale"]) == (None, None, None)
    assert bare["text_rationale"] == "t0"


@settings(deadline=None, max_examples=40)
@given(has=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=12), seed=st.integers(0, 10**6))
def test_shuffled_rationales_are_those_of_others(has, seed):
    given = [(f"i{n}" if image else None, f"t{n}" if text else None) for n, (image, text) in enumerate(has)]
    posts = posts_of(given)
    if sum(map(any, has)) == 1:
        with pytest.raises(PostError, match="one post alone"):
            shuffle_rationales(posts, seed)
        return
    found = pairs(shuffle_rationales(posts, seed))
    for former, pair in zip(given, found):
        assert any(former) == any(pair)
        assert pair != former or not any(pair)
    assert sorted(map(str, found)) == sorted(map(str, given)), "every pair is somebody's, and moves as a pair"
    assert found == pairs(shuffle_rationales(posts, seed))


def test_seeds_shuffle_differently():
    posts = posts_of([(None, f"t{n}") for n in range(20)])
    orders = {str(pairs(shuffle_rationales(posts, seed))) for seed in range(5)}
    assert len(orders) == 5


def test_cached_files_are_found_again_by_other_processes():
    """Names of files follow from the fingerprint, which must not follow from the process."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_chosen_inputs import *; posts = posts_of([(None, f't{n}') for n in range(5)]);"
        "posts._fingerprint = 'posts';"
        "print(shuffle_rationales(choose_rationales(posts, 'text'), 1)._fingerprint)"
    )
    command = [sys.executable, "-c", code, __file__.rpartition("/")[0]]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1] and runs[0].strip()
