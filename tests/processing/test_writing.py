"""Saving in place of a former model."""

import multiprocessing
import os
import signal
import sys

import pytest

from processing.writing import whole_folder


class Part:
    """Saves one file, or stops in front of it."""

    def __init__(self, name, text="new", error=None):
        self.name, self.text, self.error = name, text, error

    def save_pretrained(self, folder):
        folder.mkdir(exist_ok=True)
        if self.error is not None:
            raise self.error
        (folder / self.name).write_text(self.text)


def save_whole(folder, *parts):
    with whole_folder(folder) as fresh:
        for part in parts:
            part.save_pretrained(fresh)


def save_and_die(folder, before_rename):
    renames = []

    def hook(event, arguments):
        if event == "os.rename":
            renames.append(arguments)
            if len(renames) == before_rename:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    save_whole(folder, Part("a"), Part("b"))


@pytest.fixture
def folder(tmp_path):
    save_whole(tmp_path / "model", Part("a", "old"), Part("old", "old"))
    return tmp_path / "model"


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_takes_the_place_of_a_former_one(folder):
    save_whole(folder, Part("a"), Part("b"))
    assert contents(folder) == {"a": "new", "b": "new"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_folder_takes_the_place_of_a_link_and_leaves_what_it_leads_to(folder, tmp_path, dangling):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere" if dangling else folder)
    save_whole(link, Part("a"))
    assert not link.is_symlink() and contents(link) == {"a": "new"}
    assert contents(folder) == {"a": "old", "old": "old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_former_one(folder, error):
    with pytest.raises(type(error)):
        save_whole(folder, Part("a"), Part("b", error=error))
    assert contents(folder) == {"a": "old", "old": "old"}
    assert list(folder.parent.iterdir()) == [folder]


def test_an_error_while_renaming_leaves_the_former_one(folder, monkeypatch):
    rename = type(folder).rename

    def fails_for_new(path, target):
        if path.name.endswith(".new"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(type(folder), "rename", fails_for_new)
    with pytest.raises(OSError, match="no"):
        save_whole(folder, Part("a"), Part("b"))
    assert contents(folder) == {"a": "old", "old": "old"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("before_rename", [1, 2])
def test_a_kill_loses_neither(folder, before_rename):
    process = multiprocessing.get_context("fork").Process(target=save_and_die, args=(folder, before_rename))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    beside = [contents(path) for path in folder.parent.iterdir()]
    assert len(beside) == 2
    assert {"a": "old", "old": "old"} in beside and {"a": "new", "b": "new"} in beside
    assert folder.exists() == (before_rename == 1)
