"""Times functions side by side, against the rate at which the machine multiplies matrices at that moment."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Cost:
    """What the turns of one function took.

    Attributes:
        seconds: of each turn: processor time on a CPU, wall-clock time on an accelerator.
        products: of each turn, the operations of matrix products that the machine does in these seconds. Of two
            functions' costs this is what is compared: the machine's rate changes, and cancels out.
    """

    seconds: list[float]
    products: list[float]

    def share(self, operations: float) -> float:
        """The rate at which a function does its operations, as a share of the rate of matrix products alone."""
        return statistics.median(operations / product for product in self.products)

    def over(self, other: "Cost") -> float:
        """How many times the other function's cost this one's is: the median over turns."""
        return statistics.median(a / b for a, b in zip(self.products, other.products))

    def summary(self) -> dict[str, float]:
        return {
            "seconds": round(statistics.median(self.seconds), 4),
            "least_seconds": round(min(self.seconds), 4),
            "products": round(statistics.median(self.products) / 1e9, 1),
        }


class Clock:
    """Lets functions take turns, each between two matrix products of the same type on the same device.

    Processor time on a CPU depends little on what else the machine does; its rate still does, for neighbours share
    caches and the clock. So the rate is measured beside each turn, and medians count.
    """

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.device, self.dtype = device, dtype
        self.size = 2048 if device == "cpu" else 8192
        self.matrices = [torch.randn(self.size, self.size, device=device, dtype=dtype) for _ in range(2)]
        self.rates: list[float] = []
        self.rate()

    def seconds(self, function: Callable[[], object]) -> float:
        now = time.process_time if self.device == "cpu" else time.perf_counter
        self._wait()
        started = now()
        function()
        self._wait()
        return now() - started

    def rate(self) -> float:
        """Operations a second of a matrix product, a multiplication and an addition counted as two."""
        self.rates.append(2 * self.size**3 / self.seconds(lambda: torch.mm(*self.matrices)))
        return self.rates[-1]

    def turns(self, functions: dict[str, Callable[[], object]], turns: int) -> dict[str, Cost]:
        """Calls each function `turns` times, in alternating order. What the first call prepares is the caller's."""
        costs = {name: Cost([], []) for name in functions}
        for turn in range(turns):
            for name in list(functions)[:: -1 if turn % 2 else 1]:
                before = self.rate()
                seconds = self.seconds(functions[name])
                costs[name].seconds.append(seconds)
                costs[name].products.append(seconds * (before + self.rate()) / 2)
        return costs

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
