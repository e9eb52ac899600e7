"""What the README shows runs."""

import re
from pathlib import Path


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_example_prints_aspects(run_folder, capsys):
    example = blocks("python")[0].replace("runs/quickstart/model", str(run_folder / "model"))
    exec(compile(example, "README.md", "exec"), {})
    (found,) = eval(capsys.readouterr().out)
    text = "The new menu at Blue Kettle is a joy"
    assert all(text[aspect["start"] : aspect["end"]] == aspect["aspect"] for aspect in found)


def test_prediction_shown_has_the_fields_of_a_prediction():
    ((prediction,),) = eval(blocks("python")[1])
    assert list(prediction) == ["aspect", "polarity", "score", "start", "end"]
    text = re.search(r'processor\(\s*text=\["(.*?)"\]', README)[1]
    assert text[prediction["start"] : prediction["end"]] == prediction["aspect"]


def test_files_that_it_names_are_there():
    root = Path(__file__).parents[2]
    names = re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r"examples/recipes/\S+?\.yaml", README)
    assert names and all((root / name).exists() for name in names)
