"""A packaged bundle as MONAI Label's way to segment: a study in, its mask out on the study's own grid."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import DeleteItemsd
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.transform.pre import LoadImageTensord
from monailabel.utils.others.generic import name_to_device

from pipelines import uncertainty
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.label import labels
from pipelines.label.told import told
from pipelines.label.versions import Versions


class Segmentation(BundleInferTask):
    """Segments with the weights that are served at the moment.

    The mask has one label, 1, named as the bundle's `metadata.json` names its output. A bundle that infers
    slice by slice takes volumes and gives volumes; another one pictures.

    Args:
        package: the packaged bundle.
        versions: its models.
        conf: of the app.
    """

    def __init__(self, package: Path, versions: Versions, conf: dict[str, str]) -> None:
        self.versions = versions
        self._given: Path | None = None
        self._last: Path | None = None
        super().__init__(
            str(package), conf, type=InferType.SEGMENTATION, add_post_restore=False, load_strict=True
        )
        described = read_json(package / "configs" / "metadata.json")["network_data_format"]
        self.labels = {
            name.lower(): 1 for name in described["outputs"][self.key_pred]["channel_def"].values()
        }
        self.modality = described["inputs"]["image"]["modality"]
        self.of_volumes = self.bundle_config["inferer"]["_target_"] == "SliceInferer"
        self.dimension = 3 if self.of_volumes else 2
        # Which weights are served is no matter of a request.
        self._config.pop("model_filename", None)

    def get_path(self, validate: bool = True) -> str:
        """The weights for the next image."""
        path = self._given or self.versions.weights
        if path != self._last:
            self._networks.clear()
            self._last = path
        return str(path)

    @contextlib.contextmanager
    def _weights(self, path: Path) -> Iterator[None]:
        self._given = path
        try:
            yield
        finally:
            self._given = None

    def pre_transforms(self, data: dict[str, Any] | None = None) -> Sequence[Callable]:
        """The bundle's, of which loading says in one line what is wrong with a file."""
        chain = super().pre_transforms(data)
        # What an index tells of a case, a study from elsewhere has not.
        chain = [one for one in chain if not isinstance(one, DeleteItemsd)]
        return [_Loading(one) if isinstance(one, LoadImageTensord) else one for one in chain]

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[str, dict[str, Any]]:
        """Segment `request["image"]`, a file.

        Raises:
            DataError: a study of the other kind, or one that cannot be read or is not what the bundle takes.
        """
        self._check(request["image"])
        return super().__call__(request, callbacks)

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable]) -> dict[str, Any]:
        """Prepare the image alone.

        To the bundle's chain a label in the request would be one of the image, and to MONAI's `Spacingd`
        whatever is called image_* its metadata, as the path is that MONAI Label adds.
        """
        alone = {"image": data["image"], "logging": data.get("logging", "INFO")}
        return {**data, **super().run_pre_transforms(alone, transforms)}

    def _check(self, image: Any) -> None:
        if not isinstance(image, (str, Path)):
            raise DataError(f"expected the file of a study, found {type(image).__name__}")
        if labels.is_volume(image) != self.of_volumes:
            wanted = f"a volume ({', '.join(labels.VOLUMES)})" if self.of_volumes else "a picture"
            raise DataError(f"{image}: expected {wanted} for this model, found another kind of study")

    def writer(
        self, data: dict[str, Any], extension: str | None = None, dtype: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Write the mask with its study's geometry, to the bit; another format is left to MONAI Label."""
        image, mask = data["image_path"], _mask(data[self.key_pred])
        ending = data.get("result_extension") or labels.label_ending(image)
        if ending not in (".nii", labels.label_ending(image)):
            affine = labels.grid_of(image).affine
            data[self.key_pred], data[f"{self.key_pred}_meta_dict"] = mask, {"affine": affine}
            return super().writer(data, ending, np.uint8)
        with tempfile.NamedTemporaryFile(suffix=ending, delete=False) as file:
            labels.write(mask, image, file.name)
        return file.name, {}

    def segment(self, image: str | Path, weights: Path, device: str | None = None) -> np.ndarray:
        """The mask of an image by given weights, as they would be served.

        Returns:
            uint8, 0 and 1, on the image's grid.

        Raises:
            DataError: as `__call__`.
        """
        with self._weights(weights):
            data = self._prepared(image, device)
            data = self.run_inferer(data, device=data["device"])
            data = self.run_post_transforms(data, self.post_transforms(data))
        return _mask(data[self.key_pred])

    def views(self, image: str | Path, weights: Path, device: str | None = None) -> np.ndarray:
        """What given weights make of several views of an image, as `uncertainty.probabilities` gives it.

        Raises:
            DataError: as `__call__`.
        """
        with self._weights(weights):
            data = self._prepared(image, device)

            def infer(batch: torch.Tensor) -> torch.Tensor:
                found = self.run_inferer({self.key_image: batch[0]}, device=data["device"])
                return found[self.key_pred][None]

            prepared = torch.as_tensor(data[self.key_image]).float()
            return uncertainty.probabilities(prepared, infer)

    def _prepared(self, image: str | Path, device: str | None) -> dict[str, Any]:
        """An image as the network takes it, under `image`.

        Raises:
            DataError: as `__call__`.
        """
        self._check(image)
        data: dict[str, Any] = {"image": str(image), "logging": "WARNING", "device": name_to_device(device)}
        return self.run_pre_transforms(data, self.pre_transforms(data))


class _Loading:
    """A loader of MONAI Label's whose failure is one line about the file."""

    def __init__(self, load: LoadImageTensord) -> None:
        self.load = load

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Load what of the keys is there."""
        if not any(key in data for key in self.load.keys):  # labels, of which there are none
            return data
        try:
            return self.load.load_image_d(data)
        except Exception as error:
            if told(error) is not None:
                raise
            raise DataError(
                f"{data['image']}: expected a whole image file, found one that cannot be read; copy it again"
            ) from error


def _mask(prediction: torch.Tensor) -> np.ndarray:
    """0 and 1 of a prediction with one channel."""
    return (np.asarray(prediction[0].detach().cpu()) > 0.5).astype(np.uint8)
