"""Pipeline: posts in, aspects with polarities out."""

import os
from types import GeneratorType
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline

from .public_images_lrsa import open_public_image


class MABSAPipeline(Pipeline):
    """Finds the aspects of posts and the polarity towards each: `pipeline("mabsa", model=…)`.

    A post is a string, or a dictionary with `text` (or `words`) and any of `image` (PIL image, path, URL, base64,
    `data:` URL or bytes), `image_rationale`, `text_rationale`, `linguistics`; for `task="masc"` with `aspects`. Takes
    one, or a list of them, for which it gives a list; or a generator or a data set, for which it gives an iterable
    that reads on as it is read from. `batch_size` posts go together; what comes out is in the order of what goes in.

    Call arguments:
        task: `"mabsa"`, `"mate"` or `"masc"`.
        threshold: predictions with a lower score are left out.
        explain: adds to each prediction an `"explanation"`: the words of the rationales and the patches of the picture
            that it drew on (`LRSAForMABSA.explain`).
        trust_images: `False` where strangers name the pictures: they are then opened by `open_public_image`, which
            reads no files and asks no server inside of this network.
        Any argument of `generate`, such as `num_beams`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processor.check_fits(self.model.config)

    def __call__(self, inputs: Any, *args, **kwargs) -> Any:
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        # What transformers takes no data set for, such as one of `datasets`, and other iterators.
        if not isinstance(inputs, str | dict | list | Dataset | GeneratorType) and hasattr(inputs, "__iter__"):
            inputs = (post for post in inputs)
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(
        self,
        task: str | None = None,
        threshold: float | None = None,
        explain: bool | None = None,
        trust_images: bool | None = None,
        **generate_kwargs,
    ):
        if refused := {"num_return_sequences", "return_dict_in_generate", "output_scores"} & set(generate_kwargs):
            raise ValueError(
                f"A pipeline gives one result a post with its scores; leave out {', '.join(sorted(refused))}."
            )
        forward = {"generate_kwargs": generate_kwargs} if generate_kwargs else {}
        if task is not None:
            forward["task"] = task
        if explain is not None:
            forward["explain"] = explain
        preprocess = {} if trust_images is None else {"trust_images": trust_images}
        return preprocess, forward, {} if threshold is None else {"threshold": threshold}

    def preprocess(self, post: str | dict[str, Any], trust_images: bool = True) -> dict[str, Any]:
        if isinstance(post, str):
            post = {"text": post}
        if not isinstance(post, dict) or (post.get("text") is None and post.get("words") is None):
            raise ValueError("A post needs `text` (a string) or `words` (a list of words).")
        if not trust_images and post.get("image") is not None:
            post = {**post, "image": open_public_image(post["image"])}
        return {"post": post}

    def _forward(
        self,
        model_inputs: dict,
        task: str = "mabsa",
        explain: bool = False,
        generate_kwargs: dict | None = None,
    ) -> dict[str, list]:
        posts = model_inputs["post"]
        batched = isinstance(posts, list)
        posts = posts if batched else [posts]
        inputs = self.processor(
            text=[post["text"] if post.get("words") is None else post["words"] for post in posts],
            images=[post.get("image") for post in posts],
            image_rationales=[post.get("image_rationale") for post in posts],
            text_rationales=[post.get("text_rationale") for post in posts],
            aspects=[post.get("aspects") or [] for post in posts] if task == "masc" else None,
            linguistics=[post.get("linguistics") for post in posts],
            task=task,
            return_tensors="pt",
        ).to(self.device)
        outputs = self.model.generate(
            **inputs, return_dict_in_generate=True, output_scores=True, **generate_kwargs or {}
        )
        found = self.processor.post_process_mabsa(outputs, inputs, task)
        if explain:
            explained = self.model.explain(self.processor, inputs, outputs.sequences)
            for aspects, explanations in zip(found, explained, strict=True):
                for aspect, explanation in zip(aspects, explanations, strict=True):
                    aspect["explanation"] = explanation
        return {"aspects": found if batched else found[0]}

    def postprocess(self, model_outputs: dict[str, list], threshold: float = 0.0) -> list[dict[str, Any]]:
        return [aspect for aspect in model_outputs["aspects"] if aspect["score"] >= threshold]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves model and processor, which bring the code of this pipeline with them.

        `kwargs` go to `save_pretrained` of both, such as `push_to_hub` and `repo_id`.
        """
        save_directory = os.fspath(save_directory)
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
