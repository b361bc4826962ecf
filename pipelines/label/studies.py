"""The studies of a folder and their labels, as MONAI Label keeps them, but so that nothing is lost.

MONAI Label copies a label over the one before and rewrites its index in place, from what one process knows of
it. Here each is replaced whole, by one process at a time, which looks first at what the others wrote; and
nothing is read or written that is not a study of the folder or its label.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore

from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.label import labels

INDEX = "datastore_v2.json"
# What is drawn on studies and may lie beside them is no study.
DRAWN = re.compile(r"segmentation-\d+|(.+_)?(mask(_\d+)?|overlay)")
PLAIN = re.compile(r"[A-Za-z0-9][\w-]*")


class UnknownStudy(DataError):
    """A study that is not in the folder, or a label that is not there."""


def _alone(method: Callable) -> Callable:
    """Run a method that changes something while no other process does, on what is on disk now."""

    @functools.wraps(method)
    def changing(self: Studies, *arguments: Any, **options: Any) -> Any:
        with self._changing():
            return method(self, *arguments, **options)

    return changing


class Studies(LocalDatastore):
    """MONAI Label's store of a folder.

    Args:
        folder: with the studies; labels go to `labels/TAG/STUDY.nii.gz` or `.png` in it.
        extensions: patterns of the studies' names, such as "*.nii.gz".
        auto_reload: follow what others put into the folder.
        read_only: do not look for new files at the start.
    """

    def __init__(
        self, folder: str, extensions: list[str], auto_reload: bool = False, read_only: bool = False
    ) -> None:
        self._thread_lock = threading.RLock()
        self._process_lock = FileLock(Path(folder) / "labels" / ".changing", thread_local=False)
        Path(folder, "labels").mkdir(parents=True, exist_ok=True)
        _set_aside_unless_whole(Path(folder) / INDEX)
        super().__init__(folder, extensions=extensions, auto_reload=auto_reload, read_only=read_only)
        if auto_reload:
            self._handler.on_moved = self._on_any_event  # so is whatever is put there whole

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with self._thread_lock, self._process_lock:
            self._init_from_datastore_file()
            yield

    def _to_id(self, file: str) -> tuple[str, str]:
        """A name without its ending, and the ending; only at the end of the name."""
        own = [one.replace("*", "") for one in self._extensions]
        fitting = [one for one in (*own, *labels.VOLUMES, *labels.PICTURES) if file.endswith(one)]
        ending = max(fitting, key=len, default=Path(file).suffix)
        return file.removesuffix(ending), ending

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """The studies, or the labels, of a folder; not what hides, is half written, or was drawn."""
        found = super()._list_files(path, patterns)
        names = {name: self._to_id(name)[0] for name in found}
        return {
            name: found[name]
            for name, stem in names.items()
            if name[0] != "." and not DRAWN.fullmatch(stem) and os.path.isfile(os.path.join(path, name))
        }

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the index, whole; its lock is held by who changes something."""
        content = self._datastore.model_dump(exclude={"base_path"})
        self._ignore_event_config = True
        with written_whole(self._datastore_config_path) as beside:
            beside.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
        self._config_ts = os.stat(self._datastore_config_path).st_mtime

    def require(self, study: str) -> Path:
        """The file of a study.

        Raises:
            UnknownStudy: there is none of this name.
        """
        file = self.get_image_uri(study)
        if not file:
            raise UnknownStudy(
                f"expected one of the {len(self.list_images())} studies in {self._datastore_path}, found "
                f"{study!r}; see /datastore/?output=all"
            )
        return Path(file)

    @_alone
    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label that fits its study; an earlier one of the same tag is replaced, else stays.

        Raises:
            UnknownStudy: no such study.
            DataError: the label is cut off, of another size or place, or has other values; or a tag that is
                no plain name.
        """
        study = self.require(image_id)
        if not PLAIN.fullmatch(label_tag):
            raise DataError(f"expected a tag such as final or original, found {label_tag!r}")
        mask = labels.read(label_filename, study, f"the label of {image_id}")
        ending = labels.label_ending(study)
        file = Path(self._datastore.label_path(label_tag)) / f"{image_id}{ending}"
        labels.write(mask, study, file)
        known = self._datastore.objects[image_id].labels
        before = known.get(label_tag)
        if before is not None and before.ext != ending:
            file.with_name(f"{image_id}{before.ext}").unlink(missing_ok=True)
        told = {**(label_info or {}), "ts": int(time.time()), "name": file.name, "checked": _mark(file)}
        known[label_tag] = DataModel(info=told, ext=ending)
        self._update_datastore_file()
        return image_id

    @_alone
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an uploaded study; one of the same name is never replaced.

        Raises:
            DataError: a name that is no plain one, one that is taken, or a file that is no image.
        """
        stem, ending = self._to_id(Path(image_filename).name)
        name = image_id or stem
        if name != Path(name).name or name[0] == "." or DRAWN.fullmatch(name):
            raise DataError(f"expected a plain name for the study, found {name!r}")
        if f"*{ending}" not in self._extensions:
            raise DataError(
                f"expected a study ({', '.join(self._extensions)}), found one that ends in {ending!r}"
            )
        if self.get_image_uri(name):
            raise DataError(f"expected a new name for the study, found {name!r} there already")
        labels.grid_of(image_filename)
        file = Path(self._datastore.image_path()) / f"{name}{ending}"
        with written_whole(file) as beside:
            shutil.copyfile(image_filename, beside)
        super().refresh()
        return name

    @_alone
    def remove_image(self, image_id: str) -> None:
        """Studies are the hospital's, and stay.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"expected studies to be taken away in their folder, found a request to delete {image_id!r}"
        )

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Studies with a final label: `study`, `image`, `label`, and `checked`: it is as it was saved."""
        found = []
        for study, has in sorted(self._datastore.objects.items()):
            label = has.labels.get("final")
            if label is not None:
                file = self.get_label_uri(study, "final")
                checked = label.info.get("checked") == _mark(Path(file))
                found.append(
                    {"study": study, "image": self.get_image_uri(study), "label": file, "checked": checked}
                )
        return found

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A zip of the studies that have a final label, and of the labels.

        Raises:
            DataError: there are none.
        """
        cases = self.datalist()[: limit_cases or None]
        if not cases:
            raise DataError(
                "expected final labels to download with their studies, found none; submit some first"
            )
        with (
            tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file,
            zipfile.ZipFile(file, "w") as out,
        ):
            for case, part in itertools.product(cases, ("image", "label")):
                out.write(case[part], f"{part}/{Path(case[part]).name}")
        return file.name

    remove_label = _alone(LocalDatastore.remove_label)
    update_image_info = _alone(LocalDatastore.update_image_info)
    update_label_info = _alone(LocalDatastore.update_label_info)
    _reconcile_datastore = _alone(LocalDatastore._reconcile_datastore)


def _mark(file: Path) -> list[int]:
    """What a file looked like, so that one that was changed since is told from it."""
    status = file.stat()
    return [status.st_mtime_ns, status.st_size]


def _set_aside_unless_whole(index: Path) -> None:
    """Keep an index that is no JSON under another name; the labels are found again by their files."""
    try:
        json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (json.JSONDecodeError, UnicodeDecodeError):
        beside = index.with_name(f"{index.name}.damaged-{int(time.time())}")
        os.replace(index, beside)
        print(f"expected MONAI Label's index in {index}, found it damaged; kept as {beside}, and made anew")
