"""docs/prompts.md: the user's file that it shows is one."""

import re
from pathlib import Path

import pytest

from processing import PostError
from processing.rationales import load_prompt


PAGE = (Path(__file__).parents[3] / "docs" / "prompts.md").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    return path


def test_the_file_is_a_prompt(file):
    prompt = load_prompt(file)
    assert (prompt.name, prompt.evidence) == ("curt@1", {"trends": "post", "caption": "picture"})
    turns = prompt.request("Tea again", "tea.jpg", {"trends": ["rain"]}, shots=1).messages
    texts = [part["text"] for turn in turns for part in turn["content"]]
    assert len(texts) == 4 and texts[-1] == 'What was talked about on that day: ["rain"]\n\nThe post: "Tea again"'


def test_the_mistake_is_told_as_shown(file):
    file.write_text(file.read_text(encoding="utf-8").replace("{trends}", "{weather}"), encoding="utf-8")
    shown = re.search(r"`own\.yaml(:\d+: [^`]*)`", PAGE)[1]
    with pytest.raises(PostError) as error:
        load_prompt(file)
    assert str(error.value) == f"{file}{shown}"


def test_the_python_code_runs():
    scope = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)
    assert scope["prompt"].kind == "image_rationale"
