"""Runs whose commands do almost nothing, as classes that processes of a cluster can import."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.sweep_plan import Job

EXPERIMENT = "study"


@dataclass(frozen=True)
class Trivial(Job):
    """A run that is recorded as one that was trained and evaluated, unless its name is "broken" or "lost"."""

    def training(self, resume=False):
        if self.name == "lost":  # as where a machine dies under a task
            with Path("lost").open("a") as file:
                file.write("training\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return [sys.executable, __file__, self.name]

    def evaluating(self):
        return [sys.executable, "-S", "-c", "pass"]


def record(name):
    """A run in MLflow, finished and evaluated."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlruns.db').resolve()}"))
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    run = client.create_run(experiment, run_name=name)
    client.log_metric(run.info.run_id, "test_dice", 0.5)
    client.set_terminated(run.info.run_id, "FINISHED")


if __name__ == "__main__":
    name = sys.argv[1]
    if name == "broken":
        sys.exit("it broke")
    folder = Path("runs") / EXPERIMENT / name
    folder.mkdir(parents=True)
    said = {key: os.environ.get(key) for key in ("MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES")}
    (folder / "environment.json").write_text(json.dumps({**said, "folder": os.getcwd()}))
    record(name)
