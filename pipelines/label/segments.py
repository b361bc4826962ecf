"""What the SEGs of a project say of their segments: as its bundles describe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.dicom_encoding import Segment
from pipelines.files import read_json
from pipelines.label.project import Project
from pipelines.segment_dicom import described

Describe = Callable[[bool], Segment]


def by_modality(project: Project, bundles: Sequence[str]) -> dict[str, Describe]:
    """Modality -> what describes a segment on such images, given whether a reader corrected it.

    Args:
        project: that the bundles are served in.
        bundles: of several for one modality the first counts.
    """
    found: dict[str, Describe] = {}
    for bundle in bundles:
        image = _config(project, bundle, "metadata.json")["network_data_format"]["inputs"]["image"]
        found.setdefault(image["modality"], lambda corrected, bundle=bundle: of(project, bundle, corrected))
    return found


def of(project: Project, bundle: str, corrected: bool) -> Segment:
    """What a bundle segments, with the weights that are served now.

    Raises:
        DataError: nothing describes what it was trained to find.
    """
    config = _config(project, bundle, "inference.json")
    weights = project.versions(bundle).weights
    return described(
        config["segments"], config["target_labels"], config["algorithm"], weights, corrected=corrected
    )


def _config(project: Project, bundle: str, name: str) -> dict:
    return read_json(project.package(bundle) / "configs" / name)
