"""Running bundles as a user does, small enough for a test."""

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import torch

from tests.conftest import ROOT

BUNDLES = ("lits", "brain_tumour", "inbreast", "dce_us", "ceus")
EVALUATING = "bundles/common/evaluate.json"


def train(bundle: str) -> str:
    """The file of a bundle's experiment, from a workspace."""
    return f"bundles/{bundle}/train.json"


def small(bundle: str) -> dict[str, str]:
    """Options that leave the real experiment with a network of a few thousand parameters on small slices."""
    channels = {"lits": 1, "brain_tumour": 4, "inbreast": 1, "dce_us": 3, "ceus": 2}[bundle]
    return {
        "network_def": f"{{'_target_': 'BasicUNet', 'spatial_dims': 2, 'in_channels': {channels},"
        " 'out_channels': 1, 'features': [4, 4, 8, 8, 8, 4], 'dropout': 0.1}",
        "image_size": "[32, 32]",
        "batch_size": "8",
        "num_workers": "0",
        "num_folds": "3",
    }


def for_inference(bundle: str) -> dict[str, str]:
    """Of these options the ones that inference knows."""
    return {key: small(bundle)[key] for key in ("network_def", "image_size", "batch_size")}


SMALL = {key: value for key, value in small("lits").items() if key != "num_folds"}
TRAIN = train("lits")
EVALUATE = f"['{TRAIN}','{EVALUATING}']"


def make_workspace(folder: Path) -> Path:
    """A folder from which bundles run as from the repo's root."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundles").symlink_to(ROOT / "bundles")
    return folder


def command(run_id, config_file, launcher=("-m",), **options):
    """`python -m monai.bundle run ...` as a list of words."""
    words = [sys.executable, *launcher, "monai.bundle", "run", run_id, "--config_file", config_file]
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return words


def environment(**extra):
    """The environment of a run: our packages on the path, one thread, no other tracking server."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}


def type_in(folder, run_id, config_file, expect=0, env=None, **options):
    """Run a bundle in `folder` by the command that a user types; returns what it printed."""
    words = command(run_id, config_file, **options)
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == expect, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


# A process that has imported what every bundle needs, which takes longer than what most tests do with it, and
# from which others fork.
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.bundles.warm"])


def warm_up():
    """Start the process that others fork from, so that what is timed does not wait for its imports."""
    process = forks.Process(target=int)
    process.start()
    process.join()


def run(folder, run_id, config_file, expect=0, env=None, **options):
    """What `type_in` does, in a process that need not import everything anew."""
    words = command(run_id, config_file, **options)
    ((status, text),) = _carry_out(words, folder, [environment(**(env or {}))])
    assert status == expect, f"{' '.join(words)}\n{text}"
    return text


def run_in_two(folder, run_id, config_file, **options):
    """What `torchrun` does, in processes that need not import everything anew."""
    words = command(run_id, config_file, **options)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    found = _carry_out(
        words, folder, [environment(**both, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    )
    assert [status for status, _ in found] == [0, 0], "\n".join(text[-3000:] for _, text in found)
    return "".join(text for _, text in found)


def begin(folder, log, run_id, config_file, **options):
    """A process that does what `run` does, and that can be killed; it prints into `log`."""
    words = command(run_id, config_file, **options)
    process = forks.Process(target=_main, args=(words[3:], folder, environment(), log))
    log.touch()
    process.start()
    return process


def _carry_out(words, folder, environments):
    """Carry out a command in a process for each environment; the status and what was printed, of each."""
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [Path(scratch, str(number)) for number in range(len(environments))]
        processes = [
            forks.Process(target=_main, args=(words[3:], folder, env, output))
            for env, output in zip(environments, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(600)
            process.kill()  # one that did not end in time has the status of a killed one
            process.join()
        return [
            (process.exitcode, output.read_text(encoding="utf-8", errors="replace"))
            for process, output in zip(processes, outputs, strict=True)
        ]


def _main(words, folder, env, output):
    """Be `python -m monai.bundle` with these words, in a folder and an environment."""
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = str(folder)
    sys.argv = ["monai.bundle", *words]
    # The way to start workers that a program has by itself, not that of who started it: a server of its own.
    multiprocessing.set_start_method(None, force=True)
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()  # which such a process leaves out


def torchrun(folder, run_id, config_file, **options):
    """Run a bundle in two processes by the command that a user types; returns what they printed."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    words = command(run_id, config_file, launcher=launcher, **options)
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def noisy_weights(folder, bundle):
    """Of the run "a", changed so that they segment a good part of anything and masks can be compared."""
    state = torch.load(folder / "runs" / bundle / "a/model.pt", weights_only=True)
    state["final_conv.weight"] *= 50
    state["final_conv.bias"] *= 0
    torch.save(state, folder / "noisy.pt")
    return folder / "noisy.pt"


def runs_of(folder, bundle):
    """MLflow's client and the runs of a bundle, by their names."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    found = client.search_runs([client.get_experiment_by_name(bundle).experiment_id])
    return client, {run.info.run_name: run for run in found}
