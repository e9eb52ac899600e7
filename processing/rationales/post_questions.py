"""What a large model is to be asked about posts: one question for each rationale that a post lacks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from ..chunks import Chunk, ChunkReader, named_files, whole
from ..post_files import PostError, read_json_lines
from .asking import Question, answer_key
from .prompts import Evidence, Prompt
from .writers import Request, Writer


RATIONALES = ("text_rationale", "image_rationale")


class PostQuestions:
    """The questions about the posts of a file, of a folder or of a chunk; can be gone through many times.

    A question is made of a post's text and picture, and of what `evidence` says; its aspects are not looked at. A post
    whose picture can't be shown to the writer is asked about with the evidence of its picture alone; where there is
    none, its question has a `problem`.

    Args:
        source: a file, or a folder of splits or of shards, all of whose posts are checked at once; or one chunk.
        prompts: by kind, `"text_rationale"` or `"image_rationale"` or both.
        writer: who is going to be asked.
        images: folder of the pictures. Defaults to `images/` beside the file.
        evidence: from `read_evidence`.
        shots: worked examples in front of each question.
        overwrite: ask about rationales that posts already have.
        on_bad_post: as of `ChunkReader`.

    Attributes:
        chunks: each file, by the name of its split or shard, or the one chunk.
        posts: how many there are.
        total: how many questions there are.
        bad: what is no post, `{"place", "problem"}` each.

    Raises:
        PostError: names file, line and field.
    """

    def __init__(
        self,
        source: str | Path | Chunk,
        prompts: Mapping[str, Prompt],
        writer: Writer,
        images: str | Path | None = None,
        evidence: Mapping[str, Evidence] | None = None,
        shots: int = 0,
        overwrite: bool = False,
        on_bad_post: str = "error",
    ):
        if isinstance(source, Chunk):
            self.chunks = {source.file.stem: source}
        else:
            self.chunks = {name: whole(file) for name, file in named_files(source).items()}
        self.prompts, self.writer, self.shots = prompts, writer, shots
        self.evidence, self.overwrite = evidence or {}, overwrite
        self.reader = ChunkReader(images, on_bad_post=on_bad_post)
        self.posts = self.total = known = 0
        self.bad: list[dict[str, str]] = []
        for prompt in prompts.values():
            prompt.request("", b"", shots=shots)  # says if there are fewer examples
        for chunk in self.chunks.values():
            before = self.posts + len(self.bad)
            for _, _, post in self.reader.checked(chunk, self.bad):
                self.posts += 1
                self.total += sum(self._lacks(post, kind) for kind in prompts)
                known += post["id"] in self.evidence
            if self.posts + len(self.bad) == before and len(self.chunks) == 1:
                raise PostError(f"{chunk.file}: the file is empty; it holds no post.")
        if self.evidence and not known and not isinstance(source, Chunk):
            raise PostError(f"{source}: no post has an `id` of the evidence, such as {next(iter(self.evidence))!r}.")

    def __iter__(self) -> Iterator[Question]:
        for chunk in self.chunks.values():
            for _, _, questions in self.of_chunk(chunk):
                yield from questions.values()

    def of_chunk(self, chunk: Chunk) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Question]]]:
        """Yields each row of a chunk as it stands there, the post in it, and its questions by kind."""
        for _, row, post in self.reader.checked(chunk, []):
            yield row, post, {kind: self._question(kind, post) for kind in self.prompts if self._lacks(post, kind)}

    def _lacks(self, post: dict[str, Any], kind: str) -> bool:
        return self.overwrite or not post[kind]

    def _question(self, kind: str, post: dict[str, Any]) -> Question:
        prompt, image, evidence = self.prompts[kind], post["image"], self.evidence.get(post["id"], {})
        text = post["words"] if post["text"] is None else post["text"]
        problem = None
        if isinstance(image, dict):
            image = image["bytes"]
        if image is None:
            problem = "the post has no picture"
        elif not self.writer.sees_pictures:
            problem = f"{self.writer.model} sees no pictures, and no evidence tells of this one"
        elif not isinstance(image, bytes) and not os.path.isfile(image):
            problem = "the picture is not there"
        try:
            request = prompt.request(text, None if problem else image, evidence, self.shots)
            problem = None
        except PostError:  # nothing is known of the picture
            request = Request(kind, [{"role": "user", "content": [{"type": "text", "text": f"{text}: {problem}"}]}])
        key = answer_key(request, self.writer.model, prompt.name, self.writer.settings)
        return Question(key, request, prompt.name, problem)


def read_evidence(path: str | Path, prompts: Sequence[Prompt]) -> dict[str, Evidence]:
    """Reads what is known of posts besides text and picture: lines `{"id": ..., SLOT: string or strings, ...}`.

    Args:
        prompts: those that the slots are for.

    Raises:
        PostError: names file, line and field.
    """
    slots = sorted({slot for prompt in prompts for slot in prompt.evidence})
    evidence: dict[str, Evidence] = {}
    if not os.path.isfile(path):
        raise PostError(f"{path}: no such file.")
    for line, row in read_json_lines(Path(path)):
        where = f"{path}:{line}"
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise PostError(f'{where}: id: an object {{"id": "...", "caption": "..."}} is expected.')
        name = row.pop("id")
        if name in evidence:
            raise PostError(f"{where}: id: {shortened(name)} has come before; put its slots on one line.")
        for slot, value in row.items():
            if slot not in slots:
                raise PostError(f"{where}: {slot}: no prompt has this slot; known are {', '.join(slots) or 'none'}.")
            strings = value if isinstance(value, list) else [value]
            if value is not None and not all(isinstance(string, str) for string in strings):
                raise PostError(f"{where}: {slot}: a string, a list of strings or null is expected.")
        evidence[name] = row
    return evidence
