"""A page to try an LRSA model: a post with picture and rationales in; its aspects, and what they drew on, out.

Runs as a Gradio Space on Hugging Face, beside a copy of `processing/`, and on this machine by `lrsa demo`.
"""

import json
import os
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub import SpaceCard
from transformers import Pipeline, pipeline

from processing.posts import MAX_CHARACTERS, PostError
from processing.public_images_lrsa import MAX_BYTES, open_public_image
from processing.rationales import Failure, GenerationSettings, HTTPWriter, Writer, load_prompt
from processing.rendering import STYLE, render_error, render_explanations, render_post, seen_part


KINDS = {"text": "text_rationale", "image": "image_rationale"}
CSS = (
    STYLE
    + """
.gradio-container {max-width: 72rem !important; margin: 0 auto !important}
.lrsa h1 {font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem}
#picture img {object-fit: contain}
#picture .or {color: inherit}
"""
)
INTRODUCTION = """<div class="lrsa"><h1>The aspects of a post, and the feeling towards each</h1>
<p>Write a post, add its picture and, if you have them, rationales: what the text means, and what the picture conveys.
The model marks the aspects in the post, tells the polarity towards each (▲ positive, ● neutral, ▼ negative) with a
score from 0 to 1, and shows what it drew on.</p><p class="note">Model: {model}</p></div>"""
PLACEHOLDER = '<div class="lrsa"><p class="note">The aspects will stand here.</p></div>'
SPEAK = "() => {document.querySelector('#result').setAttribute('aria-live', 'polite')}"  # to screen readers


def load_pipeline(model: str) -> Pipeline:
    """Loads a model for explanations, which need attention weights."""
    return pipeline("mabsa", model=model, trust_remote_code=True, model_kwargs={"attn_implementation": "eager"})


def writer_of_environment(environment: dict[str, str] = os.environ) -> Writer | None:
    """Returns what writes rationales, where `LRSA_WRITER` names a model and `LRSA_WRITER_URL` its server, or else
    `LRSA_WRITER_PROVIDER` an inference provider of Hugging Face.
    """
    if not environment.get("LRSA_WRITER"):
        return None
    url = environment.get("LRSA_WRITER_URL") or None
    provider = None if url else environment.get("LRSA_WRITER_PROVIDER") or "auto"
    settings = GenerationSettings()
    return HTTPWriter(environment["LRSA_WRITER"], settings, url, provider, timeout=60, retries=1, patience=20)


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """Returns the posts of `posts.jsonl` in a folder, with the paths of their pictures; none where it is absent."""
    if not (folder / "posts.jsonl").is_file():
        return []
    posts = [json.loads(line) for line in (folder / "posts.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**post, "image": str(folder / post["image"])} for post in posts]


class Page:
    """What happens when buttons are pressed.

    Args:
        pipe: from `load_pipeline`.
        writer: from `writer_of_environment`.
    """

    def __init__(self, pipe: Pipeline, writer: Writer | None = None):
        self.pipe, self.writer = pipe, writer

    def find(self, text: str, file: str | None, url: str, text_rationale: str, image_rationale: str) -> str:
        """Returns HTML: the post with its aspects, and what they drew on; or what is wrong with the input."""
        try:
            picture = self.picture(file, url)
            rationales = {"text_rationale": text_rationale, "image_rationale": image_rationale}
            for name, value in {"post": text, **rationales}.items():
                if len(value or "") > MAX_CHARACTERS:
                    raise ValueError(f"the {name.replace('_', ' ')} has more than {MAX_CHARACTERS:,} characters")
            if not (text or "").strip():
                raise ValueError("write a post first; aspects are found in its text")
            given = {name: value.strip() or None for name, value in rationales.items() if value}
            aspects = self.pipe({"text": text, "image": picture, **given}, explain=True)
        except ValueError as error:
            return render_error(f"{str(error).removesuffix('.')}.")
        seen = seen_part(self.pipe.processor.image_processor, picture.size) if picture else None
        return render_post(text, aspects) + render_explanations(aspects, picture, seen)

    def picture(self, file: str | None, url: str):
        if file:
            if Path(file).stat().st_size > MAX_BYTES:
                raise ValueError(f"picture: it has more than {MAX_BYTES / 2**20:.0f} MB")
            return open_public_image(Path(file).read_bytes())
        return open_public_image(url) if (url or "").strip() else None

    def write(self, text: str, file: str | None, url: str) -> tuple[str, str, str]:
        """Returns both rationales that a large model writes, and HTML of what went wrong."""
        found = dict.fromkeys(KINDS.values(), "")
        try:
            if not (text or "").strip():
                raise ValueError("write a post first; its rationales are made from it")
            picture, content = self.picture(file, url), None
            if picture is not None:
                buffer = BytesIO()
                picture.save(buffer, "JPEG")
                content = buffer.getvalue()
            requests = [("text_rationale", load_prompt("text_rationale").request(text, content))]
            if content is not None:
                requests.append(("image_rationale", load_prompt("image_rationale").request(text, content)))
            failures = []
            for kind, answer in self.writer.write(requests):
                if isinstance(answer, Failure):
                    failures.append(answer.reason)
                else:
                    found[kind] = answer.text
            if failures:
                raise ValueError(failures[0])
        except (PostError, ValueError) as error:
            return *found.values(), render_error(str(error))
        return *found.values(), ""


def build(pipe: Pipeline, name: str, examples: list[dict[str, Any]], writer: Writer | None = None) -> gr.Blocks:
    """Builds the page.

    Args:
        name: id of the model on the Hub, or how else it is called.
    """
    page = Page(pipe, writer)
    text = gr.Textbox(label="Post", lines=3, placeholder="Two hours in the queue, great sound though", render=False)
    file = gr.Image(
        label="Picture (optional)",
        type="filepath",
        image_mode=None,  # or it is decoded before its size is looked at
        sources=["upload", "clipboard"],
        height=260,
        elem_id="picture",
        render=False,
    )
    url = gr.Textbox(label="or the picture’s address (https://…)", max_lines=1, render=False)
    text_rationale = gr.Textbox(label="Text rationale: what the text means", lines=2, render=False)
    image_rationale = gr.Textbox(label="Picture rationale: what the picture conveys", lines=2, render=False)
    with gr.Blocks(title="LRSA: aspects and their polarities", analytics_enabled=False) as blocks:
        gr.HTML(INTRODUCTION.format(model=escape(name)))
        with gr.Row():
            with gr.Column():
                if examples:
                    show_examples(examples, [text, file, url, text_rationale, image_rationale])
                text.render()
                file.render()
                url.render()
                with gr.Accordion("Rationales (optional)", open=True):
                    text_rationale.render()
                    image_rationale.render()
                    if writer is not None:
                        write = gr.Button(f"Have {writer.model} write them", size="sm")
                        problem = gr.HTML()
                        written = [text_rationale, image_rationale, problem]
                        write.click(page.write, [text, file, url], written, api_visibility="private")
                find = gr.Button("Find aspects", variant="primary")
            with gr.Column():
                result = gr.HTML(PLACEHOLDER, elem_id="result")
        inputs = [text, file, url, text_rationale, image_rationale]
        gr.on([find.click, text.submit], page.find, inputs, result, api_name="find", scroll_to_output=True)
        blocks.load(None, js=SPEAK)
    return blocks


def show_examples(examples: list[dict[str, Any]], inputs: list) -> None:
    rows = [[post["text"], post["image"], "", post["text_rationale"], post["image_rationale"]] for post in examples]
    labels = [post["text"] if len(post["text"]) <= 32 else post["text"][:31].rstrip() + "…" for post in examples]
    gr.Examples(rows, inputs, example_labels=labels, label="Examples: press one, then “Find aspects”")


def launch(blocks: gr.Blocks, **options) -> Any:
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    dark_enough = {
        "button_primary_background_fill": "*primary_700",
        "button_primary_background_fill_hover": "*primary_800",
    }
    theme.set(**dark_enough, **{f"{name}_dark": color for name, color in dark_enough.items()})
    return blocks.launch(theme=theme, css=CSS, footer_links=[], max_file_size=MAX_BYTES, ssr_mode=False, **options)


if __name__ == "__main__":
    here = Path(__file__).parent
    model = os.environ.get("LRSA_MODEL") or SpaceCard.load(here / "README.md").data.models[0]
    launch(build(load_pipeline(model), model, read_examples(here / "examples"), writer_of_environment()))
