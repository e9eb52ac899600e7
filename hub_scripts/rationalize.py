"""`lrsa rationalize`: asks a large model for rationales of posts. Imports no torch where a server runs the model."""

import argparse
import math
import os
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

from processing import PostError
from processing.chunks import Chunk, ChunkReader, cut, named_files
from processing.digests import digest_of_files, digest_of_states, name_with_digest
from processing.parts import Answered, Worker, told
from processing.rationales import GenerationSettings, Limits, Prompt, Summary, Writer, WriterError, ask, load_prompt
from processing.rationales.asking import interrupted_by_sigterm
from processing.rationales.estimates import estimate_prompt_tokens
from processing.rationales.output import SCHEMA, count_rationales, is_file_name, rows_of, write_posts
from processing.rationales.post_questions import PostQuestions, read_evidence
from processing.rationales.prompts import Evidence
from processing.rationales.store import AnswerStore, now
from processing.writing import dump_lines, writable_folder, write_whole

from .scale import CHUNK, add_scale_arguments, answer_all, check_chunk, check_scale_arguments, ending_of, print_bad
from .terminal import positive, show_progress


KINDS = {"text": "text_rationale", "image": "image_rationale"}


def rationalize(argv: list[str]) -> int:
    if argv[:1] == ["audit"]:
        from .rationalize_audit import audit

        return audit(argv[1:])
    if argv[:1] == ["shorten"]:
        from .rationalize_shorten import shorten

        return shorten(argv[1:])
    args = parse(argv)
    try:
        with interrupted_by_sigterm():
            return write_rationales(args)
    except KeyboardInterrupt:
        print("Stopped: it was interrupted. Run again to go on.")
        return 1


def write_rationales(args: argparse.Namespace) -> int:
    if args.part_size or args.engine == "ray":
        return write_parts(args)
    out, posts = Path(args.out), Path(args.posts)
    if posts.is_dir() and (is_file_name(out) or out.is_file()):
        raise PostError(f"{out}: {posts} is a folder of splits; name a folder for them.")
    if posts.is_file() and (not is_file_name(out) or out.is_dir()):
        raise PostError(f"{out}: {posts} is no folder; name a file that ends in .jsonl or .parquet.")
    if is_file_name(out) and args.format == "parquet" and out.suffix != ".parquet":
        raise PostError(f"{out}: a file has the form of its name, whatever --format says; name one in .parquet.")
    files = named_files(posts).values()  # says if there are none
    if posts.is_dir() and out.is_dir() and out.samefile(posts) and any(f.suffix != f".{args.format}" for f in files):
        raise PostError(f"{out}: holds the posts, in another form than --format {args.format}; name another folder.")
    if not args.dry_run:
        writable_folder(out.parent if is_file_name(out) else out)
    place = Path(args.store or f"{out.with_suffix('') if is_file_name(out) else out}.answers.sqlite")
    progress = show_progress()
    prompts, evidence = read_prompts(args)
    writer = make_writer(args)
    questions = PostQuestions(
        posts, prompts, writer, args.images, evidence, args.shots, args.overwrite, args.on_bad_post
    )
    if "image_rationale" in prompts and not writer.sees_pictures and not evidence:
        print(f"{writer.model} sees no pictures, and no --evidence tells of them: image rationales can't be written.")
    if there := questions.posts * len(prompts) - questions.total:
        print(f"{there:,} rationales are there already; --overwrite asks for them anew.")
    if args.dry_run:
        return show_what_would_be_asked(questions, place, args.retry_failed)

    limits = Limits(args.max_requests, args.max_total_tokens)
    with AnswerStore(place) as store:
        try:
            summary = ask(writer, store, questions, limits, args.retry_failed, progress, questions.total)
        except WriterError as error:
            raise WriterError(f"{error} What was answered is kept in {place}; run again to go on.") from error
        print_summary(summary)
        if summary.interrupted:
            print(f"Nothing is written to {out}. Answers: {place}")
            return 1
        written = write_posts(questions, store, out, f".{args.format}")
    listed = Path(f"{out.with_suffix('') if is_file_name(out) else out}.bad.jsonl")
    with told(listed):
        listed.unlink(missing_ok=True)
        if questions.bad:
            write_whole(listed, dump_lines(questions.bad))
            print_bad(questions.bad, listed)
    print_written(questions.posts, written, out, place)
    return 0 if all(written[kind] == questions.posts for kind in prompts) else 1


def read_prompts(args: argparse.Namespace) -> tuple[dict[str, Prompt], dict[str, Evidence] | None]:
    prompts = {KINDS[name]: prompt_of(KINDS[name], getattr(args, f"{name}_prompt")) for name in args.kinds}
    return prompts, read_evidence(args.evidence, list(prompts.values())) if args.evidence else None


def write_parts(args: argparse.Namespace) -> int:
    """Writes rationales chunk by chunk, each with a store of its own, in this process or by Ray."""
    out, files = Path(args.out), list(named_files(args.posts).values())
    if not args.part_size and not is_file_name(out):
        raise PostError(f"{out}: name a file that ends in .jsonl or .parquet, or a folder of parts by --part-size.")
    place = args.store or f"{out.with_suffix('') if is_file_name(out) else out}.answers"
    prompts, _ = read_prompts(args)
    settings = {
        "command": "rationalize",
        "model": args.model if args.url or args.provider else name_with_digest(args.model),
        "posts": f"{args.posts} ({len(files)} files, {digest_of_states(files)})",
        "part size": args.part_size or CHUNK,
        "prompts": {kind: prompt.name for kind, prompt in prompts.items()},
        "shots": args.shots,
        "evidence": args.evidence and digest_of_files([Path(args.evidence)]),
        "overwrite": args.overwrite,
        "folder of pictures": args.images,
        "generation": asdict(generation_settings(args)),
    }

    before: Counter[str] = Counter()

    def is_stale(counts: Counter[str]) -> bool:
        if args.retry_failed and any(counts[kind] < counts["posts"] for kind in prompts):
            return True
        before.update(counts)
        return False

    counts = answer_all(
        args,
        out,
        cut(files, args.part_size or CHUNK),
        partial(chunk_rationalizer, args, place),
        partial(check_chunk, ChunkReader(args.images)),
        settings,
        SCHEMA,
        count_posts,
        show_progress(),
        gpus=0 if args.url or args.provider else None,
        is_stale=is_stale,
    )
    reasons = {name: counts[name] for name in counts if name.startswith("failed: ")}
    print(f"Asked {counts['asked']:,}: {counts['answered']:,} answered, {sum(reasons.values()):,} failed.")
    for reason, number in Counter(reasons).most_common(10):
        print(f"{number:8,}  {reason.removeprefix('failed: ')}")
    counts += before
    print_written(counts["posts"], counts, out, place)
    return 0 if all(counts[kind] == counts["posts"] for kind in prompts) else 1


def chunk_rationalizer(args: argparse.Namespace, place: str) -> Worker:
    """Returns what has the rationales of a chunk written, wherever it runs."""
    prompts, evidence = read_prompts(args)
    writer = make_writer(args)

    def work(chunk: Chunk) -> Answered:
        questions = PostQuestions(
            chunk, prompts, writer, args.images, evidence, args.shots, args.overwrite, args.on_bad_post
        )
        with AnswerStore(Path(place) / f"part-{chunk.number:06d}.sqlite") as store:
            summary = ask(writer, store, questions, retry_failed=args.retry_failed)
            if summary.interrupted:
                raise KeyboardInterrupt
            rows = list(rows_of(questions, chunk, store, ending_of(args, Path(args.out)) == ".parquet"))
        counts = Counter(asked=summary.asked, answered=summary.answered)
        counts.update({f"failed: {reason}": number for reason, number in summary.failures.items()})
        return Answered(rows, questions.bad, counts)

    return work


def count_posts(rows: list[dict]) -> Counter[str]:
    return Counter(posts=len(rows)) + count_rationales(rows)


def print_written(posts: int, written: Counter[str], out: Path, place: str | Path) -> None:
    counts = " and ".join(f"{written[kind]:,} {kind.replace('_', ' ')}s" for kind in KINDS.values())
    print(f"{posts:,} posts with {counts}: {out}\nAnswers: {place}")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrsa rationalize",
        usage="lrsa rationalize POSTS OUT --model NAME [--url URL | --provider NAME] [options]\n"
        "       lrsa rationalize audit FILE ...\n"
        "       lrsa rationalize shorten POSTS OUT --tokenizer FOLDER|ID ...",
        description="Asks a large model to explain the text and the picture of each post, and writes the posts with "
        "these rationales. What was answered is kept and never asked again: run the same command to go on. Exit code: "
        "0 where every post has its rationales, else 1; 2 after bad input.",
        epilog="Keys come from the environment: HF_TOKEN for what Hugging Face serves, OPENAI_API_KEY for every other "
        "server. docs/rationales.md tells more.",
    )
    parser.add_argument("posts", help="file of posts, or folder of splits or shards; aspects are not looked at")
    parser.add_argument("out", help=".jsonl or .parquet file for a file, folder for a folder; may be the same")
    parser.add_argument("--images", help="folder of the pictures (default: images/ beside the posts)")
    parser.add_argument("--overwrite", action="store_true", help="ask for rationales that posts already have, too")
    parser.add_argument("--store", help="file that keeps the answers (default: OUT's name with .answers.sqlite)")

    who = parser.add_argument_group("who is asked")
    who.add_argument("--model", required=True, help="name that the server knows it by; without server, folder or id")
    server = who.add_mutually_exclusive_group()
    server.add_argument("--url", help="OpenAI-compatible server, such as http://localhost:8000/v1")
    server.add_argument("--provider", help="inference provider of Hugging Face, or auto")
    add_writer_arguments(who)

    what = parser.add_argument_group("what is asked")
    what.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="rationales (default: both)")
    what.add_argument("--text-prompt", metavar="FILE", help="prompt for text rationales in place of the bundled one")
    what.add_argument("--image-prompt", metavar="FILE", help="the same for image rationales")
    add_prompt_arguments(what)

    run = parser.add_argument_group("this run")
    run.add_argument("--dry-run", action="store_true", help="show prompts, counts and estimated tokens; ask nothing")
    add_limit_arguments(run)
    add_scale_arguments(parser)
    args = parser.parse_args(argv)
    check_scale_arguments(parser, args)
    limited = args.max_requests is not None or args.max_total_tokens is not None
    if (args.part_size or args.engine == "ray") and (limited or args.dry_run):
        parser.error("--part-size and --engine ray go with neither limits nor --dry-run")
    if args.text_only and not (args.url or args.provider):
        parser.error("--text-only is for servers: what a local model sees is known")
    return args


def add_writer_arguments(group) -> None:
    group.add_argument("--text-only", action="store_true", help="the server's model sees no pictures")
    group.add_argument("--concurrency", type=positive, default=16, help="of a server: questions at once (default: 16)")
    group.add_argument("--timeout", type=positive, default=120, help="of a server: seconds for a try (default: 120)")
    group.add_argument("--batch-size", type=positive, default=8, help="of a local model: the same (default: 8)")
    group.add_argument("--device-map", default="auto", help="of a local model (default: auto)")
    group.add_argument("--dtype", default="auto", help="of a local model (default: auto)")
    group.add_argument("--quantization", help="of a local model: 8bit or 4bit")


def add_prompt_arguments(group) -> None:
    settings = GenerationSettings()
    group.add_argument("--shots", type=count, default=0, help="worked examples of the prompt to show (default: 0)")
    group.add_argument("--evidence", metavar="FILE", help='JSON Lines {"id", "caption", "objects", ...}')
    group.add_argument(
        "--max-new-tokens", type=positive, default=settings.max_new_tokens, help="of an answer (default: %(default)s)"
    )
    group.add_argument("--temperature", type=temperature, default=settings.temperature, help="(default: 0, greedy)")
    group.add_argument("--top-p", type=share, default=settings.top_p, help="share that is sampled from (default: 1)")
    group.add_argument("--seed", type=int, help="of sampling")
    group.add_argument(
        "--max-image-side", type=positive, default=settings.max_image_side, help="pixels (default: %(default)s)"
    )


def add_limit_arguments(group) -> None:
    group.add_argument("--max-requests", type=count, help="questions to ask at most")
    group.add_argument("--max-total-tokens", type=count, help="tokens of prompts and answers to stop asking at")
    group.add_argument("--retry-failed", action="store_true", help="ask again what failed in earlier runs")


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no temperature; 0 or more is expected")
    return number


def share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return number


def prompt_of(kind: str, file: str | None) -> Prompt:
    prompt = load_prompt(file or kind)
    if prompt.kind != kind:
        raise PostError(f"{file}: kind: is {prompt.kind}; one for {kind} is expected.")
    return prompt


def generation_settings(args: argparse.Namespace) -> GenerationSettings:
    return GenerationSettings(args.max_new_tokens, args.temperature, args.top_p, args.seed, args.max_image_side)


def make_writer(args: argparse.Namespace) -> Writer:
    settings = generation_settings(args)
    if args.url or args.provider:
        from processing.rationales import HTTPWriter

        return HTTPWriter(
            args.model,
            settings,
            args.url,
            args.provider,
            concurrency=args.concurrency,
            timeout=args.timeout,
            sees_pictures=not args.text_only,
        )
    from processing.rationales import LocalWriter

    return LocalWriter(
        args.model,
        settings,
        batch_size=args.batch_size,
        device_map=args.device_map,
        dtype=args.dtype,
        quantization=args.quantization,
    )


def show_what_would_be_asked(questions: PostQuestions, place: Path, retry_failed: bool) -> int:
    """Prints one filled prompt of each kind, and how much there is to ask."""
    settings = questions.writer.settings
    states: dict[str, Counter[str]] = {kind: Counter() for kind in questions.prompts}
    tokens: Counter[str] = Counter()
    store = AnswerStore(place) if os.path.exists(place) else None
    retry_before = now() if retry_failed else ""
    seen: set[str] = set()
    for question in questions:
        kind, request = question.request.kind, question.request
        state = store.state(question.key, retry_before) if store else "free"
        if state == "free" and question.problem:
            state = question.problem
        elif state == "free" and question.key in seen:
            state = "the same as another"
        elif state == "free":
            if not states[kind]["free"]:
                print_request(request, question.prompt)
            seen.add(question.key)
            tokens[kind] += estimate_prompt_tokens(request, settings)
        states[kind][state] += 1
    if store:
        store.close()
    for kind, counted in states.items():
        free = counted.pop("free", 0)
        print(
            f"{kind}: {free:,} to ask, about {tokens[kind]:,} tokens of prompts and at most "
            f"{free * settings.max_new_tokens:,} of answers"
        )
        for state, number in counted.most_common():
            print(f"{number:8,} not asked: {state}")
    print("Nothing was asked.")
    return 0


def print_request(request, prompt: str) -> None:
    print(f"--- {request.kind} by {prompt}")
    for message in request.messages:
        print(f"[{message['role']}]")
        for part in message["content"]:
            print(part["text"] if part["type"] == "text" else f"<picture {part['image']}>")
    print("---")


def print_summary(summary: Summary) -> None:
    failed = sum(summary.failures.values())
    print(
        f"Asked {summary.asked:,} in {summary.seconds:.1f} s: {summary.answered:,} answered, {failed:,} failed. "
        f"Answered before: {summary.stored:,}. "
        f"Tokens: {summary.prompt_tokens:,} of prompts, {summary.completion_tokens:,} of answers."
    )
    for title, reasons in (
        ("Failed", summary.failures),
        ("Failed in earlier runs (--retry-failed asks again)", summary.former_failures),
    ):
        if reasons:
            print(f"{title}:")
        for reason, number in reasons.most_common(10):
            print(f"{number:8,}  {reason}")
        if len(reasons) > 10:
            print(f"{sum(reasons.values()) - sum(n for _, n in reasons.most_common(10)):8,}  for other reasons")
    if summary.stopped:
        print(f"Stopped: {summary.stopped}. Run again to go on.")
