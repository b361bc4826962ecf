"""Reading and training of a bundle: images a second of each alone and of both together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from pipelines import datasets
from pipelines.bench_setup import Rows, experiment, large_volume, rate

ROUNDS = 3
READY = 3  # steps before each measurement, at least
GPU_STEPS = 150  # in each round
EPOCH = 200  # images at least: workers begin anew with each epoch, and real ones are not shorter
UNIT = "images a second"
ON_DEVICE = "bundles/common/on_device.json"
IN_MEMORY = "$[{key: part.to(@device) for key, part in next(iter(@train#dataloader)).items()}]"


class Setting(NamedTuple):
    """How a bundle is measured.

    Attributes:
        cases: writes data of the real thing's size into a folder, and gives its datalist.
        options: values that replace the bundle's, by id.
        steps: training steps in each round on the CPU.
    """

    cases: Callable[[Path], list[dict[str, Any]]]
    options: dict[str, Any]
    steps: int


def _volume(folder: Path) -> list[dict[str, Any]]:
    return [large_volume(folder, slices=EPOCH)]


def _pictures(folder: Path) -> list[dict[str, Any]]:
    datasets.get("dce_us").phantom(folder, cases=12, size=256, progress=False)
    return datasets.get("dce_us").index(folder)


def _key_frames(folder: Path) -> list[dict[str, Any]]:
    datasets.get("ceus").phantom(folder / "clips", cases=12, size=256, progress=False)
    return datasets.get("ceus").index(folder / "clips", frames_dir=folder / "frames")


# Smaller batches than the bundles' own, so that two cores make a step in a few seconds.
SETTINGS = {
    "lits": Setting(_volume, {"batch_size": 4}, steps=15),
    "dce_us": Setting(_pictures, {"batch_size": 4}, steps=4),
    "ceus": Setting(_key_frames, {"batch_size": 4}, steps=4),
}


def reading_and_training(name: str, folder: Path) -> Rows:
    """Images a second of reading alone, of training alone, and of both together.

    Reading is decoding and preparing, once for each image, and then, in each epoch, fetching from the cache
    and augmenting. Training is done by the bundle's own trainer, without its handlers.

    Args:
        name: of the bundle, one of `SETTINGS`.
        folder: an empty one, for data and cache.
    """
    setting = SETTINGS[name]
    cases = setting.cases(folder / "data")
    options = {
        **setting.options,
        "device": "cpu",
        "num_workers": 0,
        "cache_dir": str(folder / "cache"),
        "train#dataset#workers": 0,
        "train#dataset#data": cases,
        "train#dataloader#drop_last": True,
        "train#handlers": [],
    }
    warm_up = {"cache_dir": str(folder / "warm-up"), "train#dataset#data": cases[:1]}
    experiment(name, **options | warm_up).get_parsed_content("train#dataset")
    start = time.perf_counter()
    images = len(experiment(name, **options).get_parsed_content("train#dataset"))
    yield "reading, once: into the cache, one process", images / (time.perf_counter() - start), UNIT

    options["train#dataset#data"] = cases * -(-EPOCH // images)
    with_gpu = options | {"device": "cuda"}
    parser = experiment(name, **options)
    shape = _shape(parser)
    yield f"reading, each epoch: {shape} from the cache, augmented, no workers", _reading(parser), UNIT
    if torch.cuda.is_available():
        parser = experiment(name, [ON_DEVICE], **with_gpu)
        yield f"reading, each epoch: {shape} on the GPU, augmented there", _reading(parser), UNIT

    yield from training(name, options, setting.steps)
    if torch.cuda.is_available():
        workers = experiment(name).get_parsed_content("num_workers")
        yield from training(name, with_gpu, GPU_STEPS, {0, 1, workers}, [ON_DEVICE])


def _reading(parser: ConfigParser) -> float:
    """Images a second of an experiment's own loader, in this process."""
    loader = parser.get_parsed_content("train#dataloader")
    batches = chain.from_iterable(repeat(loader))

    def read() -> None:
        image = next(batches)["image"]
        if image.is_cuda:
            torch.cuda.synchronize()

    return loader.batch_size * rate(read)


def training(
    name: str,
    options: dict[str, Any],
    steps: int,
    workers: Iterable[int] = (0, 1),
    overlays: Iterable[str] = (),
) -> Rows:
    """Images a second of training on one batch that stays in memory, and with real loading and augmentation.

    Args:
        name: of the bundle.
        options: values that replace the bundle's, by id.
        steps: in each round.
        workers: how many loading workers, each number by itself.
        overlays: configuration files to try, each by itself.
    """
    sources: dict[str, ConfigParser] = {
        "one batch in memory": experiment(name, **options, **{"train#trainer#train_data_loader": IN_MEMORY})
    }
    for number in sorted(workers):
        what = f"loading, {number or 'no'} worker{'s' if number != 1 else ''}"
        sources[what] = experiment(name, **options | {"num_workers": number})
    for overlay in overlays:
        sources[f"loading, {Path(overlay).name}"] = experiment(name, [overlay], **options)

    # All before the first one trains: workers start before training has taken its memory, as in a run.
    timed = {what: timed_training(parser, steps) for what, parser in sources.items()}
    spent = dict.fromkeys(sources, 0.0)
    for _ in range(ROUNDS):  # in turns, so that a slower minute of the machine is everybody's
        for what, train in timed.items():
            spent[what] += train()
    parser = next(iter(sources.values()))
    batch = parser.get_parsed_content("batch_size")
    rates = {what: ROUNDS * steps * batch / seconds for what, seconds in spent.items()}
    title = _title(parser)
    for what, value in rates.items():
        yield f"{title}: {what}", value, UNIT
    alone, *together = rates
    for what in together:
        yield f"{title}: share kept, {what}", rates[what] / rates[alone], "times"


def _title(parser: ConfigParser) -> str:
    """What trains on what, such as `LighterUNet, batch 4, 3x256x256`."""
    network = type(parser.get_parsed_content("network_def")).__name__
    trainer = parser.get_parsed_content("train#trainer")
    on = ", GPU" if trainer.state.device.type == "cuda" else ""
    mixed = ", mixed precision" if trainer.amp else ""
    return f"{network}, batch {parser.get_parsed_content('batch_size')}, {_shape(parser)}{on}{mixed}"


def _shape(parser: ConfigParser) -> str:
    return "x".join(map(str, parser.get_parsed_content("input_shape")))


def timed_training(parser: ConfigParser, steps: int) -> Callable[[], float]:
    """An experiment's own trainer, with its workers started.

    Args:
        parser: the experiment.
        steps: how many to time.

    Returns:
        A function that goes on with the training and gives the seconds that `steps` steps took, with all that
        brings their batches. The steps before them use up what workers had ready.
    """
    ready = max(READY, 2 * parser.get_parsed_content("num_workers") + 1)  # a worker has two batches ready
    parser.update({"train#trainer#epoch_length": ready + steps})
    torch.manual_seed(0)
    trainer = parser.get_parsed_content("train#trainer")
    iter(trainer.data_loader)
    stamps = []

    @trainer.on(Events.ITERATION_COMPLETED(event_filter=lambda _, step: step % (ready + steps) in (0, ready)))
    def stamp(engine: Engine) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    def train() -> float:
        trainer.state.max_epochs = trainer.state.epoch + 1
        trainer.run()
        return stamps[-1] - stamps[-2]

    return train
