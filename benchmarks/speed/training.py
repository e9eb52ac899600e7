"""Training steps of each form, and what else a step spends its time on."""

import torch
from torch import nn

from processing import DataCollatorForMABSA

from .clock import Clock
from .models import FORMS, Sizes, Workload, operations
from .posts import make_processor, prepared_rows


PARTS_OF_A_STEP = (
    "forward and backward, no dropout",
    "forward and backward with dropout",
    "clipping and AdamW",
    "collating",
    "whole step",
)


# Ways to compute the same step, by what torch is told.
WAYS = ("float32", "float32, products in bfloat16", "autocast to bfloat16", "float32, compiled")


def measure_training(clock: Clock, turns: int, sizes: Sizes = Sizes(), forms: tuple[str, ...] = tuple(FORMS)) -> dict:
    """Forward and backward of each form, without dropout, beside the first one's."""
    works = {form: Workload(form, sizes, clock.device, clock.dtype) for form in forms}
    for work in works.values():
        work.model.eval()
    needed = {form: operations(work.forward_and_backward) for form, work in works.items()}
    costs = clock.turns({form: work.forward_and_backward for form, work in works.items()}, turns)
    return {
        form: cost.summary()
        | {
            "operations": needed[form],
            "rate": round(cost.share(needed[form]), 3),
            "over": round(cost.over(costs[forms[0]]), 3),
            "predicted": round(needed[form] / needed[forms[0]], 3),
        }
        for form, cost in costs.items()
    }


def measure_step(clock: Clock, turns: int, sizes: Sizes = Sizes()) -> dict:
    """A whole step with fusion off, as the trainer takes it, and the shares of its parts."""
    work = Workload("fusion off", sizes, clock.device, clock.dtype)
    needed = operations(work.forward_and_backward)
    parameters = [p for p in work.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    processor = make_processor(work.model)
    collator, rows = DataCollatorForMABSA(processor, None, 2048), prepared_rows(work.model, sizes)

    def without_dropout() -> None:
        work.model.eval()
        work.forward_and_backward(keep_gradients=True)

    def with_dropout() -> None:
        work.model.train()
        work.forward_and_backward(keep_gradients=True)

    def optimize() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    def whole() -> None:
        collator(rows)
        with_dropout()
        optimize()

    functions = (without_dropout, with_dropout, optimize, lambda: collator(rows), whole)
    whole()
    costs = clock.turns(dict(zip(PARTS_OF_A_STEP, functions)), turns)
    step = costs["whole step"]
    result = {name: cost.summary() | {"of_step": round(cost.over(step), 4)} for name, cost in costs.items()}
    for name in (*PARTS_OF_A_STEP[:2], "whole step"):
        result[name] |= {"operations": needed, "rate": round(costs[name].share(needed), 3)}
    return result


def measure_ways(clock: Clock, turns: int, sizes: Sizes = Sizes(), ways: tuple[str, ...] = WAYS) -> dict:
    """Forward and backward of fusion off without dropout, in other number formats and compiled."""

    def way(name: str):
        narrow = name == "autocast to bfloat16"
        work = Workload("fusion off", sizes, clock.device, torch.bfloat16 if narrow else torch.float32)
        work.model.eval()
        if "products" in name:
            work.model.set_attn_implementation("eager")  # as `train` does
        if "compiled" in name:
            work.model.compile()

        def step() -> None:
            torch.set_float32_matmul_precision("medium" if "products" in name else "highest")
            try:
                work.forward_and_backward()
            finally:
                torch.set_float32_matmul_precision("highest")

        step()
        return step

    costs = clock.turns({name: way(name) for name in ways}, turns)
    return {name: cost.summary() | {"over": round(cost.over(costs[ways[0]]), 3)} for name, cost in costs.items()}
