"""One process, or several that share a run: started by torchrun, with NCCL on GPUs and gloo on CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from clearfilm.errors import TrainingError
from clearfilm.vision.network import choose_device

# The others wait while the first one decodes films.
_LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class Team:
    """This process among those of a run.

    Parameters
    ----------
    rank, world : int
        Number of this process and how many there are.
    local_rank : int
        Number on this machine.
    device : torch.device
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes checkpoints and the bundle."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            distributed.barrier()

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the other processes if torchrun started several.

    Parameters
    ----------
    device : str
        As in the worker's configuration; with several processes each takes the CUDA device of its local rank.

    Raises
    ------
    TrainingError
        If the device is not there.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"worker.device is {device}, but there is no CUDA device; set worker.device=cpu")
        number = local if world > 1 else (chosen.index or 0)
        if number >= torch.cuda.device_count():
            raise TrainingError(f"there is no CUDA device {number}, only {torch.cuda.device_count()}")
        chosen = torch.device("cuda", number)
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Team(0, 1, 0, chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield Team(rank, world, local, chosen)
    finally:
        distributed.destroy_process_group()


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
