"""What a packaged bundle's configurations ask for: weights, and cases that these were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import folds, runs, weights
from pipelines.datasets.fingerprint import fingerprint
from pipelines.errors import DataError

MODEL = Path("models") / "model.pt"  # below the bundle's folder


def checkpoint(bundle_root: str | Path, experiment: str, run_name: str | None) -> str:
    """The weights that evaluation and inference take: of the run that is named, else the bundle's own.

    Raises:
        DataError: that run has no weights.
    """
    if run_name is not None:
        return str(Path(runs.finished(experiment, run_name)) / MODEL.name)
    return str(Path(bundle_root) / MODEL)


def fitted(key: str, weights_file: str | Path, own: Any) -> Any:
    """What was fitted in the training that left these weights, by their record; else the bundle's own."""
    return weights.record_of(weights_file).get("model_settings", {}).get(key, own)


class Origin:
    """What weights were trained on, and so which cases of a dataset they are evaluated on.

    A packaged bundle carries no list of patients. Where the data are those of the training, the same split
    is made again, and compared with a hash of the one that was trained with.

    Args:
        weights_file: of the bundle, of a run, or any other.
        bundle_root: the bundle's folder.
        trained_on: of the bundle's own weights: `dataset_fingerprint`, `split` and `fold`, as far as known.
        unseen: no case was trained on, so all of them are evaluated.
    """

    def __init__(
        self,
        weights_file: str | Path,
        bundle_root: str | Path,
        trained_on: dict[str, Any],
        unseen: Any = False,
    ) -> None:
        self.file = Path(weights_file)
        self.run = (self.file.parent / "run.json").is_file()
        self.unseen = runs.flag(unseen)
        own = self.file.resolve() == (Path(bundle_root) / MODEL).resolve()
        self.trained_on = trained_on if own else weights.record_of(self.file).get("trained_on", {})

    def folder(self, experiment: str) -> str:
        """Where the evaluation goes: the run's folder, or for other weights one below `runs/`."""
        return str(self.file.parent if self.run else runs.ROOT / experiment / "packaged")

    @property
    def fold(self) -> int:
        """The fold that is evaluated."""
        return 0 if self.unseen else int(self.trained_on.get("fold", 0))

    def require(self, fold: int) -> None:
        """Refuse another fold than the one held out.

        Raises:
            DataError: its cases are cases that the weights were trained on.
        """
        if fold != self.fold:
            raise DataError(
                f"expected fold {self.fold}, which {self.file} was not trained on, found {fold}; leave "
                "--fold out"
            )

    def split(
        self, cases: Sequence[dict[str, Any]], num_folds: int, file: str | Path | None = None
    ) -> list[list[str]]:
        """The split that the weights were trained with, or one fold with all cases where none was seen.

        Args:
            cases: of the dataset that is evaluated.
            num_folds: of the training.
            file: the split as it was written then; a run has its own.

        Raises:
            DataError: other data than in training, or another split; or nothing is known of the training.
        """
        if self.unseen:
            return folds.everybody(cases)
        advice = "add --unseen true where none of these cases was trained on, and all are evaluated"
        known, found = self.trained_on.get("dataset_fingerprint"), fingerprint(cases)
        if known != found:
            raise DataError(
                f"expected the data that {self.file} was trained on ({known or 'unknown'}), whose held-out "
                f"cases are evaluated, found others ({found}); give them by --dataset_dir, or {advice}"
            )
        if self.run and file is None:
            file = self.file.parent / "split.json"
        made = folds.split(cases, num_folds, file=file)
        if folds.digest(made) != self.trained_on.get("split"):
            raise DataError(
                f"expected the split that {self.file} was trained with, found another; give the split.json "
                f"of its run by --split_file, or {advice}"
            )
        return made
