"""How long a network takes on this machine: the same weights and images in several runtimes, side by side."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from networks import optimize_for_inference
from pipelines.allocator import reuse_freed_memory

LEAST_RUNS = 10
PATIENCE = 10.0  # seconds that a figure may take, whatever the least number of runs


Runtime = Callable[[nn.Module, torch.Tensor], "contextlib.AbstractContextManager[Callable[[], Any]]"]
"""Network and images -> a call that answers, valid in the context."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: the least, the median, and of how many runs."""

    least: float
    median: float
    runs: int


def time_runs(
    run: Callable[[], Any], seconds: float, gpu: bool = False, warm_up: float | None = None
) -> Timing:
    """Time a call again and again, after a warm-up.

    There are ten runs at least, or as many as `PATIENCE` allows; where even the first takes longer than
    that, it is the only one.

    Args:
        run: what is timed.
        seconds: how long to go on at least.
        gpu: time with CUDA events what `run` starts on the GPU.
        warm_up: milliseconds of a first run, where there was one.
    """
    clock = _gpu_milliseconds if gpu else _milliseconds
    first = clock(run) if warm_up is None else warm_up
    if first > 1e3 * PATIENCE:
        return Timing(first, first, 1)
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < 1e3 * seconds:
        times.append(clock(run))
        if sum(times) > 1e3 * PATIENCE:
            break
    return Timing(min(times), statistics.median(times), len(times))


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _gpu_milliseconds(run: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def matmul_rates(seconds: float = 1.0, side: int = 2048) -> dict[str, float]:
    """Multiply-accumulates of square matrix products in 10^9 a second, as measured here.

    On the CPU in float32, as `torch.matmul` and as a 1x1 convolution with channels last: they run in
    different libraries, and the faster one is what other layers can be compared with. On a GPU, if there is
    one, in bfloat16.
    """
    a, b = torch.rand(2, side, side)
    pixels = a.T.reshape(1, side, side, 1).to(memory_format=torch.channels_last)
    kernels = b.reshape(side, side, 1, 1).to(memory_format=torch.channels_last)
    products = {"matmul": lambda: a @ b, "1x1 convolution": lambda: F.conv2d(pixels, kernels)}
    work = side**3 / 1e6  # milliseconds below
    rates = {name: work / time_runs(product, seconds).least for name, product in products.items()}
    if torch.cuda.is_available():
        a, b = a.to("cuda", torch.bfloat16), b.to("cuda", torch.bfloat16)
        rates["GPU matmul, bfloat16"] = work / time_runs(lambda: a @ b, seconds, gpu=True).least
    return rates


def measure(
    network: nn.Module, image_size: Sequence[int], batch: int, seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time a network in each runtime that is there, on random images.

    `RUNTIMES` follow one another in this process, all in float32: eager PyTorch as it is, with channels
    last, and optimized for inference; ONNX Runtime; OpenVINO; last, since it cannot be undone, PyTorch again
    with an allocator that keeps what is freed. Where there is a GPU, PyTorch in bfloat16 on it follows.

    Args:
        network: takes (B, C, H, W); it is put in eval mode.
        image_size: (C, H, W).
        batch: number of images.
        seconds: how long to measure each at least.

    Yields:
        Runtime, and the fields of its `Timing` or `{"error": why there is none}`.
    """
    network = network.eval()
    image = torch.randn(batch, *image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            expected = network(image)
        except Exception as error:  # out of memory, mostly
            yield "eager", {"error": _short(error)}
            return
        for name, runtime in RUNTIMES.items():
            yield name, _timing(name, runtime, network, image, expected, seconds)
        if torch.cuda.is_available():
            network, image = network.to("cuda", torch.bfloat16), image.to("cuda", torch.bfloat16)
            for name in ("eager", "channels last", "optimized"):
                timing = _timing(name, RUNTIMES[name], network, image, expected, seconds, gpu=True)
                yield f"GPU {name}", timing


def _timing(
    name: str,
    runtime: Runtime,
    network: nn.Module,
    image: torch.Tensor,
    expected: torch.Tensor,
    seconds: float,
    gpu: bool = False,
) -> dict[str, Any]:
    try:
        with runtime(network, image) as run:
            answers: list[Any] = []
            warm_up = (_gpu_milliseconds if gpu else _milliseconds)(lambda: answers.append(run()))
            # A runtime that answers something else has no latency. bfloat16 keeps 8 bits.
            logits = torch.as_tensor(answers[0]).float().cpu()
            difference = ((logits - expected).norm() / (expected - expected.mean()).norm()).item()
            if not difference < (0.3 if gpu else 1e-2):
                raise RuntimeError(f"{name} differs from eager by {difference:.1%}")
            return asdict(time_runs(run, seconds, gpu, warm_up))
    except Exception as error:  # of any library; it stands in the figure's place
        return {"error": _short(error)}


def compare(network: nn.Module, image_size: Sequence[int], pairs: int) -> dict[str, dict[str, Any]]:
    """Plain eager against optimized, run in turns on one image, with both settings of the allocator.

    Args:
        network: takes (B, C, H, W); it is put in eval mode.
        image_size: (C, H, W).
        pairs: how often both are run.

    Returns:
        Setting of the allocator -> `eager` and `optimized`, the median milliseconds of each, and `ratio`, the
        median of the pairs' ratios with their lower and upper quartile.
    """
    network = network.eval()
    image = torch.randn(1, *image_size, generator=torch.Generator().manual_seed(0))
    found: dict[str, dict[str, Any]] = {}
    with torch.inference_mode(), _eager(network, image) as eager, _optimized(network, image) as optimized:
        for setting in ("system default", "keeping memory"):
            if setting == "keeping memory" and not reuse_freed_memory():
                continue
            eager(), optimized()
            times = [(_milliseconds(eager), _milliseconds(optimized)) for _ in range(pairs)]
            lower, middle, upper = statistics.quantiles([plain / fast for plain, fast in times], n=4)
            plain, fast = (statistics.median(side) for side in zip(*times, strict=True))
            found[setting] = {
                "eager": plain,
                "optimized": fast,
                "ratio": middle,
                "quartiles": [lower, upper],
                "pairs": pairs,
            }
    return found


def _short(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "bad_alloc" in text:
        return "not enough memory"
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _eager(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    yield lambda: network(image)


@contextlib.contextmanager
def _channels_last(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    yield lambda: network(image)


@contextlib.contextmanager
def _optimized(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    network = optimize_for_inference(network)
    image = image.to(memory_format=torch.channels_last)
    yield lambda: network(image)


@contextlib.contextmanager
def _optimized_keeping_memory(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    if not reuse_freed_memory():
        raise RuntimeError("this C library's allocator has no such setting")
    with _optimized(network, image) as run:
        yield run


@contextlib.contextmanager
def _onnx_runtime(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = _onnx_file(network, image)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image.numpy()}
    yield lambda: session.run(None, inputs)[0]


@contextlib.contextmanager
def _openvino(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    import openvino

    # By itself it computes in bfloat16 where the processor can.
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(_onnx_file(network, image), "CPU", options)
    array = image.numpy()
    yield lambda: compiled(array)[0]


@functools.lru_cache(maxsize=1)
def _onnx_folder(network: nn.Module, image: torch.Tensor) -> tempfile.TemporaryDirectory:
    """A folder with the network as ONNX for images of this size; both runtimes read the same file."""
    folder = tempfile.TemporaryDirectory()
    # The exporter tells its progress on standard output, and takes no tensors of inference mode.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(network, (image.clone(),), Path(folder.name) / "network.onnx", verbose=False)
    return folder


def _onnx_file(network: nn.Module, image: torch.Tensor) -> Path:
    return Path(_onnx_folder(network, image).name) / "network.onnx"


RUNTIMES: dict[str, Runtime] = {
    "eager": _eager,
    "channels last": _channels_last,
    "optimized": _optimized,
    "ONNX Runtime": _onnx_runtime,
    "OpenVINO": _openvino,
    "optimized, keeping memory": _optimized_keeping_memory,
}
