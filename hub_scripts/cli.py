"""The command line: `lrsa train | evaluate | predict | rationalize | convert | benchmark | push | demo`."""

import argparse
import os
import sys
from importlib import import_module


COMMANDS = {
    "train": "train a model from a recipe and/or flags",
    "evaluate": "score a model on labelled posts",
    "predict": "find aspects and polarities in posts",
    "rationalize": "have a large model write rationales for posts, or audit them",
    "convert": "make a model of a VLP-MABSA or AoM checkpoint, or of a plain text model",
    "benchmark": "run a suite of training runs over seeds, resumable, or make its tables",
    "push": "publish a model, a data set or the metric to the Hub",
    "demo": "open a page to try a model in a browser",
}
# Modules that commands lie in, apart from `commands`, which imports torch and all models.
MODULES = {name: name for name in ("predict", "rationalize", "evaluate_llm", "benchmark", "push", "demo")}


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0, what the command does, or 2 after bad input, which is told in one line."""
    parser = argparse.ArgumentParser(
        prog="lrsa",
        description="Multimodal aspect-based sentiment analysis with LLM-generated rationales.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:11} {text}" for name, text in COMMANDS.items())
        + "\n\n`lrsa COMMAND --help` tells more.",
    )  # fmt: skip
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=" | ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    # Of the processes that `accelerate launch` starts on a machine, one speaks.
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning" if speaks else "error")

    from processing import PostError

    command = parsed.command
    if command == "evaluate" and any(argument.partition("=")[0] == "--llm" for argument in parsed.arguments):
        command = "evaluate_llm"
    try:
        module = import_module(f".{MODULES.get(command, 'commands')}", __package__)
        return getattr(module, command)(parsed.arguments) or 0
    except PostError as error:
        if speaks:
            print(f"lrsa {parsed.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        if speaks:
            print(f"lrsa {parsed.command}: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
