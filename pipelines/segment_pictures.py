"""Pictures in, masks out: what to segment, and each mask written in the size of its picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image
from pydicom.misc import is_dicom

from pipelines import datasets, report, shown
from pipelines.clips import VIDEOS
from pipelines.datasets.checking import natural
from pipelines.datasets.masks import SUFFIXES, size_text
from pipelines.errors import DataError
from pipelines.files import written_whole

DICOM = (".dcm", ".dicom", ".ima")  # cut from a case's name; any other ending, or none, is part of it
# What belongs to the picture whose stem it starts with; with no stem before it, to all of its folder.
DERIVED = re.compile(r"(?:(.+)_)?(?:mask(?:_\d+)?|overlay)")


def inputs(path: str | Path, bundle: str, **options: Any) -> list[dict[str, Any]]:
    """The images that `path` means, as a MONAI datalist with `image` and `case`.

    In a folder of any images, pictures are known by their ending (PNG, JPEG, BMP, TIFF) and DICOM files by
    their ending or their content. Other files, such as tables and notes, may lie beside them and are listed
    as left out; hidden files and sub-folders are not looked at. What was drawn on an image is none itself:
    `a_mask.png`, `a_mask_1.png` and `a_overlay.png` beside `a.png`, and `mask.png` beside anything.

    Args:
        path: a picture, a DICOM file, a folder of them, or a dataset in its own layout.
        bundle: whose dataset's layout is recognised. Where its module has `entries(file)`, each file goes
            through it, and may give several cases: a clip gives its key frames. Videos are images then too.
        options: of the dataset's `index` and `entries`, such as how many key frames a clip gives.

    Raises:
        DataError: nothing there that can be segmented, or two files whose masks would have one name.
    """
    path, dataset = Path(path), datasets.get(bundle)
    clips = f", a video ({', '.join(VIDEOS)})" if hasattr(dataset, "entries") else ""
    kinds = f"a picture ({', '.join(SUFFIXES)}), a DICOM file{clips}"
    if path.is_file():
        if not _is_image(path, dataset):
            raise DataError(
                f"expected {kinds} or a folder of them, found {path}; give it its ending, or export the "
                "image as one of these"
            )
        return _cases([path], dataset, options)
    if not path.is_dir():
        raise DataError(f"expected images to segment at {path}, found nothing there; see --dataset_dir")
    there = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    files = [file for file in there if _is_image(file, dataset)]
    known, reason = [], ""
    try:
        known = dataset.index(str(path), labelled=False, **options)
    except DataError as error:
        # Not the dataset in its own layout: any folder of images will do.
        if any(one.is_dir() for one in path.iterdir()):
            reason = f"; nor is it the data of {bundle}: {error}"
    if known:
        return _without_strangers(path, known, files, dataset)
    if not files:
        raise DataError(f"expected in {path} {kinds}, found none{reason}")
    left = sorted(file.name for file in set(there) - set(files))
    if left:
        print(f"left out of {path}, as neither picture nor DICOM: {', '.join(left)}")
    stems = {_name(file) for file in files}
    derived = {stem for stem in stems if (of := DERIVED.fullmatch(stem)) and of[1] in {None, *stems}}
    if derived != stems:  # else a lone picture is called so
        files = [file for file in files if _name(file) not in derived]
    return _cases(sorted(files, key=lambda file: natural(file.name)), dataset, options)


def _without_strangers(
    path: Path, known: list[dict[str, Any]], files: list[Path], dataset: ModuleType
) -> list[dict[str, Any]]:
    """The cases of a dataset in its own layout, where no other image lies beside its folders."""
    strangers = sorted({str(file) for file in files} - {case["image"] for case in known})
    if strangers and not hasattr(dataset, "entries"):  # clips are no images of their cases
        raise DataError(
            f"expected a dataset in its own layout in {path}, or images of any name, found both, such as "
            f"{strangers[0]}; put them into folders of their own"
        )
    return known


def _is_image(file: Path, dataset: ModuleType) -> bool:
    if file.name == "DICOMDIR":
        return False
    endings = (*SUFFIXES, *DICOM, *(VIDEOS if hasattr(dataset, "entries") else ()))
    return file.suffix.lower() in endings or is_dicom(file)


def _cases(files: Iterable[Path], dataset: ModuleType, options: dict[str, Any]) -> list[dict[str, Any]]:
    entries: Callable[[str], list[dict[str, Any]]] = getattr(dataset, "entries", _entries)
    cases: list[dict[str, Any]] = []
    sources: dict[str, Path] = {}
    for file in files:
        for case in entries(str(file), **options):
            if first := sources.get(case["case"]):
                raise DataError(
                    f"expected a name of its own for each image, found {first} and {file}, whose masks would "
                    "have the same; rename one or segment them one by one"
                )
            sources[case["case"]] = file
            cases.append(case)
    return cases


def _entries(file: str) -> list[dict[str, Any]]:
    return [{"image": file, "case": _name(Path(file))}]


def _name(file: Path) -> str:
    """Without the ending, composed as Unicode; of DICOM files called after an identifier (1.2.840.1) all."""
    known = file.suffix.lower() in (*SUFFIXES, *VIDEOS, *DICOM)
    return unicodedata.normalize("NFC", file.stem if known else file.name)


class PictureMasks:
    """Write each case's mask as a picture of exactly its image's size, and the image with its outline.

    A large image is shown smaller, see `shown.reduced`.

    Args:
        folder: where `CASE_mask.png` (0 and 255, mode L) and `CASE_overlay.png` go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the masks of a batch; the engine has taken it apart into one dictionary a case.

        Of each the batch holds `case` and `original`, (3, W, H) in 8 bits as `PictureReader` loads it or
        (1, W, H) of any values, and the output `pred`, (1, W, H).

        Raises:
            DataError: the prediction has not the image's size, or the folder cannot be written to.
        """
        for source, result in zip(engine.state.batch, engine.state.output, strict=True):
            original = source["original"].cpu().numpy()
            mask = result["pred"][0].cpu().numpy() > 0.5
            if mask.shape != original.shape[1:]:
                raise DataError(
                    f"{source['case']}: expected a prediction of the image's size, "
                    f"{size_text(original.shape[:0:-1])}, found {size_text(mask.shape[::-1])}; "
                    "bring it back with Invertd"
                )
            path = self.folder / f"{source['case']}_mask.png"
            with written_whole(path) as beside:
                Image.fromarray(mask.T.astype(np.uint8) * np.uint8(255)).save(beside)
            picture = path.with_name(f"{source['case']}_overlay.png")
            colour = len(original) == 3
            image = np.moveaxis(original, 0, -1).astype(np.uint8) if colour else _displayed(original[0])
            image, outlined = shown.reduced(image, mask)
            report.overlay(image, None, outlined, picture, colour=colour)
            print(f"{path}: {_share(mask)}, picture {picture}")


def _displayed(values: np.ndarray) -> np.ndarray:
    """Grey values without the brightest thousandth of an image, such as a burned-in letter."""
    return np.minimum(values, np.percentile(values, 99.9))


def _share(mask: np.ndarray) -> str:
    if not mask.any():
        return "nothing found"
    percent = 100 * mask.mean()
    return f"{'less than 0.1' if percent < 0.1 else f'{percent:.1f}'} % of the image segmented"
