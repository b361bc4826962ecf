"""Which annotated patients a bundle learns from and which it is tested on: decided once, for good.

A patient whose labels a model was tested on is never trained on later, and the other way round: else no
figure of a later round could be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import DataError
from pipelines.files import read_json, write_json

TRAINING, VALIDATION, TEST = "training", "validation", "test"
LEAST_TO_VALIDATE = 3  # patients that are not tested on, so that two are left to learn from


def read(file: str | Path) -> dict[str, str]:
    """Patient -> role of all patients that have one."""
    return read_json(file)["patients"] if Path(file).is_file() else {}


def decide(
    file: str | Path, patients: Iterable[str], share: float, seed: int = 0, keep: bool = True
) -> dict[str, str]:
    """Give a role to each patient that has none yet, and keep it in a file.

    Of the labelled patients, `share` (at least one, and never all) tests whether a new model is served; of
    the others, once there are three, `share` again chooses the epoch. Which of the new ones that are is drawn
    by a hash of their ids.

    Args:
        file: `{"patients": {patient: role}}`; it need not be there yet.
        patients: those with a label now.
        share: above 0 and below 1.
        seed: another seed, another draw.
        keep: False only tells what would be decided.

    Returns:
        Patient -> role, of these patients.

    Raises:
        DataError: a share that leaves nobody to test or to train on, or too few patients.
    """
    if not 0 < share < 1:
        raise DataError(
            f"expected val_split above 0 and below 1, found {share}: without labels held out, nobody can "
            "tell whether the new model is better; 0.2 is usual"
        )
    labelled = sorted(set(patients), key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).hexdigest())
    if len(labelled) < 2:
        raise DataError(
            f"expected labels of at least two patients, one to learn from and one to test on, found "
            f"{len(labelled)}; annotate and submit more cases, or say in patients.csv beside the studies "
            "whom each shows"
        )
    known = read(file)
    roles = {one: known[one] for one in labelled if one in known}
    new = [one for one in labelled if one not in known]
    test = min(max(1, round(share * len(labelled))), len(labelled) - 1)
    _fill(roles, new, TEST, test)
    others = len(labelled) - list(roles.values()).count(TEST)
    if others >= LEAST_TO_VALIDATE:
        _fill(roles, new, VALIDATION, max(1, round(share * others)))
    _fill(roles, new, TRAINING, len(labelled))
    for role, purpose in ((TRAINING, "learn from"), (TEST, "test on")):
        if role not in roles.values():
            raise DataError(
                f"expected a labelled patient to {purpose}, found that all {len(labelled)} have had another "
                "role in an earlier round, which they keep; annotate and submit another case"
            )
    if keep:
        write_json(file, {"patients": {**known, **roles}})
    return roles


def _fill(roles: dict[str, str], new: list[str], role: str, wanted: int) -> None:
    """Take patients from the front of `new` until `wanted` of them have the role."""
    while new and list(roles.values()).count(role) < wanted:
        roles[new.pop(0)] = role
