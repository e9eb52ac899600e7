"""What `lrsa rationalize` refuses."""

import re

import pytest

from hub_scripts.cli import main

from .cases import write_posts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl", "out.jsonl"], "none.jsonl: no such file"),
        (["none", "out"], "none: no such file or folder"),
        (["images", "out"], "images: holds none of train.jsonl"),
        (["bad.jsonl", "out.jsonl"], "bad.jsonl:2: text: "),
        (["posts.jsonl", "out"], "out: .*posts.jsonl is no folder; name a file that ends in .jsonl"),
        ([".", "out.jsonl"], "out.jsonl: .* is a folder of splits; name a folder for them"),
        (["posts.jsonl", "posts.jsonl/out.jsonl"], "can't be written to"),
        (["posts.jsonl", "out.jsonl", "--format", "parquet"], "out.jsonl: a file has the form of its name"),
        (["posts.jsonl", "out.jsonl", "--store", "posts.jsonl"], "posts.jsonl: is no store of answers"),
        (["posts.jsonl", "out.jsonl", "--text-prompt", "none.yaml"], "none.yaml: no prompt file"),
        (
            ["posts.jsonl", "out.jsonl", "--text-prompt", "image_rationale"],
            "is image_rationale; one for text_rationale",
        ),
        (["posts.jsonl", "out.jsonl", "--evidence", "none.jsonl"], "none.jsonl: no such file"),
        (["posts.jsonl", "out.jsonl", "--shots", "50"], "has 3 examples; 50 shots are asked for"),
        (["posts.jsonl", "out.jsonl", "--url", "no url"], "The base URL is no address"),
        (["posts.jsonl", "out.jsonl"], "no server answers there .* What was answered is kept in .*out.answers.sqlite"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_posts(tmp_path, 2)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"bad": 1}\n')
    server = [] if "--url" in arguments else ["--url", "http://127.0.0.1:9"]
    assert main(["rationalize", *arguments, "--model", "m", *server]) == 2
    error = capfd.readouterr().err
    assert re.match(f"lrsa rationalize: .*{message}", error) and len(error.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--temperature=nan", "nan is no temperature"),
        ("--temperature=-1", "-1 is no temperature"),
        ("--temperature=inf", "inf is no temperature"),
        ("--top-p=0", "0 does not lie between 0 and 1"),
        ("--top-p=7", "7 does not lie between 0 and 1"),
        ("--top-p=nan", "nan does not lie between 0 and 1"),
    ],
)
def test_sampling_that_cannot_be(option, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["rationalize", "posts.jsonl", "out.jsonl", "--model", "m", "--url", "http://127.0.0.1:9", option])
    assert message in capsys.readouterr().err
