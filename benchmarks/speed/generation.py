"""Generation: greedy, by beams, and by beams without any cache."""

from .clock import Clock
from .models import Sizes, Workload, operations


LENGTH = 16
# Beam 4 to 16 targets, 16 posts, where each beam projects the source for itself, as transformers' does by default.
COUNTED = 274e9


def measure_generation(clock: Clock, turns: int, sizes: Sizes = Sizes()) -> dict:
    work = Workload("fusion off", sizes, clock.device, clock.dtype)
    work.model.eval()
    if work.narrow:
        work.model.to(clock.dtype)
    functions = {
        "beam 4": lambda: work.generate(4, LENGTH),
        "greedy": lambda: work.generate(1, LENGTH),
        "beam 4 without cache": lambda: work.naive(4, LENGTH),
    }
    result = {name: {"operations": operations(function)} for name, function in functions.items()}
    costs = clock.turns(functions, turns)
    for name, cost in costs.items():
        result[name] |= cost.summary() | {
            "rate": round(cost.share(result[name]["operations"]), 3),
            "over": round(cost.over(costs["beam 4"]), 3),
        }
    if sizes == Sizes():
        result["beam 4"]["rate_as_counted"] = round(costs["beam 4"].share(COUNTED), 3)
    return result
