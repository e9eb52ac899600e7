"""Does one part once, in a process of its own, and prints the peak memory in gigabytes."""

import resource
from pathlib import Path

import torch

from .models import FORMS, Workload


def main(what: str) -> None:
    form = what if what in FORMS else "fusion off"
    work = Workload(form)
    if what in FORMS:
        optimizer = torch.optim.AdamW(work.model.parameters(), lr=1e-6, fused=True)
        work.model.train()
        for _ in range(2):
            work.forward_and_backward()
            optimizer.step()
    else:
        work.model.eval()
        {"beam 4": lambda: work.generate(4), "beam 4 without cache": lambda: work.naive(4)}[what]()
    print(peak())


def peak() -> float:
    """Where Linux tells it, of this process alone: what `getrusage` gives begins with what its parent held."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e6
