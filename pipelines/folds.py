"""Splits by patient, written to a file and checked disjoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import DataError
from pipelines.files import read_json, write_json

Case = dict[str, str]


def _patient(case: Case) -> str:
    return case.get("patient", case["image"])


def split(
    cases: Sequence[Case], num_folds: int, seed: int = 0, file: str | Path | None = None
) -> list[list[str]]:
    """Deal the patients of `cases` out to folds.

    Patients are ordered by a hash of their id and the seed, so that the split depends on neither the
    order of files nor the machine.

    Args:
        cases: MONAI datalist; `patient` in each names whom it shows.
        num_folds: how many folds; 4 hold out a quarter each.
        seed: another seed, another split.
        file: a split written earlier, honoured as it is: `{"folds": [[patient, ...], ...]}`.

    Returns:
        The patient ids of each fold.

    Raises:
        DataError: fewer patients than folds, or a split file that does not fit the cases.
    """
    patients = sorted({_patient(case) for case in cases})
    if file is not None:
        return _checked(read_split(file), patients, file)
    if num_folds < 2 or len(patients) < num_folds:
        raise DataError(
            f"expected at least 2 folds and a patient for each, found {len(patients)} patients for "
            f"{num_folds} folds; add cases or lower --num_folds"
        )
    order = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest())
    return [sorted(order[i::num_folds]) for i in range(num_folds)]


def read_split(file: str | Path) -> list[list[str]]:
    """The folds of a split file."""
    content = read_json(file)
    folds = content.get("folds") if isinstance(content, dict) else None
    if not isinstance(folds, list) or not all(isinstance(fold, list) for fold in folds):
        raise DataError(f'expected {{"folds": [[patient, ...], ...]}} in {file}, found other content')
    return [[str(patient) for patient in fold] for fold in folds]


def _checked(folds: list[list[str]], patients: list[str], file: str | Path) -> list[list[str]]:
    listed = [patient for fold in folds for patient in fold]
    twice = sorted({patient for patient in listed if listed.count(patient) > 1})
    if twice:
        raise DataError(
            f"{file}: expected each patient in one fold, found {twice[:5]} in two; mend the split"
        )
    absent, unlisted = sorted(set(listed) - set(patients)), sorted(set(patients) - set(listed))
    if absent or unlisted:
        raise DataError(
            f"{file}: expected the patients of the dataset, found {len(absent)} that it lacks {absent[:5]} "
            f"and {len(unlisted)} of it without a fold {unlisted[:5]}; give the split of this dataset"
        )
    return folds


def write_split(file: str | Path, folds: list[list[str]]) -> None:
    """Write the folds beside a run; `split(file=...)` reads them back."""
    write_json(file, {"folds": folds})


def everybody(cases: Sequence[Case]) -> list[list[str]]:
    """One fold with all patients, for data of which no case was ever trained on."""
    return [sorted({_patient(case) for case in cases})]


def digest(folds: list[list[str]]) -> str:
    """A short name for a split, the same on every machine: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps({"folds": folds}, sort_keys=True).encode()).hexdigest()[:12]


def _held_out(folds: list[list[str]], fold: int) -> set[str]:
    if not isinstance(fold, int) or not 0 <= fold < len(folds):
        raise DataError(
            f"expected a fold from 0 to {len(folds) - 1}, found {fold!r}; give --fold accordingly"
        )
    return set(folds[fold])


def training_cases(cases: Sequence[Case], folds: list[list[str]], *held_out_folds: int) -> list[Case]:
    """The cases of all patients but those of the folds held out, for testing and perhaps for validation."""
    held_out = set().union(*(_held_out(folds, fold) for fold in held_out_folds))
    if len(folds) <= len(set(held_out_folds)):
        raise DataError(
            f"expected more folds than the {len(folds)} held out, to test and to choose the epoch, so that "
            "one is left to train on; give --num_folds 3 or more"
        )
    return [case for case in cases if _patient(case) not in held_out]


def held_out_cases(cases: Sequence[Case], folds: list[list[str]], fold: int) -> list[Case]:
    """The cases of the patients of `fold`."""
    held_out = _held_out(folds, fold)
    return [case for case in cases if _patient(case) in held_out]
