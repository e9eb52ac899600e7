"""Asks a large model in this process: a Hub id, a folder that `save_pretrained` wrote, or a GGUF file."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging

from ..digests import name_with_digest
from ..images_lrsa import open_image
from .messages import one_line
from .writers import Answer, Failure, GenerationSettings, Request, WriterError


logger = logging.get_logger(__name__)

QUANTIZATIONS = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16},
}


class LocalWriter:
    """Answers with an `image-text-to-text` or a `text-generation` model of transformers, through its chat template.

    Greedy answers (`temperature=0`) do not depend on which questions share a batch, up to ties within the rounding of
    `dtype`. Sampled ones do; with a seed, the same questions in the same batches get the same answers. Control tokens
    that a post spells out are read as ordinary text where the tokenizer can. `Request.schema` is not enforced.

    Args:
        model: id of a model on the Hub, a folder that `save_pretrained` wrote, a GGUF file, or a folder with one.
        settings: how answers are generated.
        batch_size: questions that are answered at once; halved whenever memory runs out.
        device_map: where the model goes; `"auto"` fills the accelerators first, then the memory.
        dtype: such as `"bfloat16"`; `"auto"` is the checkpoint's own.
        quantization: `"8bit"` or `"4bit"`, with bitsandbytes.

    Attributes:
        model: name of the checkpoint with what tells it from others of that name, as part of the key of answers:
            `id@commit` for the Hub, `folder@digest` for files, the digest being over their contents; quantization is
            added. `dtype` and device are not part of it.
        sees_pictures: whether it is an `image-text-to-text` model.

    Raises:
        WriterError: the model can't be loaded, or has no chat template.
    """

    def __init__(
        self,
        model: str | Path,
        settings: GenerationSettings | None = None,
        *,
        batch_size: int = 8,
        device_map: str | dict[str, Any] | None = "auto",
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
    ):
        self.settings = settings or GenerationSettings()
        self.batch_size = batch_size
        source, options = _locate(str(model))
        load_options: dict[str, Any] = {"device_map": device_map, "dtype": dtype, "output_loading_info": True}
        if quantization is not None:
            load_options["quantization_config"] = _quantization_config(quantization, options)
        try:
            # What a repository brings in code of its own is refused, not asked about.
            config = None if options else AutoConfig.from_pretrained(source, trust_remote_code=False)
            self.sees_pictures = type(config) in AutoModelForImageTextToText._model_mapping
            self.processor = (AutoProcessor if self.sees_pictures else AutoTokenizer).from_pretrained(
                source, trust_remote_code=False, **options
            )
            self._check_processor(source)
            auto_class = AutoModelForImageTextToText if self.sees_pictures else AutoModelForCausalLM
            self._model, loading = auto_class.from_pretrained(
                source, trust_remote_code=False, **options, **load_options
            )
        except WriterError:
            raise
        except Exception as error:  # a broken checkpoint shows in whatever reader meets it first
            raise WriterError(
                f"{model}: can't be loaded as a language model ({_line(error)}); {_mend(error)}"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise WriterError(
                f"{model}: {len(missing)} weights are not in the checkpoint, such as {missing[0]}; take a whole one."
            )
        self.model = _name(source, options, self._model.config) + (f" ({quantization})" if quantization else "")
        self._set_generation()
        self._fit_template(source)

    @property
    def _tokenizer(self):
        return self.processor.tokenizer if self.sees_pictures else self.processor

    def _check_processor(self, source: str) -> None:
        if self.sees_pictures and getattr(self.processor, "image_processor", None) is None:
            raise WriterError(f"{source}: has no image processor; copy its processor's files into the folder.")
        if not self.processor.chat_template:
            raise WriterError(
                f"{source}: has no chat template; take the model's instruction-tuned variant, or put its "
                "chat_template.jinja into the folder."
            )

    def _set_generation(self) -> None:
        settings, config, tokenizer = self.settings, self._model.generation_config, self._tokenizer
        if config.eos_token_id is None:
            config.eos_token_id = tokenizer.eos_token_id
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        config.update(
            max_new_tokens=settings.max_new_tokens,
            max_length=None,
            do_sample=settings.temperature > 0,
            temperature=settings.temperature or None,
            top_p=settings.top_p if settings.temperature else None,
            top_k=0 if settings.temperature else None,
            pad_token_id=tokenizer.pad_token_id,
        )

    def _fit_template(self, source: str) -> None:
        """Finds out whether the template takes a system message, and the processor a guard for control tokens."""
        thinks = "enable_thinking" in str(self.processor.chat_template)
        words = [{"type": "text", "text": "What does the post say?"}]
        picture = [{"type": "image", "image": Image.new("RGB", (64, 64))}] if self.sees_pictures else []
        chat = [{"role": "system", "content": words}, {"role": "user", "content": picture + words}]
        for self._has_system, guards in product((True, False), repeat=2):
            self._template_options = {"sanitize_control_tokens": guards}
            if thinks:  # a rationale is the answer, and a short one
                self._template_options["enable_thinking"] = False
            try:
                self._encode([Request("text_rationale", chat)])
                return
            except Exception as error:
                problem = error
        raise WriterError(
            f"{source}: its chat template can't be used ({_line(problem)}); mend it or take another model."
        ) from problem

    def write(self, requests: Iterable[tuple[Hashable, Request]]) -> Iterator[tuple[Hashable, Answer | Failure]]:
        """See `Writer.write`. Questions with as many pictures each share a batch."""
        waiting: dict[int, list[tuple[Hashable, Request]]] = defaultdict(list)
        for name, request in requests:
            pictures = sum(part["type"] == "image" for message in request.messages for part in message["content"])
            if pictures and not self.sees_pictures:
                raise WriterError(
                    f"{self.model}: sees no pictures; take an image-text-to-text model, or give captions or "
                    "detected objects to a prompt without the picture."
                )
            waiting[pictures].append((name, request))
            if len(waiting[pictures]) >= self.batch_size:
                yield from self._answer(waiting.pop(pictures))
        for batch in waiting.values():
            yield from self._answer(batch)

    def _answer(self, batch: list[tuple[Hashable, Request]]) -> Iterator[tuple[Hashable, Answer | Failure]]:
        """Answers a batch. What can't be done as a whole is done by halves, down to the question that is at fault."""
        try:
            inputs = self._encode([request for _, request in batch])
            self._check_length(inputs)
            answers = self._generate(inputs)
        except Exception as error:  # templates, processors and models raise whatever they like
            memory_ran_out = should_reduce_batch_size(error)
            if isinstance(error, RuntimeError) and not memory_ran_out:  # the next question would meet it, too
                raise WriterError(f"{self.model}: generating failed ({_line(error)}).") from error
            problem = f"memory ran out: {_line(error)}" if memory_ran_out else _line(error)
        else:
            yield from zip((name for name, _ in batch), answers)
            return
        if len(batch) == 1:
            yield batch[0][0], Failure(problem)
            return
        half = (len(batch) + 1) // 2
        if memory_ran_out:
            clear_device_cache(garbage_collection=True)
            self.batch_size = min(self.batch_size, half)
            logger.warning(f"Memory ran out over {len(batch)} questions; going on with {self.batch_size} at once.")
        yield from self._answer(batch[:half])
        yield from self._answer(batch[half:])

    def _encode(self, requests: list[Request]):
        """Returns the model's inputs, `input_ids` (batch, tokens) padded on the left.

        Raises:
            ValueError: a picture can't be read.
        """
        padding = {"padding": True, "padding_side": "left"}
        if self.sees_pictures:
            options = {"processor_kwargs": padding}
        else:
            options = {"padding": True, "tokenizer_kwargs": {"padding_side": "left"}}
        return self.processor.apply_chat_template(
            [self._chat(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **self._template_options,
            **options,
        )

    def _check_length(self, inputs) -> None:
        length = int(inputs["attention_mask"].sum(-1).max())
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and length + self.settings.max_new_tokens > positions:
            raise ValueError(
                f"the prompt has {length} tokens: with {self.settings.max_new_tokens} new ones more than the "
                f"{positions} that the model takes"
            )

    def _chat(self, request: Request) -> list[dict[str, Any]]:
        """Returns the messages in the form that the chat template reads, pictures opened."""
        chat: list[dict[str, Any]] = []
        system: list[dict[str, Any]] = []
        for message in request.messages:
            parts = [self._open(part) for part in message["content"]]
            if message["role"] == "system" and not self._has_system:
                system = parts
                continue
            chat.append({"role": message["role"], "content": system + parts})
            system = []
        if not self.sees_pictures:  # templates of text put strings together
            for message in chat:
                message["content"] = "\n".join(part["text"] for part in message["content"])
        return chat

    def _open(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "image":
            return part
        picture = open_image(part["image"])
        picture.thumbnail((self.settings.max_image_side, self.settings.max_image_side))
        return {"type": "image", "image": picture}

    def _generate(self, inputs) -> list[Answer | Failure]:
        model = self._model
        inputs = inputs.to(model.device, dtype=model.dtype) if self.sees_pictures else inputs.to(model.device)
        if self.settings.seed is not None:
            torch.manual_seed(self.settings.seed)
        written = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        prompt_tokens = inputs["attention_mask"].sum(-1).tolist()
        return [self._read(tokens, prompt) for tokens, prompt in zip(written.tolist(), prompt_tokens)]

    def _read(self, tokens: list[int], prompt_tokens: int) -> Answer | Failure:
        stops = self._model.generation_config.eos_token_id
        stops = {stops} if isinstance(stops, int) else set(stops or [])
        end = next((index for index, token in enumerate(tokens) if token in stops), None)
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
        if not text:
            return Failure("the answer is empty")
        return Answer(
            text,
            finish_reason="length" if end is None else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens) if end is None else end + 1,
        )


def _locate(model: str) -> tuple[str, dict[str, str]]:
    """Returns what `from_pretrained` takes for a model: where it lies, and the GGUF file in there."""
    if "://" in model:  # may hold secrets: it is not shown
        raise WriterError("A local model is a folder, a file or a Hub id; a server's address is its base URL (--url).")
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _with_gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file() and (files := sorted(path.glob("*.gguf"))):
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise WriterError(f"{model}: holds {len(files)} GGUF files ({names}); name one of them.")
            return _with_gguf(files[0])
        return str(path), {}
    if path.suffix == ".gguf" or path.is_absolute() or model.startswith((".", "~")):
        raise WriterError(f"{model}: no such file or folder.")
    return model, {}


def _with_gguf(file: Path) -> tuple[str, dict[str, str]]:
    if find_spec("gguf") is None:
        raise WriterError(f"{file}: reading GGUF needs a package: pip install lrsa[local]")
    return str(file.parent), {"gguf_file": file.name}


def _quantization_config(quantization: str, options: dict[str, str]) -> BitsAndBytesConfig:
    if quantization not in QUANTIZATIONS:
        raise WriterError(f"quantization={quantization!r}: one of {', '.join(QUANTIZATIONS)} is expected.")
    if options:
        raise WriterError(f"{options['gguf_file']}: is quantized already; leave out quantization={quantization!r}.")
    if find_spec("bitsandbytes") is None:
        raise WriterError(f"quantization={quantization!r} needs a package: pip install bitsandbytes")
    return BitsAndBytesConfig(**QUANTIZATIONS[quantization])


def _name(source: str, options: dict[str, str], config) -> str:
    folder = Path(source)
    if not folder.is_dir():
        commit = getattr(config, "_commit_hash", None)
        return f"{source}@{commit[:12]}" if commit else source
    return name_with_digest(folder / options["gguf_file"] if options else folder)


def _line(error: Exception) -> str:
    """Returns the first line of an error, without secrets, to stand inside a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(lines[0]).rstrip(" .:")


def _mend(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "install what is missing."
    if should_reduce_batch_size(error):
        return "take a smaller model, or quantization='4bit'."
    return "give a model's id on the Hub, a folder that `save_pretrained` wrote, or a GGUF file."
