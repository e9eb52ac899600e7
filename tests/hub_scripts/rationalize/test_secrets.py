"""What `lrsa rationalize` neither prints, keeps nor sends."""

import base64
import io

from PIL import Image

from hub_scripts.cli import main

from .cases import RunningServer, finish, rationalize, write_posts


def test_secrets_are_nowhere(tmp_path):
    posts = write_posts(tmp_path, 3)
    secrets = ["tok-Uri7SECRET", "pass-9SECRET", "hf_AbCdSECRET12345", "sk-SECRETopenai99"]
    environment = {"HF_TOKEN": secrets[2], "OPENAI_API_KEY": secrets[3], "TRANSFORMERS_VERBOSITY": "debug"}
    said = ""
    before = "import logging; logging.basicConfig(level=logging.DEBUG)"
    with RunningServer() as good, RunningServer("--key", "another") as strict:
        for server, code in ((good, 0), (strict, 2)):
            url = server.url.replace("://", f"://user:{secrets[1]}@") + f"?key={secrets[0]}"
            command = [posts, tmp_path / f"{code}.jsonl", "--model", "m", "--url", url]
            for extra in (["--dry-run"], []):
                found, told = finish(rationalize(*command, *extra, before=before, **environment))
                assert found == (0 if extra else code), told
                said += told
        command = [
            posts,
            tmp_path / "dead.jsonl",
            "--model",
            "m",
            "--url",
            f"http://u:{secrets[1]}@127.0.0.1:9/?k={secrets[0]}",
        ]
        found, told = finish(rationalize(*command, before=before, **environment))
        assert found == 2
        said += told
    assert "Asked 6" in said and "key is refused" in said
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {"0.jsonl", "0.answers.sqlite", "2.answers.sqlite"} <= set(files)
    for secret in secrets:
        assert secret not in said
        assert not [name for name, content in files.items() if secret.encode() in content]


def test_a_picture_is_sent_without_what_its_file_says_besides(tmp_path):
    posts = write_posts(tmp_path, 1)
    said = Image.Exif()
    said[0x010F] = "a camera"
    Image.new("RGB", (20, 20)).save(
        tmp_path / "images" / "one.png", "JPEG", exif=said, xmp=b"<x:xmpmeta>a place</x:xmpmeta>", comment=b"a comment"
    )
    with RunningServer("--record") as server:
        command = ["rationalize", str(posts), str(tmp_path / "out.jsonl"), "--model", "m", "--url", server.url]
        assert main([*command, "--kinds", "image"]) == 0
        content = server.requests()[0]["body"]["messages"][-1]["content"]
    (url,) = (part["image_url"]["url"] for part in content if part["type"] == "image_url")
    picture = base64.b64decode(url.partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (20, 20)
    for what in (b"a camera", b"a place", b"a comment"):
        assert what in (tmp_path / "images" / "one.png").read_bytes() and what not in picture
