"""Which labelled studies a training learns from, chooses its epoch by, and is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.label import labels, patients, roles
from pipelines.label.project import Project

SHARE = 0.2


@dataclass(frozen=True)
class Plan:
    """The labelled cases of each role, as MONAI datalists with `image`, `label`, `case` and `patient`."""

    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]


def plan(
    project: Project,
    bundle: str,
    labelled: Sequence[dict[str, Any]],
    of_volumes: bool,
    share: float = SHARE,
    keep: bool = True,
) -> Plan:
    """Deal out labelled studies by patient; see `roles.decide`.

    Args:
        project: that the bundle is served in.
        bundle: its name.
        labelled: `study`, `image`, `label`, and `checked`, whether the label is as it was when it was
            submitted and checked; one that was put there by hand is checked now.
        of_volumes: whether the bundle takes volumes; studies of the other kind are not its own.
        share: of the patients that are tested on.
        keep: False only tells what would be decided, and writes nothing.

    Raises:
        DataError: too few patients, a share that is none, or a label that does not fit its study.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise DataError(f"expected val_split to be a number, found {share!r}")
    own = [one for one in labelled if labels.is_volume(one["image"]) == of_volumes]
    listing = patients.listed(project.images)
    whose = patients.of_studies([(one["study"], Path(one["image"])) for one in own], listing)
    decided = roles.decide(project.roles(bundle), whose.values(), share, keep=keep)
    cases = [_case(project, bundle, one, whose[one["study"]], keep) for one in own]

    def having(role: str) -> list[dict[str, Any]]:
        return [case for case in cases if decided[case["patient"]] == role]

    training = having(roles.TRAINING)
    # Of few, none can be spared to choose the epoch; those that are tested on are not for that.
    return Plan(training, having(roles.VALIDATION) or training, having(roles.TEST))


def _case(project: Project, bundle: str, one: dict[str, Any], patient: str, keep: bool) -> dict[str, Any]:
    """A case of a datalist; a label that is not on its study's grid as it stands, as a copy that is."""
    image, label = one["image"], one["label"]
    if not one["checked"]:
        mask = labels.read(label, image, str(label))
        if not labels.same_grid(label, image):
            folder = project.cache(bundle) / "labels"
            label = str(folder / f"{one['study']}{labels.label_ending(image)}")
            if keep:
                labels.write(mask, image, label)
    return {"image": str(image), "label": str(label), "case": one["study"], "patient": patient}
