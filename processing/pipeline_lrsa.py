"""Pipeline: posts in, aspects with polarities out."""

import os
from typing import Any

from transformers import Pipeline


class MABSAPipeline(Pipeline):
    """Finds the aspects of posts and the polarity towards each: `pipeline("mabsa", model=…)`.

    A post is a string, or a dictionary with `text` (or `words`) and any of `image`, `image_rationale`,
    `text_rationale`, `linguistics`; for `task="masc"` with `aspects`. Takes one, a list, a generator or a data set of
    them; `batch_size` posts go together.

    Call arguments: `task` (`"mabsa"`, `"mate"`, `"masc"`), `threshold` (predictions with a lower score are left out),
    and any argument of `generate`, such as `num_beams`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processor.check_fits(self.model.config)

    def _sanitize_parameters(self, task: str | None = None, threshold: float | None = None, **generate_kwargs):
        if refused := {"num_return_sequences", "return_dict_in_generate", "output_scores"} & set(generate_kwargs):
            raise ValueError(
                f"A pipeline gives one result a post with its scores; leave out {', '.join(sorted(refused))}."
            )
        forward = {"generate_kwargs": generate_kwargs} if generate_kwargs else {}
        if task is not None:
            forward["task"] = task
        return {}, forward, {} if threshold is None else {"threshold": threshold}

    def preprocess(self, post: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(post, str):
            post = {"text": post}
        if post.get("text") is None and post.get("words") is None:
            raise ValueError("A post needs `text` (a string) or `words` (a list of words).")
        return {"post": post}

    def _forward(
        self, model_inputs: dict, task: str = "mabsa", generate_kwargs: dict | None = None
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
