"""Prompt templates: a post's text and picture, and what else is known of it, made into a question to a large model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import regex
import yaml

from ..posts import PostError
from .llm_aspects import ANSWER_SCHEMA
from .writers import Request


KINDS = ("text_rationale", "image_rationale", "aspects")
BUNDLED = Path(__file__).with_name("prompts")

_REQUIRED, _OPTIONAL = ("id", "version", "kind", "system", "user"), ("evidence", "examples")
_PIECE = regex.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PARAGRAPH_BREAK = regex.compile(r"\n[ \t]*\n\s*")
# What a reader or a chat template could take for something other than the words of a post, all of it valid JSON once
# escaped: controls, line separators, marks of direction, invisible tags, half surrogate pairs; and the first character
# of what looks like a special token, such as <|im_end|>, <image>, </s> or [INST]. A heart "<3" stays.
_ESCAPED = regex.compile(
    r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\ud800-\udfff]"
    r"|<(?=[|｜/A-Za-z_])|\[(?=/?[A-Z_]+\])"
)

Evidence = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class Example:
    """One worked example of a prompt, of its file and never of the posts that are asked about."""

    text: str
    answer: str
    evidence: Evidence


@dataclass(frozen=True)
class Prompt:
    """A template of a question about a post; see `load_prompt`.

    Args:
        id, version: what answers are kept under, together `name`.
        kind: `"text_rationale"`, `"image_rationale"` or `"aspects"`.
        system: what the large model is to do, word for word.
        user: the question with its slots `{text}`, `{image}` and those of `evidence`. A paragraph with an empty slot
            is left out.
        evidence: the slots for what else is known, each with what it is known of: `"picture"` or `"post"`.
        examples: worked examples, of which `request` takes the first ones.
    """

    id: str
    version: str
    kind: str
    system: str
    user: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.id}@{self.version}"

    def request(
        self,
        text: str | Sequence[str],
        image: str | bytes | None = None,
        evidence: Evidence | None = None,
        shots: int = 0,
    ) -> Request:
        """Asks about one post, of which nothing else is known here.

        Slots are filled in one pass. What fills them is quoted as JSON, so no post can end its own quotation.

        Args:
            text: the post, or its words, which are joined by spaces.
            image: its picture: file name, URL or bytes. Not asked about where the prompt has no slot `{image}`.
            evidence: by slot, a string or strings. What the prompt has no slot for is left out.
            shots: how many of the examples come first, as earlier turns of the chat.

        Raises:
            PostError: there are fewer examples; or an image rationale is asked for and nothing is known of a picture.
        """
        if not 0 <= shots <= len(self.examples):
            raise PostError(f"{self.name}: has {len(self.examples)} examples; {shots} shots are asked for.")
        messages = [{"role": "system", "content": [{"type": "text", "text": self.system.strip()}]}]
        for example in self.examples[:shots]:
            messages.append({"role": "user", "content": self._fill(example.text, None, example.evidence)})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": example.answer}]})
        messages.append({"role": "user", "content": self._fill(text, image, evidence or {})})
        return Request(self.kind, messages, ANSWER_SCHEMA if self.kind == "aspects" else None)

    def _fill(self, text: str | Sequence[str], image: str | bytes | None, evidence: Evidence) -> list[dict[str, Any]]:
        values = {name: _known(evidence.get(name)) for name in self.evidence}
        values["image"] = image if "image" in _slots(self.user) else None
        pictured = [name for name, subject in {**self.evidence, "image": "picture"}.items() if subject == "picture"]
        if self.kind == "image_rationale" and all(values[name] is None for name in pictured):
            raise PostError(f"{self.name}: nothing is known of a picture; give one of {', '.join(pictured)}.")
        values["text"] = text if isinstance(text, str) else " ".join(text)
        parts: list[dict[str, Any]] = [{"type": "text", "text": ""}]
        for paragraph in _PARAGRAPH_BREAK.split(self.user.strip()):
            if any(values[slot] is None for slot in _slots(paragraph)):
                continue
            parts[-1]["text"] += "\n\n"
            position = 0
            for match in _PIECE.finditer(paragraph):
                parts[-1]["text"] += paragraph[position : match.start()]
                position = match.end()
                if match[1] is None:
                    parts[-1]["text"] += match[0][0]
                elif match[1] == "image":
                    parts += [{"type": "image", "image": image}, {"type": "text", "text": ""}]
                else:
                    parts[-1]["text"] += quote(values[match[1]])
            parts[-1]["text"] += paragraph[position:]
        stripped = [part if part["type"] == "image" else part | {"text": part["text"].strip()} for part in parts]
        return [part for part in stripped if part["type"] == "image" or part["text"]]


def quote(data: str | list[str]) -> str:
    """Quotes words that somebody else wrote as JSON on one line, which `json.loads` turns back into just these.

    Quotation marks, controls and what looks like a special token of a chat template are escaped.
    """
    return _ESCAPED.sub(lambda match: _escape(match[0]), json.dumps(data, ensure_ascii=False))


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if character in "<[" else json.dumps(character)[1:-1]


def _known(value: str | Sequence[str] | None) -> str | list[str] | None:
    """Returns evidence without what is empty, `None` where nothing is left."""
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    return [item.strip() for item in value if item.strip()] or None


def _slots(template: str) -> list[str]:
    return [match[1] for match in _PIECE.finditer(template) if match[1] is not None]


def load_prompt(prompt: str | Path) -> Prompt:
    """Reads a prompt.

    Args:
        prompt: `"text_rationale"`, `"image_rationale"` or `"aspects"` for those of this package, or a YAML file with
            `id`, `version`, `kind`, `system`, `user`, and optionally `evidence` (slots, each `picture` or `post`) and
            `examples` (each with `text`, `answer` and optionally `evidence` by slot).

    Raises:
        PostError: names file, line and the mend.
    """
    file = _PromptFile(BUNDLED / f"{prompt}.yaml" if prompt in KINDS else Path(prompt))
    file.check_names(file.fields, "", _REQUIRED, _OPTIONAL)
    version = file.fields["version"]
    if isinstance(version, int) and not isinstance(version, bool):
        file.fields["version"] = str(version)
    required = [file.text(file.fields[name], name) for name in _REQUIRED]
    for name, value in zip(("id", "version"), required):
        if not regex.fullmatch(r"[\w.+-]+", value):
            file.fail(name, f"{shortened(value)}: letters, digits and . _ + - alone are expected.")
    if file.fields["kind"] not in KINDS:
        file.fail("kind", f"{shortened(file.fields['kind'])} is unknown; one of {', '.join(KINDS)} is expected.")
    evidence = file.check_evidence()
    file.check_user(evidence)
    examples = file.fields.get("examples") or []
    if not isinstance(examples, list):
        file.fail("examples", "a list of examples is expected, each with text and answer.")
    checked = (file.check_example(example, f"examples[{index}]", evidence) for index, example in enumerate(examples))
    return Prompt(*required, evidence, tuple(checked))


class _PromptFile:
    """A prompt's YAML file.

    Attributes:
        fields: what it holds.
        lines: line of each field, by names such as `examples[0].text`.
    """

    def __init__(self, path: Path):
        self.path, self.lines = path, {}
        try:
            raw = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PostError(f"{path}: no prompt file ({reason}); name one, or one of {', '.join(KINDS)}.") from error
        try:
            self.content = raw.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise PostError(f"{path}:{line}: no UTF-8 ({error.reason}); save the file as UTF-8.") from error
        try:
            loader = yaml.SafeLoader(self.content)
            node = loader.get_single_node()
            self.fields = {} if node is None else loader.construct_document(node)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
            line = mark.line if mark else self.content.count("\n", 0, position) if position is not None else None
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
            mend = "write longer texts as a block behind |, or in quotation marks"
            where = path if line is None else f"{path}:{line + 1}"
            raise PostError(f"{where}: no YAML ({problem}); {mend}.") from error
        if not isinstance(self.fields, dict):
            raise PostError(f"{path}:1: a mapping is expected, with {', '.join(_REQUIRED)}.")
        self._find_lines(node)

    def _find_lines(self, node: yaml.Node | None, name: str = "", depth: int = 0):
        if isinstance(node, yaml.MappingNode) and depth < 4:
            for key, value in node.value:
                inner = f"{name}.{key.value}" if name else str(key.value)
                if inner in self.lines:
                    self.lines[inner] = key.start_mark.line + 1
                    self.fail(inner, "stands here for the second time; keep one of the two.")
                self.lines[inner] = key.start_mark.line + 1
                self._find_lines(value, inner, depth + 1)
        elif isinstance(node, yaml.SequenceNode) and depth < 4:
            for index, value in enumerate(node.value):
                self.lines[f"{name}[{index}]"] = value.start_mark.line + 1
                self._find_lines(value, f"{name}[{index}]", depth + 1)

    def fail(self, name: str, problem: str, line: int | None = None):
        line = line or self.lines.get(name)
        raise PostError(f"{self.path}{f':{line}' if line else ''}: {name}: {problem}")

    def text(self, value: Any, name: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fail(name, f"{shortened(value)} is no text; a string that is not empty is expected (quote it).")
        return value

    def check_names(self, mapping: dict, place: str, required: Sequence[str], optional: Sequence[str]):
        for name in required:
            if name not in mapping:
                problem = f"is missing; {', '.join(required)} are expected."
                self.fail(f"{place}.{name}".lstrip("."), problem, self.lines.get(place, 1))
        for name in mapping:
            if name not in (*required, *optional):
                self.fail(f"{place}.{name}".lstrip("."), f"is unknown; one of {', '.join((*required, *optional))}?")

    def check_evidence(self) -> dict[str, str]:
        evidence = self.fields.get("evidence") or {}
        if not isinstance(evidence, dict):
            self.fail("evidence", "a mapping of slots to picture or post is expected, such as {caption: picture}.")
        for name, subject in evidence.items():
            place = f"evidence.{name}"
            if not isinstance(name, str) or not regex.fullmatch(r"[a-z_][a-z0-9_]*", name):
                self.fail(place, "is no name for a slot; small letters, digits and _ are expected.")
            if name in ("text", "image"):
                self.fail(place, f"{{{name}}} is the slot of the post's own {name}; choose another name.")
            if subject not in ("picture", "post"):
                self.fail(place, f"{shortened(subject)} is unknown; say what it tells of: picture or post.")
        return evidence

    def check_user(self, evidence: Mapping[str, str]):
        user = self.fields["user"]
        for match in _PIECE.finditer(user):
            if match[0] in "{}":
                self.fail("user", f"a single {match[0]}; double it where it stands for itself.", self._line_of(match))
            if match[1] is not None and match[1] not in ("text", "image", *evidence):
                problem = f"{{{match[1]:.40}}} is no slot; name it under evidence, or double its braces."
                self.fail("user", problem, self._line_of(match))
        slots = _slots(user)
        if "text" not in slots:
            self.fail("user", "the slot {text} is missing; the post goes there.")
        for paragraph in _PARAGRAPH_BREAK.split(user.strip()):
            if "text" in (near := _slots(paragraph)) and (others := [name for name in near if name != "text"]):
                first = next(match for match in _PIECE.finditer(user) if match[0] == "{text}")
                problem = f"{{text}} would be left out where {{{others[0]}}} is empty; part them by an empty line."
                self.fail("user", problem, self._line_of(first))
        for name in evidence:
            if name not in slots:
                self.fail(f"evidence.{name}", f"user has no slot {{{name}}}; put it there, or leave it out here.")
        if self.fields["kind"] == "image_rationale" and "image" not in slots and "picture" not in evidence.values():
            self.fail("user", "an image rationale needs the slot {image}, or evidence that tells of the picture.")

    def _line_of(self, match: regex.Match) -> int:
        """Line of a piece of `user`: pieces like it are counted in the text, then in the file."""
        nth = sum(piece[0] == match[0] for piece in _PIECE.finditer(match.string, 0, match.start()))
        first = self.lines["user"]
        for line, content in enumerate(self.content.split("\n")[first - 1 :], first):
            nth -= sum(piece[0] == match[0] for piece in _PIECE.finditer(content))
            if nth < 0:
                return line
        return first

    def check_example(self, example: Any, place: str, evidence: Mapping[str, str]) -> Example:
        if not isinstance(example, dict):
            self.fail(place, "a mapping with text and answer is expected.")
        self.check_names(example, place, ("text", "answer"), ("evidence",))
        known = example.get("evidence") or {}
        if not isinstance(known, dict):
            self.fail(f"{place}.evidence", "a mapping of slots to texts, or lists of texts, is expected.")
        for name, value in known.items():
            inner = f"{place}.evidence.{name}"
            if name not in evidence:
                self.fail(inner, "is no slot; name it under the prompt's evidence.")
            for item in value if isinstance(value, list) else [value]:
                self.text(item, inner)
        text, answer = (self.text(example[name], f"{place}.{name}") for name in ("text", "answer"))
        if self.fields["kind"] == "image_rationale" and not any(evidence[name] == "picture" for name in known):
            self.fail(place, "shows no picture; give evidence of one, such as a caption.")
        return Example(text, answer.strip(), known)
