"""What training in several processes needs beside PyTorch's `DistributedDataParallel`."""

from __future__ import annotations

from collections.abc import Sized
from datetime import timedelta

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from pipelines.errors import DataError

PATIENCE = timedelta(hours=6)  # one process may prepare large volumes while the others wait


def start() -> None:
    """Join the processes that `torchrun` started: NCCL between GPUs, gloo between CPUs."""
    idist.initialize("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def enough(cases: Sized) -> None:
    """Refuse to share out fewer cases than there are processes: one without any would hold up the others.

    Raises:
        DataError: names both numbers.
    """
    if len(cases) < idist.get_world_size():
        raise DataError(
            f"expected at least one case for each of {idist.get_world_size()} processes, found {len(cases)} "
            "held out; start fewer processes, or hold out more with a lower --num_folds"
        )


class SyncBuffers:
    """Give all processes the first one's running statistics at the end of an epoch.

    Each process normalizes its own share of the data, and so would validate its share of the cases with
    another network than the one that is saved.

    Args:
        network: the bare module.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the trainer; it acts before an epoch's validation."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, trainer: Engine) -> None:
        if trainer.state.iteration % trainer.state.epoch_length == 0 and idist.get_world_size() > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
