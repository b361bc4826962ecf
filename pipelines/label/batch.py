"""Segment many studies, one after the other, as labels to correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from pipelines.errors import DataError
from pipelines.label import labels
from pipelines.label.infer import Segmentation
from pipelines.label.told import told


class Batch(BatchInferTask):
    """MONAI Label's task, which without a GPU divides by their number, and which one faulty study ends.

    Args:
        models: by name, each with the kind of studies that it takes.
    """

    def __init__(self, models: Mapping[str, Segmentation]) -> None:
        self.models = models

    def get_images(self, request: dict[str, Any], datastore: Datastore) -> list[str]:
        """The studies of the kind that the model takes, of those that the request means."""
        of_volumes = self.models[request["model"]].of_volumes
        asked = super().get_images(request, datastore)
        return [one for one in asked if labels.is_volume(datastore.get_image_uri(one)) == of_volumes]

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable) -> dict[str, Any]:
        """Save a label with the tag `original` for each study.

        Raises:
            DataError: some could not be segmented; all the others have their label.
        """
        failed: dict[str, str] = {}

        def infer_one(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except Exception as error:
                message = told(error)
                if message is None:
                    raise
                failed[one["image"]] = message
                return {}

        several = bool(request.get("multi_gpu", True)) and torch.cuda.device_count() > 1
        done = super().__call__({**request, "multi_gpu": several}, datastore, infer_one)
        for message in failed.values():
            print(message, flush=True)
        if failed:
            raise DataError(
                f"expected to segment {len(done)} studies, found {len(failed)} that could not be, for the "
                f"reasons above: {', '.join(sorted(failed)[:5])}"
            )
        return done
