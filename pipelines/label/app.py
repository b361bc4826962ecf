"""The app that MONAI Label serves: the bundles of a project, its studies, and what may be done with them."""

from __future__ import annotations

import contextvars
import gc
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks

from pipelines import allocator
from pipelines.errors import DataError
from pipelines.label import labels, segments
from pipelines.label.batch import Batch
from pipelines.label.dicomweb import connect
from pipelines.label.doubting import Doubting
from pipelines.label.doubts import Doubts
from pipelines.label.going_on import SERVER
from pipelines.label.infer import Segmentation
from pipelines.label.pacs import PacsStudies
from pipelines.label.project import Project, is_remote
from pipelines.label.strategies import strategies
from pipelines.label.studies import Studies
from pipelines.label.told import one_line_errors
from pipelines.label.train import Training

LOOK_SECONDS = 5  # between two looks at whether there is something to find out
GOING_ON = ("SUBMITTED", "RUNNING")  # of MONAI Label's tasks
# Whether the image of a request is one that came with it, and so a file outside of the studies.
uploaded: contextvars.ContextVar[bool] = contextvars.ContextVar("uploaded", default=False)


class LabelApp(MONAILabelApp):
    """The app; MONAI Label wants its class to be a subclass of its own, and no further one.

    Args:
        app_dir: the project's folder.
        studies: the folder of the studies, or the address of a DICOMweb server.
        conf: of MONAI Label's command line; `bundles` are those to serve, separated by commas.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        one_line_errors()
        allocator.reuse_freed_memory()
        self.project = Project(app_dir)
        self.bundles = conf["bundles"].split(",")
        super().__init__(
            app_dir,
            studies,
            conf,
            name="FeatherSeg",
            description=f"Lesions: {', '.join(self.bundles)}. Research software, not for diagnosis.",
        )

    def on_init_complete(self) -> None:
        """The server is about to answer."""
        super().on_init_complete()
        # A full search of all modules for garbage takes a third of a second, in which nobody is answered.
        gc.collect()
        gc.freeze()
        threading.Thread(target=self._keep_doubting, daemon=True).start()

    def _keep_doubting(self) -> None:
        """Look at studies whenever another version is served or studies are new, and nobody trains."""
        begun: dict[str, Any] = {}
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self._begin_doubting(begun)
            except (DataError, RuntimeError) as error:  # studies that come and go meanwhile; see next time
                print(f"not known which studies are to be looked at: {error}", flush=True)

    def _begin_doubting(self, begun: dict[str, Any]) -> None:
        """Start one look, if one is due and no other is going on.

        Args:
            begun: what was due as each was started last, so that one that fails is not started for ever.
        """
        if any(one["status"] in GOING_ON for one in (*tasks("scoring"), *tasks("train"))):
            return
        for name, one in self.doubting.items():
            todo = one.version, one.due(self.datastore())
            if todo[1] and begun.get(name) != todo and not self._was_stopped(name, one.version):
                begun[name] = todo
                AsyncTask.run("scoring", request={"method": name, "version": one.version})
                return

    def _was_stopped(self, name: str, version: int | None) -> bool:
        """Whether somebody ended the last look of a version."""
        of = [one for one in tasks("scoring") if one["request"].get("method") == name]
        return bool(of) and of[-1]["status"] == "STOPPED" and of[-1]["request"].get("version") == version

    def init_datastore(self) -> Datastore:
        """MONAI Label's way to ask for the studies; the server follows what is put there, tasks do not."""
        if is_remote(self.studies):
            described = segments.by_modality(self.project, self.bundles)
            return PacsStudies(connect(self.studies), self.project.images, described)
        is_server = os.environ.get(SERVER) == str(os.getpid())
        return Studies(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD and is_server,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """One for each bundle; each carries its modules in a package of its own name."""
        infers = {
            name: Segmentation(self.project.package(name), self.project.versions(name), self.conf)
            for name in self.bundles
        }
        self.doubting = {
            f"uncertain_{name}": Doubting(name, one, Doubts(self.project.doubts(name)))
            for name, one in infers.items()
        }
        return infers

    def init_trainers(self) -> dict[str, TrainTask]:
        """One for each bundle."""
        return {name: Training(name, self.project, self._infers[name], self.conf) for name in self.bundles}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """How unsure each bundle is of the studies."""
        return dict(self.doubting)

    def init_strategies(self) -> dict[str, Strategy]:
        """Which study is next."""
        return strategies(self.doubting)

    def init_batch_infer(self) -> Batch:
        """How many studies are segmented."""
        return Batch(self._infers)

    def bundle_path(self, model: str) -> None:
        """No path to put in front of a task's: bundles say themselves where their modules are."""

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment a study of the folder, or an image that came with the request, and no other file.

        Raises:
            UnknownStudy: neither.
        """
        image = request.get("image")
        if uploaded.get() and os.path.exists(str(image)):
            return super().infer(request, datastore)
        file = self.datastore().require(str(image))
        if not request.get("save_label"):
            return super().infer({**request, "image": str(file)}, datastore)
        result = super().infer({**request, "image": str(file)}, datastore)
        tag = request.get("label_tag", "original")
        told = {"model": request["model"], "params": result["params"]}
        label = (datastore or self.datastore()).save_label(str(image), result["file"], tag, told)
        return {**result, "label": label, "tag": tag}

    def infer_seg(self, request: dict[str, Any]) -> Path:
        """Segment an image of a PACS.

        Returns:
            a DICOM SEG, in a file of its own.

        Raises:
            UnknownStudy: no such image.
            DataError: the studies are of no PACS.
        """
        store, image = self.datastore(), str(request["image"])
        if not isinstance(store, PacsStudies):
            raise DataError(f"expected studies of a PACS for DICOM SEG, found those in {self.studies}")
        found = Path(self.infer({**request, "save_label": False, "result_extension": None})["file"])
        mask = labels.read(found, store.require(image))
        found.unlink()
        # Among the images, where nobody else may look.
        file = self.project.images / f".seg-{secrets.token_hex(8)}.dcm"
        store.export(image, mask, segments.of(self.project, request["model"], corrected=False), file)
        return file

    def check_training(self, model: str, request: dict[str, Any]) -> None:
        """Refuse a training that could not be carried out; see `Training.check`."""
        self._trainers[model].check(request, self.datastore())
