"""Writes posts together with their rationales and where these came from."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..posts import PostError
from ..writing import whole_file
from .asking import Question
from .post_questions import RATIONALES, PostQuestions
from .store import AnswerStore


def write_posts(questions: PostQuestions, store: AnswerStore, out: str | Path) -> Counter[str]:
    """Writes the posts in their order, with all their fields, as JSON Lines.

    `text_rationale` and `image_rationale` are the answers in the store, those that the posts had already, or null;
    `rationale_provenance` holds for each of the two `model`, `prompt` (`id@version`), `settings`, `date` and
    `finish_reason`, or null where the rationale was there before.

    Args:
        out: a `.jsonl` file, or for the splits of a folder a folder, which `datasets.load_dataset` reads, too. Each
            file appears whole.

    Returns:
        How many posts have a rationale, by its kind.

    Raises:
        PostError: a file can't be written.
    """
    out, written = Path(out), Counter()
    for name, file in questions.files.items():
        target = out if is_file_name(out) else out / f"{name}.jsonl"
        try:
            with whole_file(target) as lines:
                for row, asked in questions.of_file(file):
                    row = with_rationales(row, asked, store)
                    written.update(kind for kind in RATIONALES if row[kind])
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise PostError(f"{target}: can't be written ({error.strerror}); the answers are kept.") from error
    return written


def is_file_name(out: Path) -> bool:
    return out.suffix == ".jsonl"


def with_rationales(row: dict[str, Any], asked: dict[str, Question], store: AnswerStore) -> dict[str, Any]:
    former = row.get("rationale_provenance")
    former = former if isinstance(former, dict) else {}
    texts, provenance = {}, {}
    for kind in RATIONALES:
        texts[kind], provenance[kind] = row.get(kind) or None, former.get(kind)
        if kind in asked and (found := store.get(asked[kind].key)):
            answer, source = found
            texts[kind] = answer.text
            provenance[kind] = {
                "model": source.model,
                "prompt": source.prompt,
                "settings": asdict(source.settings),
                "date": source.date,
                "finish_reason": answer.finish_reason,
            }
    return {**row, **texts, "rationale_provenance": provenance}
