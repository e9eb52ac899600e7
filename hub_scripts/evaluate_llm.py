"""`lrsa evaluate --llm`: a large model finds the aspects of posts by itself, and is scored as a small one is."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets import Dataset, Image

from processing import PostError, load_posts
from processing.rationales import (
    AnswerStore,
    Limits,
    Prompt,
    Question,
    Summary,
    Writer,
    answer_key,
    ask,
    read_answers,
    score_answers,
)
from processing.rationales.llm_aspects import INVALID_ITEMS, ReadAnswer
from processing.rationales.post_questions import read_evidence
from processing.rationales.prompts import Evidence
from processing.writing import writable_folder, write_whole

from .rationalize import (
    add_limit_arguments,
    add_prompt_arguments,
    add_writer_arguments,
    make_writer,
    print_summary,
    prompt_of,
)
from .terminal import print_scores, show_progress


def evaluate_llm(argv: list[str]) -> int:
    args = parse(argv)
    if args.output is not None:
        writable_folder(Path(args.output).parent)
        if Path(args.output).is_dir():
            raise PostError(f"{args.output}: is a folder; name a file.")
    place = Path(args.store or f"{Path(args.output or 'runs/evaluate_llm').with_suffix('')}.answers.sqlite")
    progress = show_progress()
    prompt = prompt_of("aspects", args.prompt)
    prompt.request("", shots=args.shots)  # says if there are fewer examples
    evidence = read_evidence(args.evidence, [prompt]) if args.evidence else {}
    posts = load_posts(args.posts, args.split, args.images, args.on_bad_image, labelled=True)
    if args.output and (twice := next((name for name, n in Counter(posts["id"]).items() if n > 1), None)):
        raise PostError(f"{args.posts}: two posts have the id {twice!r}; --output names spans by id: make ids unique.")
    writer = make_writer(args)
    limits = Limits(args.max_requests, args.max_total_tokens)
    with AnswerStore(place) as store:
        try:
            found, summary = answers_of(
                writer, store, posts, prompt, args.shots, evidence, limits, args.retry_failed, progress
            )
        except PostError as error:
            raise type(error)(f"{error} What was answered is kept in {place}; run again to go on.") from error
    print_summary(summary)
    if summary.stopped:
        print(f"Nothing is scored before every post was asked. Answers: {place}")
        return 1
    scores = score_answers(posts, found)
    print(f"\n{writer.model}, {prompt.name}, {args.shots} shots, {scores['posts']} posts:")
    print_scores(scores)
    print(f"MASC is over the {scores['masc_matched']:.2f} % of gold aspects that were found.")
    items = scores["invalid_items"] + scores["predicted_aspects"]
    reasons = ", ".join(f"{name.replace('_', ' ')} {scores[f'invalid_items_{name}']}" for name in INVALID_ITEMS)
    print(f"Unanswered: {scores['unanswered']} posts. Invalid: {scores['invalid_answers']} answers.")
    print(f"Invalid items in valid answers: {scores['invalid_items']} of {items} ({reasons}).")
    if args.output:
        told = {"model": writer.model, "prompt": prompt.name, "shots": args.shots} | scores
        spans = dict(zip(posts["id"], map(spans_of, found)))
        lines = [f'"{name}": {json.dumps(value)}' for name, value in (told | {"aspects": spans}).items()]
        write_whole(Path(args.output), "{\n" + ",\n".join(lines) + "\n}\n")
        print(f"Scores: {args.output}")
    print(f"Answers: {place}")
    return 1 if scores["unanswered"] else 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrsa evaluate",
        usage="lrsa evaluate --llm URL|MODEL POSTS [options]",
        description="Asks a large model for the aspects of posts and their polarities, and prints JMASA, MATE and "
        "MASC in percent. What was answered is kept and never asked again. Exit code: 0 where every post has an "
        "answer, valid or not, else 1; 2 after bad input.",
        epilog="Keys come from the environment: HF_TOKEN for what Hugging Face serves, OPENAI_API_KEY for every other "
        "server. docs/prompts.md tells more.",
    )
    parser.add_argument("posts", help="file of posts, or folder of splits, labelled")
    parser.add_argument("--images", help="folder of the pictures (default: images/ beside the posts)")
    parser.add_argument("--on-bad-image", choices=("error", "skip"), default="error", help="(default: error)")
    parser.add_argument("--split", default="test", help="split of a folder (default: %(default)s)")
    parser.add_argument("--output", help="JSON file for the scores, and the spans by id of the post")
    parser.add_argument("--store", help="file that keeps the answers (default: OUTPUT's name with .answers.sqlite)")

    who = parser.add_argument_group("who is asked")
    who.add_argument(
        "--llm",
        required=True,
        metavar="URL|MODEL",
        help="OpenAI-compatible server, such as http://localhost:8000/v1, or a model: folder or id, with --provider "
        "the name that the provider knows it by",
    )
    who.add_argument("--model", help="of a URL: name that the server knows its model by")
    who.add_argument("--provider", help="inference provider of Hugging Face, or auto")
    add_writer_arguments(who)

    what = parser.add_argument_group("what is asked")
    what.add_argument("--prompt", metavar="FILE", help="prompt in place of the bundled one")
    add_prompt_arguments(what)

    add_limit_arguments(parser.add_argument_group("this run"))
    args = parser.parse_args(argv)
    is_url = args.llm.startswith(("http://", "https://"))
    if is_url != (args.model is not None):
        parser.error("--model names the model of a URL, and only of one")
    if is_url and args.provider:
        parser.error("give --llm a URL, or a model and its --provider")
    if args.text_only and not (is_url or args.provider):
        parser.error("--text-only is for servers: what a local model sees is known")
    args.url, args.model = (args.llm, args.model) if is_url else (None, args.llm)
    return args


def answers_of(
    writer: Writer,
    store: AnswerStore,
    posts: Dataset,
    prompt: Prompt,
    shots: int = 0,
    evidence: Mapping[str, Evidence] | None = None,
    limits: Limits = Limits(),
    retry_failed: bool = False,
    progress: bool = False,
) -> tuple[list[ReadAnswer | None], Summary]:
    """Asks for the aspects of posts (from `load_posts`).

    Args:
        prompt: of the kind `"aspects"`.
        evidence: by id of the post.
        shots, limits, retry_failed, progress: as of `Prompt.request` and `ask`.

    Returns:
        What `read_answers` gives, and what became of the questions.
    """
    questions = list(questions_of(writer, posts, prompt, shots, evidence or {}))
    summary = ask(writer, store, questions, limits, retry_failed, progress, len(questions))
    kept = [store.get(question.key) for question in questions]
    return read_answers(posts, [found and found[0].text for found in kept]), summary


def spans_of(answer: ReadAnswer | None) -> list[list]:
    """Returns start, end and polarity of each aspect: in words for posts that come as words, else in characters."""
    found = [] if answer is None else answer.aspects
    return [[a.get("word_start", a["start"]), a.get("word_end", a["end"]), a["polarity"]] for a in found]


def questions_of(
    writer: Writer, posts: Dataset, prompt: Prompt, shots: int, evidence: Mapping[str, Evidence]
) -> Iterator[Question]:
    # Without the labels, which a question must not depend on, and with pictures as files, not opened.
    shown = posts.select_columns(["id", "text", "words", "image"]).cast_column("image", Image(decode=False))
    for post in shown:
        text = post["words"] if post["text"] is None else post["text"]
        image = post["image"] and (post["image"]["path"] if post["image"]["bytes"] is None else post["image"]["bytes"])
        request = prompt.request(text, image if writer.sees_pictures else None, evidence.get(post["id"]), shots)
        yield Question(answer_key(request, writer.model, prompt.name, writer.settings), request, prompt.name)
