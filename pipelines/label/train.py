"""A bundle that learns from what annotators submitted, and is served only where that made it better."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import monai.bundle
from monai.data.utils import affine_to_spacing
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_list

from pipelines import runs, scoring
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.label import chain, going_on, labels
from pipelines.label.infer import Segmentation
from pipelines.label.judging import Verdict, judge
from pipelines.label.plan import SHARE, Plan, plan
from pipelines.label.project import Project
from pipelines.label.studies import Studies
from pipelines.label.versions import Superseded
from pipelines.tracking import Tracker, close_dead_runs

OPTIONS = ("batch_size", "learning_rate", "seed", "num_workers")  # of the bundle, that a request may give


class Training(BundleTrainTask):
    """Trains a packaged bundle on the final labels of a project, from the weights that are served.

    The run is one of the bundle's own, in MLflow under its experiment with the tag `origin` annotations. What
    it leaves is a candidate: it is served where its mean Dice over patients held out is higher than that of
    the served weights on the same labels, by the same way of segmenting.

    Args:
        name: of the bundle.
        project: that it is served in.
        segmentation: its way of segmenting.
        conf: of the app.
    """

    def __init__(self, name: str, project: Project, segmentation: Segmentation, conf: dict[str, str]) -> None:
        super().__init__(str(project.package(name)), conf, load_strict=True)
        self.name = name
        self.project = project
        self.segmentation = segmentation
        self.versions = project.versions(name)

    def config(self) -> dict[str, Any]:
        """What a viewer offers to change, with the bundle's own values."""
        own = self.bundle_config.config
        shown = {key: own[key] for key in ("max_epochs", *OPTIONS[:3])}
        return {"device": device_list(), "pretrained": True, "val_split": SHARE, **shown}

    def stats(self) -> dict[str, Any]:
        """The served version, what became of the last trainings, and the state of the last one."""
        history = self.versions.history
        dice = [one["figures"] for one in history if "figures" in one]
        found = {
            "version": self.versions.number,
            "history": history[-10:],
            "training": going_on.state(self.project, self.name),
        }
        return (
            {**found, "best_metric": max(dice[-1]["label_dice"], dice[-1]["label_dice_served"])}
            if dice
            else found
        )

    def check(self, request: dict[str, Any], datastore: Studies) -> None:
        """Refuse a training that could not be carried out, before it starts.

        Raises:
            DataError: one is going on, there are too few labels, some do not fit their study, or an option
                is no good.
        """
        with going_on.alone(self.project, self.name):
            self._plan(request, datastore, keep=False)

    def _plan(self, request: dict[str, Any], datastore: Studies, keep: bool = True) -> Plan:
        epochs = request.get("max_epochs", 1)
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise DataError(f"expected max_epochs to be a whole number from 1 on, found {epochs!r}")
        share, of_volumes = request.get("val_split", SHARE), self.segmentation.of_volumes
        return plan(self.project, self.name, datastore.datalist(), of_volumes, share, keep)

    def __call__(self, request: dict[str, Any], datastore: Studies) -> dict[str, Any]:
        """Train, compare, and serve or refuse; carried out in a process of its own.

        Raises:
            DataError: as `check`.
        """
        going_on.end_with_server()
        name = f"annotations-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.run_folder = self.project.runs(self.name) / name
        with (
            going_on.alone(self.project, self.name),
            going_on.noted(self.project, self.name, name) as outcome,
        ):
            self.plan = self._plan(request, datastore)
            self._close_dead_runs()
            # One process trains, and the bundle's own handlers track.
            given = {"max_epochs": self.bundle_config["max_epochs"], **request}
            super().__call__({**given, "multi_gpu": False, "tracking": "None", "run_id": "run"}, datastore)
            verdict = self._decide()
            outcome |= {"message": verdict.reason, "served": verdict.better}
        print(f"{'served from now on' if verdict.better else 'not served'}: {verdict.reason}", flush=True)
        return {}

    def _close_dead_runs(self) -> None:
        folders = [note.parent for note in self.project.runs(self.name).glob("*/run.json")]
        open_runs = [runs.Run(str(one), read_json(one / "run.json")["bundle"]) for one in folders]
        # This process is the only one that trains here.
        close_dead_runs([one for one in open_runs if one.note["status"] == runs.RUNNING])

    def _fetch_datalist(self, request: dict[str, Any], datastore: Studies) -> list[dict[str, Any]]:
        return [*self.plan.training, *self.plan.validation]

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        self.request = request
        return self.plan.training, self.plan.validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        """Start from the served weights, where that is wanted; and say where the run comes from."""
        if pretrained:
            super()._load_checkpoint(str(self.versions.weights), True, train_handlers)
        tags = {
            "origin": "annotations",
            "label.started_from": f"version {self.versions.number}" if pretrained else "scratch",
            "label.cases": len(self.plan.training),
        }
        target = "pipelines.label.origin.Origin"
        train_handlers.append(
            {"_target_": target, "folder": "@output_dir", "experiment": "@experiment", "tags": tags}
        )

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Everything of the bundle's training that is other with annotations."""
        plan, own = self.plan, self.bundle_config.config
        cases = {case["case"]: case for case in (*plan.training, *plan.validation, *plan.test)}
        tested = sorted({case["patient"] for case in plan.test})
        others = sorted({case["patient"] for case in cases.values()} - set(tested))
        fitted = self.segmentation.bundle_config.config.get("fitted", {})  # what the served weights go with
        overrides |= {
            **fitted,
            **{key: self.request[key] for key in OPTIONS if key in self.request},
            "max_epochs": overrides["train#trainer#max_epochs"],
            "output_dir": str(self.run_folder),
            "run_name": self.run_folder.name,
            "cache_dir": str(self.project.cache(self.name)),
            "dataset_dir": str(self.project.images),
            "overlay": "annotations",
            "loading": chain.annotated(own["loading"], self.segmentation.of_volumes),
            "known_labels": chain.CODES,
            "target_labels": chain.CODES[1:],
            "cases": list(cases.values()),
            "split": [tested, others],
            "fold": 0,
            "training_cases": plan.training,
            "validation_cases": plan.validation,
            "test_cases": plan.test,
        }
        return overrides

    def run_single_gpu(self, request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Carry out the bundle's `initialize` too, which checks the settings and opens the run."""
        monai.bundle.run(
            run_id="run",
            init_id="initialize",
            final_id="finalize",
            meta_file=self.bundle_metadata_path,
            config_file=self.bundle_config_path,
            **overrides,
        )

    def _decide(self) -> Verdict:
        """Serve the candidate or refuse it, and tell MLflow."""
        candidate = self._scores(self.run_folder / "model.pt")
        while True:
            version = self.versions.number
            verdict = judge(self._scores(self.versions.weights), candidate, version)
            about = {"origin": "annotations", "run": self.run_folder.name, "reason": verdict.reason}
            about |= {"figures": verdict.figures, "cases": len(self.plan.training)}
            try:
                if verdict.better:
                    self.versions.publish(self.run_folder / "model.pt", about, over=version)
                else:
                    self.versions.refuse(about)
                break
            except Superseded:  # somebody rolled back meanwhile
                continue
        run = runs.Run(str(self.run_folder), self.project.note["bundles"][self.name]["experiment"])
        tracker = Tracker(run)
        tracker.add("metrics", step=None, values=verdict.figures)
        tracker.add("tags", values={"label.served": verdict.better, "label.reason": verdict.reason})
        tracker.send(patient=True)
        return verdict

    def _scores(self, weights: Path) -> list[dict[str, Any]]:
        rows = []
        for case in self.plan.test:
            truth = labels.read(case["label"], case["image"])
            affine = labels.grid_of(case["image"]).affine
            spacing = [1.0] * truth.ndim if affine is None else affine_to_spacing(affine, r=3).tolist()
            found = self.segmentation.segment(case["image"], weights, self.request.get("device"))
            rows.append({"patient": case["patient"], **scoring.score_case(found, truth, spacing)})
        return rows
