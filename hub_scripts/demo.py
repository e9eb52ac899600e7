"""`lrsa demo`: a page to try a model, on this machine."""

import argparse
import os
from importlib.util import find_spec

from processing import PostError

from .space_folder import example_posts
from .terminal import positive, show_progress


def demo(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lrsa demo",
        description="Opens a page to try a model: a post, its picture and rationales in; its aspects, and which words "
        "and patches each drew on, out. It is for this machine alone (127.0.0.1).",
        epilog="Set LRSA_WRITER to the name of a large model, and LRSA_WRITER_URL to its server or "
        "LRSA_WRITER_PROVIDER to an inference provider, for a button that has it write rationales. "
        "docs/demo.md tells more.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="runs/quickstart/model",
        help="folder or id of an LRSA model (default: %(default)s)",
    )
    parser.add_argument("--port", type=positive, default=7860, help="(default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args(argv)
    if find_spec("gradio") is None:
        raise PostError("the page needs gradio: pip install 'lrsa[demo]'")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    show_progress()

    import modeling_lrsa  # noqa: F401  registers the model's classes

    from .space import app

    writer = app.writer_of_environment()
    try:
        pipe = app.load_pipeline(args.model)
    except (OSError, ValueError, RuntimeError) as error:
        raise PostError(f"{args.model}: {' '.join(str(error).split())}") from error
    examples = example_posts()
    blocks = app.build(pipe, args.model, examples, writer)
    try:
        app.launch(
            blocks,
            server_name="127.0.0.1",
            server_port=args.port,
            inbrowser=not args.no_browser,
            allowed_paths=[post["image"] for post in examples],
        )
    except (OSError, OverflowError) as error:
        raise PostError(f"--port {args.port}: {error}") from error
