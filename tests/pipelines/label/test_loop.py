"""From studies to a better model, by MONAI Label's own client on a server as a user starts it."""

import io
import json
import os
import signal
import sys
import threading
import urllib.request
import zipfile
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import psutil
import pytest

from pipelines import scoring
from pipelines.label import environment, going_on, roles, serve
from pipelines.label.doubts import Doubts
from pipelines.label.project import Project
from tests.conftest import write_volume
from tests.pipelines.label.made_studies import (
    BRAIN,
    CUT,
    LARGE,
    OBLIQUE,
    PICTURE,
    SETTINGS,
    VOLUMES,
    directly,
    read,
    write_studies,
    write_weights,
)
from tests.pipelines.label.serving import Client, Server, wait_for

pytestmark = pytest.mark.skipif(
    not environment.is_ready(), reason="MONAI Label is not installed for this version: make install-label"
)

BUNDLES = ("lits", "dce_us", "brain_tumour", "inbreast")


def dice(one, other):
    assert 0 < np.count_nonzero(other) < other.size
    return scoring.score_case(one > 0, other > 0, [1.0] * one.ndim)["dice"]


def finished(client):
    """The last task of a kind that has ended."""
    state = client.train_status()
    return state if state["status"] not in ("SUBMITTED", "RUNNING") else None


def runs_of(folder):
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    return client.search_runs([client.get_experiment_by_name("lits").experiment_id])


def test_annotators_at_work(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # bundles set another one
    studies, scratch = workspace / "studies", tmp_path / "scratch"
    masks, mammogram = write_studies(studies)
    given = {bundle: write_weights(bundle, tmp_path / f"{bundle}.safetensors") for bundle in SETTINGS}
    truth = {name: write_volume(tmp_path / f"{name}.nii.gz", masks[name], OBLIQUE) for name in VOLUMES}
    options = ["--bundles", ",".join(BUNDLES), "--studies", "studies", "--app-dir", "app"]
    weights = [word for bundle, file in given.items() for word in ("--checkpoint", f"{bundle}={file}")]
    project = Project(workspace / "app")
    versions = project.versions("lits")

    with (
        Server(workspace, *options, *weights) as server,
        Client(server.url, scratch) as client,
    ):
        see_the_studies(client, mammogram)
        doubt_the_studies(server, client, project)
        volume = segment(client, studies, tmp_path, given, mammogram)
        refuse_what_is_no_study(server, client)
        answer_meanwhile(server, client)
        segment_many(server, client)
        submit(server, client, studies, truth, tmp_path)
        first = versions.weights.read_bytes()
        learn(server, client, project, workspace)
        assert (versions.folder / "1" / "model.pt").read_bytes() == first
        refuse_what_is_no_better(client, project, workspace)
        tested = roles.read(project.roles("lits"))
        serve_the_one_before(client, project, volume)
        kill_while_learning(server, client, project)

    # Cut short by something else than this project, the index is made anew.
    index = studies / "datastore_v2.json"
    index.write_bytes(index.read_bytes()[:100])
    with Server(workspace, *options) as server, Client(server.url, scratch) as client:
        nothing_is_lost(client, project, tested, volume)


def see_the_studies(client, mammogram):
    info, there = client.info(), {*VOLUMES, LARGE, CUT, BRAIN, PICTURE, mammogram}
    assert set(info["models"]) == set(info["trainers"]) == set(BUNDLES)
    models = {name: (model["labels"], model["dimension"]) for name, model in info["models"].items()}
    assert models["lits"] == ({"tumour": 1}, 3) and models["dce_us"] == ({"lesion": 1}, 2)
    assert models["brain_tumour"][1] == 3 and models["inbreast"][1] == 2
    assert {"first", "random"} <= set(info["strategies"])
    assert set(client.datastore()["objects"]) == there
    assert client.next_sample("first", {})["id"] == min(there)
    for _ in range(2):  # within a second
        assert client.next_sample("random", {})["id"] in there
    assert "no such strategy 'none'" in client.refused("next_sample", "none", {})


def doubt_the_studies(server, client, project):
    """The served model looks at all volumes in the background; the one it doubts most is next."""
    wait_for(lambda: client.info()["scoring"]["uncertain_lits"]["studies"] == 9)
    found = Doubts(project.doubts("lits")).of(1)
    assert set(found) == {*VOLUMES, LARGE, CUT, BRAIN}
    assert "expected a whole image file" in found[CUT]["error"]
    assert "expected one 3D volume" in found[BRAIN]["error"]
    doubts = {study: found[study]["doubt"] for study in (*VOLUMES, LARGE)}
    chosen = client.next_sample("uncertain_lits", {})
    assert chosen["id"] == max(doubts, key=doubts.get) and chosen["doubt"] == max(doubts.values()) > 0
    # Somebody else who asks at once is given another one.
    _, other = server.post("/activelearning/uncertain_lits", {"client_id": "another"})
    assert other["doubt"] == sorted(doubts.values())[-2]


def segment(client, studies, folder, given, mammogram):
    """Each bundle gives what it would give without a server; returns the mask of a volume."""
    files = {
        "lits": studies / f"{VOLUMES[1]}.nii",
        "brain_tumour": studies / f"{BRAIN}.nii.gz",
        "dce_us": studies / f"{PICTURE}.png",
        "inbreast": studies / f"{mammogram}.dcm",
    }
    found = {}
    for bundle, image in files.items():
        result, told = client.infer(bundle, image.name.split(".")[0], {})
        found[bundle] = read(result)
        own = {"checkpoint": str(given[bundle])} if bundle in given else {}
        same = dice(found[bundle], directly(bundle, image, folder / bundle, **own))
        print(f"{bundle}: Dice {same:.4f} with what it gives without a server")
        assert same > 0.99
        if image.suffix in (".nii", ".gz"):
            mask, volume = nib.load(result), nib.load(image)
            assert mask.shape == volume.shape[:3] and np.array_equal(mask.affine, volume.affine)
        assert set(told["label_names"].values()) == {1}
    # An image that comes with the request.
    result, _ = client.infer("lits", "", {}, file=str(files["lits"]))
    assert np.array_equal(read(result), found["lits"])
    return found["lits"]


def refuse_what_is_no_study(server, client):
    for name in ("/etc/passwd", "../studies/volume-0.nii.gz", "studies/volume-0.nii.gz", "nobody"):
        assert "expected one of the 11 studies" in client.refused("infer", "lits", name, {})
    assert "expected params without" in client.refused("infer", "lits", VOLUMES[0], {"image": "/etc/passwd"})
    assert "expected a picture for this model" in client.refused("infer", "dce_us", VOLUMES[0], {})
    assert server.post("/infer/none?image=volume-0")[0] == 404
    assert server.post("/infer/wsi/lits?image=/etc/passwd")[0] == 403


def answer_meanwhile(server, client):
    """While a large volume is segmented, others are answered."""
    before = sorted(server.latency() for _ in range(20))
    during, work = [], threading.Thread(target=client.infer, args=("lits", LARGE, {}))
    work.start()
    while work.is_alive():
        during.append(server.latency())
    during.sort()
    print(
        f"/info/ of {len(during)} meanwhile: median {during[len(during) // 2]:.3f} s, most {during[-1]:.3f} s"
    )
    assert len(during) > 20
    # On a machine that other things keep busy, not slower than they make it.
    assert during[int(0.95 * len(during))] < max(0.1, 3 * before[-1])


def segment_many(server, client):
    status, _ = server.post("/batch/infer/lits?images=all")
    assert status == 200

    def ended():
        with urllib.request.urlopen(f"{server.url}/batch/infer") as answer:
            state = json.loads(answer.read())
        return state if state["status"] not in ("SUBMITTED", "RUNNING") else None

    state = wait_for(ended)
    # Every volume of CT has its mask to correct; of the others it is told why they have none.
    assert state["status"] == "ERROR" and "expected to segment 9 studies, found 2" in state["details"][-1]
    assert f"{CUT}.nii.gz: expected a whole image file" in "".join(state["details"])
    assert f"{BRAIN}.nii.gz: expected one 3D volume" in "".join(state["details"])
    objects = client.datastore()["objects"]
    assert {name for name in objects if "original" in objects[name]["labels"]} == {*VOLUMES, LARGE}


def submit(server, client, studies, truth, folder):
    first, other = VOLUMES[:2]
    assert "at least two patients" in client.refused("train_start", "lits", {})
    client.save_label(first, truth[first])
    kept = (studies / "labels" / "final" / f"{first}.nii.gz").read_bytes()
    cut = folder / "cut.nii.gz"
    cut.write_bytes(Path(truth[first]).read_bytes()[:-40])
    assert "that cannot be read to its end" in client.refused("save_label", first, cut)
    assert "label of its image's size" in client.refused("save_label", first, truth[other])
    assert "expected one of the 11 studies" in client.refused("save_label", "nobody", truth[first])
    assert "a tag such as final" in client.refused("save_label", first, truth[first], tag="../../out")
    assert (studies / "labels" / "final" / f"{first}.nii.gz").read_bytes() == kept
    assert "at least two patients" in client.refused("train_start", "lits", {})
    for name in VOLUMES[1:5]:
        client.save_label(name, truth[name])
    assert "val_split above 0" in client.refused("train_start", "lits", {"val_split": 0})
    assert client.info()["datastore"]["completed"] == 5
    with urllib.request.urlopen(f"{server.url}/datastore/dataset") as answer:
        names = set(zipfile.ZipFile(io.BytesIO(answer.read())).namelist())
    assert {f"label/{name}.nii.gz" for name in VOLUMES[:5]} < names and len(names) == 10
    left = {client.next_sample("random", {})["id"] for _ in range(5)}
    assert not left & set(VOLUMES[:5])


def learn(server, client, project, workspace):
    looked = client.info()["scoring"]["uncertain_lits"]
    given = {"max_epochs": 2, "learning_rate": 0.01, "batch_size": 4, "num_workers": 0}
    client.train_start("lits", given)
    status, message = server.post("/train/lits")
    assert status == 429 and "no training to be going on" in message
    state = wait_for(lambda: finished(client))
    assert state["status"] == "DONE", "\n".join(state["details"])
    assert "served from now on: Dice" in state["details"][-1] and "better than" in state["details"][-1]
    stats = client.info()["train_stats"]["lits"]
    assert stats["version"] == 2 and stats["training"]["status"] == "done"
    assert stats["history"][-1]["event"] == "promoted"
    (run,) = runs_of(workspace)
    assert run.info.status == "FINISHED" and run.data.tags["origin"] == "annotations"
    assert run.data.tags["label.started_from"] == "version 1" and run.data.tags["label.served"] == "True"
    figures = stats["history"][-1]["figures"]
    assert run.data.metrics["label_dice"] == figures["label_dice"] > figures["label_dice_served"]
    told = roles.read(project.roles("lits"))
    assert sorted(told) == VOLUMES[:5] and set(told.values()) == {"training", "validation", "test"}
    split = json.loads((project.runs("lits") / run.info.run_name / "split.json").read_text())["folds"]
    assert split[0] == [name for name, role in sorted(told.items()) if role == "test"]
    # What the new version is unsure of is found out anew.
    wait_for(lambda: client.info()["scoring"]["uncertain_lits"] == {**looked, "version": 2, "studies": 4})


def refuse_what_is_no_better(client, project, workspace):
    before = roles.read(project.roles("lits"))
    given = {"max_epochs": 1, "learning_rate": 1e-9, "pretrained": False, "num_workers": 0}
    client.train_start("lits", given)
    state = wait_for(lambda: finished(client))
    assert state["status"] == "DONE", "\n".join(state["details"])
    assert "not served: Dice" in state["details"][-1] and "no better than" in state["details"][-1]
    stats = client.info()["train_stats"]["lits"]
    assert stats["version"] == 2 and stats["history"][-1]["event"] == "refused"
    refused = {
        run.data.tags["label.started_from"]: run.data.tags["label.served"] for run in runs_of(workspace)
    }
    assert refused == {"version 1": "True", "scratch": "False"}
    assert roles.read(project.roles("lits")) == before


def serve_the_one_before(client, project, volume):
    later = read(client.infer("lits", VOLUMES[1], {})[0])
    assert not np.array_equal(later, volume)
    assert "version 1 is served" in serve.roll_back("lits", project.folder, None)
    assert np.array_equal(read(client.infer("lits", VOLUMES[1], {})[0]), volume)


def kill_while_learning(server, client, project):
    client.train_start("lits", {"max_epochs": 1000, "batch_size": 4, "num_workers": 0})

    def one_epoch_is_done():
        runs = sorted(project.runs("lits").glob("annotations-*/last.pt"))
        return len(runs) > 2

    wait_for(one_epoch_is_done)
    training = psutil.Process(going_on.state(project, "lits")["pid"])
    os.kill(server.process.pid, signal.SIGKILL)
    training.wait(timeout=60)


def nothing_is_lost(client, project, tested, volume):
    stats = client.info()["train_stats"]["lits"]
    assert stats["version"] == 1 and stats["training"]["status"] == "broken off"
    assert "start it again" in stats["training"]["message"]
    assert np.array_equal(read(client.infer("lits", VOLUMES[1], {})[0]), volume)
    objects = client.datastore()["objects"]
    assert {name for name in objects if "final" in objects[name]["labels"]} == set(VOLUMES[:5])
    assert client.next_sample("first", {})["id"] not in VOLUMES[:5]
    # The version that is served again need not look at the studies again.
    assert client.info()["scoring"]["uncertain_lits"]["studies"] == 9
    assert client.next_sample("uncertain_lits", {})["id"] not in VOLUMES[:5]
    assert roles.read(project.roles("lits")) == tested
