"""One annotation project: the studies, and the folder with all that their annotation makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.files import read_json, write_json
from pipelines.label.versions import Versions

ROOT = Path("runs") / "label"
NOTE = "project.json"


class Project:
    """The folder of a project, which MONAI Label takes for its app.

    Labels lie beside the studies, in `labels/`; everything else here: `packages/BUNDLE`, its models in
    `models/BUNDLE/N`, trainings in `runs/BUNDLE/NAME`, and in `splits/BUNDLE.json` who is tested on, in
    `doubts/BUNDLE/N.json` how unsure a model is.

    Args:
        folder: of the project.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()

    @property
    def note(self) -> dict[str, Any]:
        """`studies`, and `bundles`: name -> the `experiment` that its runs belong to.

        Raises:
            DataError: no project there.
        """
        if not (self.folder / NOTE).is_file():
            raise DataError(
                f"expected an annotation project in {self.folder}, found none; start one with `featherseg "
                "label --bundles BUNDLE --studies DIR`, or give its --app-dir"
            )
        return read_json(self.folder / NOTE)

    @property
    def images(self) -> Path:
        """The folder with the files of the studies; of those of a PACS, the ones that were fetched."""
        place = self.note["studies"]
        return self.folder / "pacs" if is_remote(place) else Path(place)

    @property
    def bundles(self) -> list[str]:
        return list(self.note["bundles"])

    def package(self, bundle: str) -> Path:
        """The packaged bundle."""
        return self.folder / "packages" / bundle

    def versions(self, bundle: str) -> Versions:
        """The models that were served and the one that is."""
        return Versions(self.folder / "models" / bundle)

    def runs(self, bundle: str) -> Path:
        """The folder of the trainings."""
        return self.folder / "runs" / bundle

    def roles(self, bundle: str) -> Path:
        """The file that says which patients are tested on."""
        return self.folder / "splits" / f"{bundle}.json"

    def cache(self, bundle: str) -> Path:
        """The folder of prepared slices."""
        return self.folder / "cache" / bundle

    def doubts(self, bundle: str) -> Path:
        """The folder with how unsure each version of the model is of studies."""
        return self.folder / "doubts" / bundle

    def training(self, bundle: str) -> Path:
        """The file about the training that is going on, or went on last."""
        return self.folder / "runs" / f"{bundle}.json"

    def begin(self, studies: str | Path, bundles: dict[str, Any]) -> None:
        """Note what is annotated with which bundles; those of earlier starts stay in the note.

        Raises:
            DataError: the folder belongs to other studies, or cannot be written to.
        """
        place = place_of(studies)
        before = self.note if (self.folder / NOTE).is_file() else {"studies": place, "bundles": {}}
        if before["studies"] != place:
            raise DataError(
                f"expected the studies of the project in {self.folder}, {before['studies']}, found {place}; "
                "models and splits belong to their studies, so give these another --app-dir"
            )
        write_json(self.folder / NOTE, {"studies": place, "bundles": {**before["bundles"], **bundles}})


def default_folder(studies: str | Path) -> Path:
    """Where a project is without --app-dir: `runs/label/` and the name of the studies' folder."""
    name = place_of(studies).rstrip("/").rpartition("/")[2]
    return ROOT / (name or "studies")


def is_remote(studies: str | Path) -> bool:
    """Whether the studies are on a server, not in a folder."""
    return str(studies).startswith(("http://", "https://"))


def place_of(studies: str | Path) -> str:
    """A server's address, or a folder's whole path."""
    return str(studies).rstrip("/") if is_remote(studies) else str(Path(studies).resolve())
