"""From studies to a better model, by MONAI Label's own client on a server as a user starts it."""

import json
import os
import signal
import sys
import threading
import urllib.request
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet
from PIL import Image

from pipelines import scoring, weights
from pipelines.label import environment, going_on, roles, serve
from pipelines.label.project import Project
from tests.conftest import write_volume
from tests.pipelines.label.serving import Client, Server, wait_for

pytestmark = pytest.mark.skipif(
    not environment.is_ready(), reason="MONAI Label is not installed for this version: make install-label"
)

NETWORK = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "features": [4, 4, 8, 8, 8, 4],
    "dropout": 0.0,
}
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, 0.05, -0.2) @ np.diag([-0.8, 0.9, 2.5]), [12, -7, 31]
)
VOLUMES = [f"volume-{number}" for number in range(6)]
LARGE, CUT, PICTURES = "volume-9", "volume-8", ["Patient001_img1", "Patient002_img1"]
STUDIES = {*VOLUMES, LARGE, CUT, *PICTURES}


def write_studies(folder):
    """Volumes with a bright lesion, a large one, one that is cut off, and pictures; gives the true masks."""
    folder.mkdir()
    random, masks = np.random.default_rng(0), {}
    for number, name in enumerate(VOLUMES):
        shape = (26, 22, 7 + number)
        image, mask = random.normal(40, 10, shape).astype(np.int16), np.zeros(shape, np.uint8)
        mask[6 + number : 14 + number, 5:12, 2:5] = 1
        image[mask > 0] += 90
        ending = ".nii" if number % 2 else ".nii.gz"
        write_volume(folder / f"{name}{ending}", image, OBLIQUE)
        masks[name] = mask
    write_volume(folder / f"{LARGE}.nii.gz", np.zeros((256, 256, 96), np.int16), OBLIQUE)
    whole = (folder / f"{VOLUMES[0]}.nii.gz").read_bytes()
    (folder / f"{CUT}.nii.gz").write_bytes(whole[: len(whole) // 2])
    for name in PICTURES:
        Image.fromarray(random.integers(0, 255, (60, 90, 3), np.uint8)).save(folder / f"{name}.png")
    return masks


def write_weights(file):
    """Weights that segment a good part of anything, so that masks can be compared."""
    torch.manual_seed(0)
    network = BasicUNet(**NETWORK)
    state = network.state_dict()
    state["final_conv.weight"] *= 50
    settings = {"target_labels": [2], "window": [-100, 200], "image_size": [32, 32]}
    network_def = {"_target_": "monai.networks.nets.BasicUNet", **NETWORK}
    record = {
        "bundle": "lits",
        "network": "BasicUNet",
        "network_def": network_def,
        "model_settings": settings,
    }
    weights.write(file, state, {**record, "input_shape": [1, 32, 32], "seed": 0, "fold": 0}, torch.float32)
    return file


def directly(bundle, image, folder, **given):
    """The mask that the bundle's own inference writes."""
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}/inference.json")
    parser.update({"dataset_dir": str(image), "output_dir": str(folder), "device": "cpu", **given})
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    (mask,) = (
        path for path in folder.glob("*_mask*") if not path.name.endswith("_mask.png") or bundle != "lits"
    )
    return np.asarray(nib.load(mask).dataobj) if bundle == "lits" else np.asarray(Image.open(mask)) > 0


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
    monkeypatch.setattr("sys.excepthook", sys.excepthook)  # the bundle sets another one
    studies, scratch = workspace / "studies", tmp_path / "scratch"
    masks = write_studies(studies)
    checkpoint = write_weights(tmp_path / "given.safetensors")
    truth = {name: write_volume(tmp_path / f"{name}.nii.gz", masks[name], OBLIQUE) for name in VOLUMES}
    options = {"bundles": "lits,dce_us", "studies": "studies", "app_dir": "app"}
    options = {name.replace("_", "-"): value for name, value in options.items()}
    project = Project(workspace / "app")
    versions = project.versions("lits")

    with (
        Server(workspace, **options, checkpoint=f"lits={checkpoint}") as server,
        Client(server.url, scratch) as client,
    ):
        see_the_studies(client)
        volume = segment(client, studies, scratch, tmp_path, checkpoint)
        refuse_what_is_no_study(server, client)
        answer_meanwhile(server, client)
        segment_many(server, client)
        submit(client, studies, truth, tmp_path)
        first = versions.weights.read_bytes()
        learn(server, client, project, workspace)
        assert (versions.folder / "1" / "model.pt").read_bytes() == first
        refuse_what_is_no_better(client, project, workspace)
        tested = roles.read(project.roles("lits"))
        serve_the_one_before(client, scratch, project, volume)
        kill_while_learning(server, client, project)

    # Cut short by something else than this project, the index is made anew.
    index = studies / "datastore_v2.json"
    index.write_bytes(index.read_bytes()[:100])
    with Server(workspace, **options) as server, Client(server.url, scratch) as client:
        nothing_is_lost(client, project, tested, volume)


def see_the_studies(client):
    info = client.info()
    assert set(info["models"]) == set(info["trainers"]) == {"lits", "dce_us"}
    assert info["models"]["lits"]["labels"] == {"tumour": 1} and info["models"]["lits"]["dimension"] == 3
    assert info["models"]["dce_us"]["labels"] == {"lesion": 1} and info["models"]["dce_us"]["dimension"] == 2
    assert {"first", "random"} <= set(info["strategies"])
    assert set(client.datastore()["objects"]) == STUDIES
    assert client.next_sample("first", {})["id"] == PICTURES[0]
    for _ in range(2):  # within a second
        assert client.next_sample("random", {})["id"] in STUDIES
    assert "no such strategy 'none'" in client.refused("next_sample", "none", {})


def segment(client, studies, scratch, folder, checkpoint):
    file, _ = client.infer("lits", VOLUMES[1], {})
    found, image = nib.load(file), nib.load(studies / f"{VOLUMES[1]}.nii")
    assert found.shape == image.shape and np.array_equal(found.affine, image.affine)
    volume = np.asarray(found.dataobj)
    expected = directly("lits", studies / f"{VOLUMES[1]}.nii", folder / "lits", checkpoint=str(checkpoint))
    assert dice(volume, expected) > 0.99
    file, _ = client.infer("dce_us", PICTURES[0], {})
    picture = np.asarray(Image.open(file))
    expected = directly("dce_us", studies / f"{PICTURES[0]}.png", folder / "dce_us")
    assert picture.shape == (60, 90) and dice(picture, expected) > 0.99
    # An image that comes with the request.
    file, _ = client.infer("lits", "", {}, file=str(studies / f"{VOLUMES[1]}.nii"))
    assert np.array_equal(np.asarray(nib.load(file).dataobj), volume)
    return volume


def refuse_what_is_no_study(server, client):
    for name in ("/etc/passwd", "../studies/volume-0.nii.gz", "studies/volume-0.nii.gz", "nobody"):
        assert "expected one of the 10 studies" in client.refused("infer", "lits", name, {})
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
    # Every volume has its mask to correct; the one that is cut off is told of.
    assert state["status"] == "ERROR" and "expected to segment 8 studies, found 1" in state["details"][-1]
    assert f"{CUT}.nii.gz: expected a whole image file" in "".join(state["details"])
    objects = client.datastore()["objects"]
    assert {name for name in objects if "original" in objects[name]["labels"]} == {*VOLUMES, LARGE}


def submit(client, studies, truth, folder):
    first, other = VOLUMES[:2]
    assert "at least two patients" in client.refused("train_start", "lits", {})
    client.save_label(first, truth[first])
    kept = (studies / "labels" / "final" / f"{first}.nii.gz").read_bytes()
    cut = folder / "cut.nii.gz"
    cut.write_bytes(Path(truth[first]).read_bytes()[:-40])
    assert "that cannot be read to its end" in client.refused("save_label", first, cut)
    assert "label of its image's size" in client.refused("save_label", first, truth[other])
    assert "expected one of the 10 studies" in client.refused("save_label", "nobody", truth[first])
    assert "a tag such as final" in client.refused("save_label", first, truth[first], tag="../../out")
    assert (studies / "labels" / "final" / f"{first}.nii.gz").read_bytes() == kept
    assert "at least two patients" in client.refused("train_start", "lits", {})
    for name in VOLUMES[1:5]:
        client.save_label(name, truth[name])
    assert "val_split above 0" in client.refused("train_start", "lits", {"val_split": 0})
    assert client.info()["datastore"]["completed"] == 5
    left = {client.next_sample("random", {})["id"] for _ in range(5)}
    assert left <= {VOLUMES[5], LARGE, CUT, *PICTURES}


def learn(server, client, project, workspace):
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


def serve_the_one_before(client, scratch, project, volume):
    later = np.asarray(nib.load(client.infer("lits", VOLUMES[1], {})[0]).dataobj)
    assert not np.array_equal(later, volume)
    assert "version 1 is served" in serve.roll_back("lits", project.folder, None)
    assert np.array_equal(np.asarray(nib.load(client.infer("lits", VOLUMES[1], {})[0]).dataobj), volume)


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
    assert np.array_equal(np.asarray(nib.load(client.infer("lits", VOLUMES[1], {})[0]).dataobj), volume)
    objects = client.datastore()["objects"]
    assert {name for name in objects if "final" in objects[name]["labels"]} == set(VOLUMES[:5])
    assert client.next_sample("first", {})["id"] == PICTURES[0]
    assert roles.read(project.roles("lits")) == tested
