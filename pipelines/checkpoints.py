"""What a training keeps: the best weights, and all it needs to go on as if nothing had happened."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from pipelines import weights
from pipelines.errors import DataError
from pipelines.files import write_bytes
from pipelines.runs import SHIPPED

BEST, LAST = "model.pt", "last.pt"


def random_state() -> dict[str, Any]:
    """The state of every global random generator, in types that load without pickle."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - it is saved, not drawn from
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global random generator into a state given by `random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def save(state: Any, path: Path) -> None:
    """`torch.save` to a file that is whole or not there."""
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(path, content.getbuffer())


class Checkpoints:
    """Keep `model.pt` (weights of the best epoch) and `last.pt` (everything, of the last whole epoch).

    Attach it to the trainer after the handlers of validation, learning rate and tracking, so that these are
    done before an epoch is kept. Both files are replaced whole, so a kill at any moment leaves the previous
    ones; a run killed after its last epoch has no epoch left, and only ends again. `last.pt` holds tensors
    and plain values only and loads with `weights_only=True`.

    Args:
        folder: of the run.
        network: the bare module, not one wrapped for distributed training.
        optimizer, lr_scheduler: with `state_dict`.
        evaluator: the validation engine, whose best metric decides what `model.pt` is.
        resume: at the start, go on from `last.pt`; without one, start from the beginning.

    Raises:
        DataError: the checkpoint to resume from does not fit, or its epochs are no whole passes.
    """

    def __init__(
        self,
        folder: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Engine,
        resume: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.resume = resume
        self.parts = {"network": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, trainer: Engine) -> None:
        """Write what an epoch leaves; the first process only, with the random state of each."""
        states = [random_state()]
        if idist.get_world_size() > 1:
            states = [None] * idist.get_world_size()
            torch.distributed.all_gather_object(states, random_state())
        if idist.get_rank() > 0:
            return
        best = self.evaluator.state
        if best.best_metric_epoch == trainer.state.epoch:
            save(self.parts["network"].state_dict(), self.folder / BEST)
        state = {key: part.state_dict() for key, part in self.parts.items()}
        state["progress"] = {"epoch": trainer.state.epoch, "iteration": trainer.state.iteration}
        state["best"] = {"metric": float(best.best_metric), "epoch": best.best_metric_epoch}
        state["random"] = states
        if getattr(trainer, "scaler", None) is not None:
            state["scaler"] = trainer.scaler.state_dict()
        save(state, self.folder / LAST)

    def load(self, trainer: Engine) -> None:
        """Put everything into the state of `last.pt` where the run goes on."""
        path = self.folder / LAST
        if not self.resume or not path.is_file():
            return
        state = torch.load(path, map_location=trainer.state.device, weights_only=True)
        length = len(trainer.data_loader)
        if trainer.state.epoch_length != length:
            # Ignite goes on with the same pass over the data in the next epoch, which cannot be taken up.
            raise DataError(
                f"expected epochs of whole passes over the data to resume, {length} iterations, found an "
                f"epoch_length of {trainer.state.epoch_length}; start the run anew"
            )
        load_state(self.parts["network"], state["network"], path)
        self.parts["optimizer"].load_state_dict(state["optimizer"])
        self.parts["lr_scheduler"].load_state_dict(state["lr_scheduler"])
        trainer.state.epoch = state["progress"]["epoch"]
        trainer.state.iteration = state["progress"]["iteration"]
        self.evaluator.state.best_metric = state["best"]["metric"]
        self.evaluator.state.best_metric_epoch = state["best"]["epoch"]
        if "scaler" in state and getattr(trainer, "scaler", None) is not None:
            trainer.scaler.load_state_dict(state["scaler"])
        rank = idist.get_rank()
        if rank < len(state["random"]):
            set_random_state(state["random"][rank])


def load_state(network: torch.nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load weights into a network, or say in one line why they do not fit."""
    own = network.state_dict()
    strange = sorted(set(own) ^ set(state)) or sorted(
        key for key in own if own[key].shape != state[key].shape
    )
    if strange:
        raise DataError(
            f"expected weights of {type(network).__name__} as configured, found others in {path} "
            f"({len(strange)} of {len(own)} entries differ, such as {strange[0]}); where the checkpoint has "
            "a record leave --network_def out, else give the network by --network_def#_target_ networks.NAME "
            "and its arguments"
        )
    network.load_state_dict(state)


def trained_with(checkpoint: str | Path, defaults: dict[str, Any]) -> dict[str, Any]:
    """What evaluation and inference take from a checkpoint's own record, so that nobody repeats it.

    Args:
        checkpoint: `model.pt` in the folder of its run, or a safetensors file.
        defaults: what weights without a record are taken to belong to: `network`, a `_target_`, and each of
            the model settings.

    Returns:
        the defaults with what is recorded in their place; a recorded `network` is a function that builds it,
        to be the `_target_` of `network_def`, whose arguments it takes.
    """
    record = weights.record_of(checkpoint)
    found = {**defaults, **record.get("model_settings", {})}
    if "network_def" in record:
        found["network"] = functools.partial(weights.build, record["network_def"])
    return found


def load_weights(
    network: torch.nn.Module, checkpoint: str | Path, model_settings: dict[str, Any]
) -> torch.nn.Module:
    """Load weights for evaluation or inference, in the precision of the network.

    Args:
        network: the architecture that was trained.
        checkpoint: safetensors, a plain `state_dict` or a `last.pt`; none of them needs pickle.
        model_settings: how images are prepared now; compared with what the checkpoint's record says.

    Raises:
        DataError: no such file, weights of another network, or a preparation other than in training.
    """
    path = Path(checkpoint)
    state, trained = weights.state_of(path), weights.record_of(path)
    name = type(network).__name__
    if trained.get("network", name) != name:
        raise DataError(
            f"expected the network that {path} was trained with, {trained['network']}, found {name}; leave "
            f"--network_def out, or add `--network_def#_target_ networks.{trained['network']}`"
        )
    for key, value in trained.get("model_settings", {}).items():
        if key in model_settings and model_settings[key] != value:
            raise DataError(
                f"expected {key}={value}, as {path} was trained with, found {model_settings[key]}; "
                f'leave --{key} out, or add `--{key} "{value}"`'
            )
    load_state(network, state, path)
    shipped = Path(*path.parts[-2:]) == SHIPPED
    print(f"weights: {'shipped with the bundle, ' if shipped else ''}{path}")
    return network
