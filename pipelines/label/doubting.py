"""The task that finds out, in the background, how unsure the served model is of studies without a label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from pipelines import uncertainty
from pipelines.label import labels
from pipelines.label.doubts import Doubts, due, most
from pipelines.label.going_on import end_with_server
from pipelines.label.infer import Segmentation
from pipelines.label.told import told


class Doubting(ScoringMethod):
    """MONAI Label's way to score studies, here by the doubt of a bundle's served model.

    It runs in a process of its own and leaves the processor to everything else first. A version that is
    served again after a return to it needs not look again.

    Args:
        bundle: its name.
        segmentation: its way of segmenting.
        kept: what was found.
    """

    def __init__(self, bundle: str, segmentation: Segmentation, kept: Doubts) -> None:
        super().__init__(f"How unsure {bundle} is of each study without a label")
        self.bundle = bundle
        self.segmentation = segmentation
        self.versions = segmentation.versions
        self.kept = kept

    @property
    def version(self) -> int | None:
        """The one that is served."""
        return self.versions.number

    def info(self) -> dict[str, Any]:
        """What it is for, and how many studies the served version has looked at."""
        return {**super().info(), "version": self.version, "studies": len(self.found)}

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """What the served version found, as `Doubts.of` gives it."""
        return self.kept.of(self.version)

    def unlabelled(self, datastore: Datastore) -> list[str]:
        """Studies without a label of the kind that the bundle takes; none is fetched for this."""
        found, own = [], self.segmentation
        for study in sorted(datastore.get_unlabeled_images()):
            about = datastore.get_image_info(study)
            kind = labels.is_volume(about["path"]) == own.of_volumes
            if kind and about.get("Modality", own.modality) == own.modality:
                found.append(study)
        return found

    def due(self, datastore: Datastore) -> list[str]:
        """The studies that the served version is to look at yet."""
        return due(self.unlabelled(datastore), self.found, most())

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Look at what is due, until another version is served.

        Returns:
            `version`, and `studies`, how many it has looked at in all.
        """
        end_with_server()
        if hasattr(os, "nice"):  # not on Windows
            os.nice(10)
        version, weights = self.version, self.versions.weights
        studies = self.due(datastore)
        for number, study in enumerate(studies, start=1):
            if self.version != version:
                print(f"{self.bundle}: version {version} is no longer served", flush=True)
                break
            found = self._look(study, weights, datastore, request.get("device"))
            self.kept.add(version, study, found)
            said = found.get("error") or f"doubt {found['doubt']:.2f}, candidates {found['candidates']}"
            print(f"{self.bundle}, version {version}: {number} of {len(studies)} studies, {said}", flush=True)
        return {"version": version, "studies": len(self.kept.of(version))}

    def _look(self, study: str, weights: Path, datastore: Datastore, device: str | None) -> dict[str, Any]:
        try:
            found = self.segmentation.views(datastore.get_image_uri(study), weights, device)
        except Exception as error:
            message = told(error)
            if message is None:
                raise
            return {"error": message}
        return {"doubt": uncertainty.doubt(found), "candidates": uncertainty.candidates(found)}
