from processing.digests import digest_of_files, name_with_digest


def test_a_checkpoint_is_known_by_what_decides_on_its_answers(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    former = name_with_digest(str(folder))
    assert former.startswith("model@") and len(former) == len("model@") + 12
    (folder / "notes.md").write_text("of no weight")
    assert name_with_digest(folder.rename(tmp_path / "copy")).removeprefix("copy") == former.removeprefix("model")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"2")
    assert name_with_digest(tmp_path / "copy").removeprefix("copy") != former.removeprefix("model")


def test_a_file_has_its_digest_and_another_name_none(tmp_path):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"1")
    assert name_with_digest(file) == f"small@{digest_of_files([file])}"
    assert name_with_digest("org/model") == "org/model"
