"""How long a network takes on this machine: the same weights and images in several runtimes, side by side."""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from networks import optimize_for_inference
from pipelines.allocator import reuse_freed_memory

LEAST_RUNS = 5
PATIENCE = 20.0  # seconds that a figure may take, whatever the least number of runs


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: the least, the median, and of how many runs."""

    least: float
    median: float
    runs: int


def time_runs(run: Callable[[], Any], seconds: float, gpu: bool = False) -> Timing:
    """Time a call again and again, after a warm-up.

    There are five runs at least, or as many as `PATIENCE` allows; where even the first takes longer than
    that, it is the only one.

    Args:
        run: what is timed.
        seconds: how long to go on at least.
        gpu: time with CUDA events what `run` starts on the GPU.
    """
    clock = _gpu_milliseconds if gpu else _milliseconds
    first = clock(run)
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


def matmul_rate(seconds: float = 2.0, side: int = 2048) -> float:
    """Multiply-accumulates of a float32 matrix product in 10^9 a second: what the CPU can do at best."""
    a, b = torch.rand(2, side, side)
    return side**3 / 1e6 / time_runs(lambda: a @ b, seconds).least


def measure(network: nn.Module, image_size: Sequence[int], batch: int, seconds: float) -> dict[str, Any]:
    """Time a network in each runtime that is there, on random images.

    `RUNTIMES` follow one another in this process, all in float32: eager PyTorch as it is, with channels
    last, and optimized for inference; ONNX Runtime; OpenVINO; last, since it cannot be undone, PyTorch again
    with an allocator that keeps what is freed. Where there is a GPU, PyTorch in bfloat16 on it follows.

    Args:
        network: takes (B, C, H, W); it is put in eval mode.
        image_size: (C, H, W).
        batch: number of images.
        seconds: how long to measure each at least.

    Returns:
        runtime -> the fields of its `Timing`, or `{"error": why there is none}`.
    """
    network = network.eval()
    image = torch.randn(batch, *image_size, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {}
    with torch.inference_mode():
        try:
            expected = network(image)
        except Exception as error:  # out of memory, mostly
            return {"eager": {"error": _short(error)}}
        for name, runtime in RUNTIMES.items():
            try:
                with runtime(network, image) as run:
                    _check(name, run(), expected)
                    found[name] = asdict(time_runs(run, seconds))
            except Exception as error:  # of any library; it stands in the figure's place
                found[name] = {"error": _short(error)}
        if torch.cuda.is_available():
            found.update(_on_gpu(network, image, seconds))
    return found


def _check(name: str, logits: Any, expected: torch.Tensor) -> None:
    """A runtime that answers something else has no latency."""
    difference = (torch.as_tensor(np.asarray(logits)) - expected).abs().max()
    scale = expected.abs().max().clamp(min=1)
    if not difference < 1e-3 * scale:
        raise RuntimeError(f"{name} differs from eager by {difference:.2g}")


def _short(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "bad_alloc" in text:
        return "not enough memory"
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


Runtime = Callable[[nn.Module, torch.Tensor], "contextlib.AbstractContextManager[Callable[[], Any]]"]


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
    yield lambda: network(image)


def _keeping_memory(runtime: Runtime) -> Runtime:
    @contextlib.contextmanager
    def keeping(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
        if not reuse_freed_memory():
            raise RuntimeError("this C library's allocator has no such setting")
        with runtime(network, image) as run:
            yield run

    return keeping


@contextlib.contextmanager
def _onnx_runtime(network: nn.Module, image: torch.Tensor) -> Iterator[Callable[[], Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with _onnx_file(network, image) as path:
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
    with _onnx_file(network, image) as path:
        compiled = openvino.Core().compile_model(path, "CPU", options)
    array = image.numpy()
    yield lambda: compiled(array)[0]


@contextlib.contextmanager
def _onnx_file(network: nn.Module, image: torch.Tensor) -> Iterator[Path]:
    # The exporter tells its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "network.onnx"
        # Tensors of inference mode cannot be exported.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (image.clone(),), path, verbose=False)
        yield path


RUNTIMES: dict[str, Runtime] = {
    "eager": _eager,
    "channels last": _channels_last,
    "optimized": _optimized,
    "ONNX Runtime": _onnx_runtime,
    "OpenVINO": _openvino,
    "eager, keeping memory": _keeping_memory(_eager),
    "optimized, keeping memory": _keeping_memory(_optimized),
}


def _on_gpu(network: nn.Module, image: torch.Tensor, seconds: float) -> dict[str, Any]:
    found = {}
    network, image = copy.deepcopy(network).to("cuda", torch.bfloat16), image.to("cuda", torch.bfloat16)
    for name in ("eager", "channels last", "optimized"):
        with RUNTIMES[name](network, image) as run:
            found[f"GPU {name}"] = asdict(time_runs(run, seconds, gpu=True))
    return found
