import json
import sys
from pathlib import Path

import pytest

from pipelines import sweep_ray
from pipelines.errors import DataError
from pipelines.sweep_run import DONE, FAILED, SKIPPED, tracked
from pipelines.tracking import tracking_uri
from tests.pipelines.sweep_commands import EXPERIMENT, Trivial, record
from tests.pipelines.tracked_runs import client_of


def test_tasks_share_gpus_or_machines():
    assert sweep_ray.share([{"CPU": 8.0}, {"CPU": 4.0}], 1) == ({"num_cpus": 4, "num_gpus": 0}, 2)
    assert sweep_ray.share([{"CPU": 8.0}], 4) == ({"num_cpus": 2, "num_gpus": 0}, 4)
    assert sweep_ray.share([{"CPU": 2.0}], 4) == ({"num_cpus": 1, "num_gpus": 0}, 2)
    # Machines without a GPU take no part where others have some.
    mixed = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}]
    assert sweep_ray.share(mixed, 2) == ({"num_cpus": 4, "num_gpus": 0.5}, 4)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install .* -e '\.\[ray\]'"):
        sweep_ray.sweep([], "local")


@pytest.fixture
def cluster(workspace, monkeypatch):
    """Ray on this machine with two processors, and nothing that reaches out."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    real = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: real(**options, num_cpus=2))
    return workspace


@pytest.mark.slow  # each worker of the cluster imports everything
def test_a_local_cluster_carries_out_a_sweep(cluster, capsys):
    client_of(cluster, EXPERIMENT)
    finished = Trivial("finished", EXPERIMENT, (), (), (), 0, 0)
    record(finished.name)
    names = ("a", "b", "broken", "lost")
    jobs = [finished, *(Trivial(name, EXPERIMENT, (), (), (), 0, 0) for name in names)]
    outcomes = sweep_ray.sweep(jobs, "local", per_device=2)
    assert [outcome.state for outcome in outcomes] == [SKIPPED, DONE, DONE, FAILED, FAILED]
    assert outcomes[1].words == "Dice 0.500"
    assert outcomes[3].words == "training: it broke; see runs/study/sweep/broken.log"
    assert outcomes[4].words.startswith("Ray: ")
    assert {name: run.status for name, run in tracked(EXPERIMENT).items()} == {
        "finished": "FINISHED",
        "a": "FINISHED",
        "b": "FINISHED",
    }
    said = json.loads(Path("runs/study/a/environment.json").read_text())
    assert said["folder"] == str(cluster)
    assert said["MLFLOW_TRACKING_URI"] == tracking_uri()
    assert said["CUDA_VISIBLE_DEVICES"] == ""
    assert "lost: failed, Ray: " in capsys.readouterr().out
    # Ray does not try again.
    assert Path("lost").read_text() == "training\n"


def test_a_cluster_that_is_not_there_is_one_line(cluster):
    with pytest.raises(DataError, match=r"expected a Ray cluster at 127.0.0.1:1, found: .*; start one"):
        sweep_ray._connected("127.0.0.1:1")
