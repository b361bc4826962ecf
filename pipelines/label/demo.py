"""The label server at work: from a first model over labels to a better one, with a picture of each step.

python -m pipelines.label.demo                  # minutes on two cores; `make demo-label`

Studies are the phantom of lits, and the annotator is its truth. All else is what a user starts and what a
viewer asks: the server runs in a process of its own, and is asked by HTTP.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from tqdm import tqdm

from pipelines import datasets, report, scoring
from pipelines.errors import DataError

FIRST_CASES, STUDIES, LABELS = 4, 13, 6
STRATEGY = "uncertain_lits"
FIRST = {
    "--image_size": "[64,64]",
    "--num_folds": "4",
    "--max_epochs": "20",
    "--val_interval": "10",
    "--learning_rate": "0.003",
    "--learning_rate_power": "0.9",
    "--num_workers": "0",
    "--network_def": "{'_target_': 'monai.networks.nets.BasicUNet', 'spatial_dims': 2, 'in_channels': 1, "
    "'out_channels': 1, 'features': [8, 8, 16, 32, 64, 8]}",
}
TRAINING = {"max_epochs": 40, "learning_rate": 0.003, "num_workers": 0}
WINDOW = -100, 200  # HU, for the pictures


class Annotator:
    """What a viewer asks of the server, and the truth to submit.

    Args:
        url: of the server.
        folder: with the phantom.
        out: folder for pictures.
    """

    def __init__(self, url: str, folder: Path, out: Path) -> None:
        self.url, self.out = url, out
        self.cases = {one["case"]: one for one in datasets.get("lits").index(folder)}

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """An answer of the server; its message where it refuses."""
        answer = requests.request(method, f"{self.url}{path}", timeout=600, **options)
        if not answer.ok:
            raise DataError(f"expected the server to do {method} {path}, found: {answer.json()['detail']}")
        return answer

    def proposed(self, study: str) -> np.ndarray:
        """The mask that the served model gives, on the study's grid."""
        answer = self.ask("POST", f"/infer/lits?image={study}&output=image")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mask.nii.gz"
            packed = answer.content if answer.content[:2] == b"\x1f\x8b" else gzip.compress(answer.content)
            file.write_bytes(packed)
            return np.asarray(nib.load(file).dataobj)

    def truth(self, study: str) -> np.ndarray:
        """Where the phantom has tumour."""
        return np.asarray(nib.load(self.cases[study]["label"]).dataobj) == 2

    def submit(self, study: str) -> None:
        """Send the truth as the final label."""
        image = nib.load(self.cases[study]["image"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "label.nii.gz"
            nib.save(nib.Nifti1Image(self.truth(study).astype(np.uint8), image.affine), file)
            with file.open("rb") as content:
                self.ask("PUT", f"/datastore/label?image={study}&tag=final", files={"label": content})

    def dice(self, study: str, mask: np.ndarray) -> float:
        """Of a mask with the truth."""
        return scoring.score_case(mask > 0, self.truth(study), [1.0] * 3)["dice"]

    def draw(self, name: str, study: str, title: str, **masks: np.ndarray) -> None:
        """A picture of a study with the outlines of masks."""
        image = nib.as_closest_canonical(nib.load(self.cases[study]["image"]))
        turned = {
            key: np.asarray(
                nib.as_closest_canonical(
                    nib.Nifti1Image(mask.astype(np.uint8), nib.load(self.cases[study]["image"]).affine)
                ).dataobj
            )
            for key, mask in masks.items()
        }
        values = np.clip(np.asarray(image.dataobj, dtype=np.float32), *WINDOW)
        truth, prediction = turned.get("truth"), turned.get("prediction")
        spacing = image.header.get_zooms()
        report.overlay(values, truth, prediction, self.out / name, title=title, spacing=spacing)
        print(f"picture: {self.out / name}", flush=True)

    def looked_at(self) -> int:
        """How many studies the served version has looked at.

        Raises:
            DataError: looking at them failed.
        """
        task = requests.get(f"{self.url}/scoring/", timeout=600)  # there is none yet in the first seconds
        if task.ok and task.json()["status"] == "ERROR":
            raise DataError(f"expected the server to look at studies, found: {task.json()['details'][-1]}")
        return self.ask("GET", "/info/").json()["scoring"][STRATEGY]["studies"]


@contextlib.contextmanager
def serving(out: Path, checkpoint: Path) -> Iterator[str]:
    """`featherseg label` on a free port; its output goes to `server.log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "pipelines.cli", "label", "--bundles", "lits", "--port", str(port)]
    words += ["--studies", str(out / "studies"), "--app-dir", str(out / "app")]
    words += ["--checkpoint", f"lits={checkpoint}"]
    print(f"$ featherseg {' '.join(words[3:])}", flush=True)
    with (out / "server.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise DataError(f"expected the server to start, found it ended; see {out / 'server.log'}")
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{url}/info/", timeout=5).ok:
                    break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def first_model(out: Path) -> Path:
    """The weights to begin with, trained on a few patients that are not annotated."""
    data = out / "first"
    datasets.get("lits").phantom(data, cases=FIRST_CASES, seed=1, size=96)
    words = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file"]
    words += ["bundles/lits/train.json", "--dataset_dir", str(data), "--output_dir", str(out / "model")]
    words += ["--cache_dir", str(out / "cache"), "--experiment", "lits-demo"]
    subprocess.run([*words, *(word for pair in FIRST.items() for word in pair)], check=True)
    return out / "model" / "model.pt"


def run(out: Path) -> None:
    """Carry out the demonstration in a new folder.

    Raises:
        DataError: the folder is there, or the server refused something.
    """
    if out.exists():
        raise DataError(f"expected a new folder for the demonstration, found {out}; give another --out")
    phantom, studies = out / "phantom", out / "studies"
    datasets.get("lits").phantom(phantom, cases=STUDIES, seed=0, size=96)
    studies.mkdir()
    for case in datasets.get("lits").index(phantom):
        shutil.copy(case["image"], studies)
    checkpoint = first_model(out)
    with serving(out, checkpoint) as url:
        at_work(Annotator(url, phantom, out))


def at_work(annotator: Annotator) -> None:
    """Label the studies that the model doubts most, train, and look at the next one."""
    with tqdm(total=STUDIES, desc="looking at studies", unit="study", disable=None) as bar:
        done = 0
        while done < STUDIES:
            time.sleep(1)
            before, done = done, annotator.looked_at()
            bar.update(done - before)
    for number in range(1, LABELS + 1):
        chosen = annotator.ask("POST", f"/activelearning/{STRATEGY}", json={}).json()
        study = chosen["id"]
        mask = annotator.proposed(study)
        print(
            f"next study {number}: {chosen['candidates']} candidates, doubt {chosen['doubt']:.2f}; proposed "
            f"with Dice {annotator.dice(study, mask):.3f}, corrected and submitted",
            flush=True,
        )
        if number == 1:
            annotator.draw("1-proposed.png", study, "what the model proposes", prediction=mask)
            truth = annotator.truth(study)
            annotator.draw("2-submitted.png", study, "what is submitted", truth=truth)
        annotator.submit(study)
    left = [one for one in annotator.cases if one not in _labelled(annotator)]
    before = {study: annotator.dice(study, annotator.proposed(study)) for study in left}
    annotator.ask("POST", "/train/lits", json=TRAINING)
    while (task := annotator.ask("GET", "/train/").json())["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
    print(f"training: {task['status']}, {task['details'][-1]}", flush=True)
    masks = {study: annotator.proposed(study) for study in left}
    after = {study: annotator.dice(study, mask) for study, mask in masks.items()}
    old, new = (float(np.mean(list(one.values()))) for one in (before, after))
    print(f"Dice of the {len(left)} studies without a label: {old:.3f} before, {new:.3f} now", flush=True)
    study = max(left, key=lambda one: after[one] - before[one])
    masks["truth"] = annotator.truth(study)
    annotator.draw("3-now.png", study, "another study now", truth=masks["truth"], prediction=masks[study])


def _labelled(annotator: Annotator) -> set[str]:
    objects = annotator.ask("GET", "/datastore/?output=all").json()["objects"]
    return {study for study, has in objects.items() if "final" in has["labels"]}


def main() -> None:
    """Carry it out, and say what happens."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path("runs/label-demo") / time.strftime("%Y%m%d-%H%M%S")
    words.add_argument("--out", type=Path, default=default, help="a new folder for all that is made")
    run(words.parse_args().out)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"featherseg: {error}")
