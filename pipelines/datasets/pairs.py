"""Images and labels that lie in files of their own, brought together by case."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets.checking import Finding, natural, relative


class Case(NamedTuple):
    """One examination; a missing file is None, and a test case is expected to have no label."""

    name: str
    patient: str
    image: Path | None
    label: Path | None
    test: bool = False


def pair(
    files: Iterable[tuple[str, str, Path]], findings: list[Finding], root: Path
) -> tuple[list[Case], list[Finding]]:
    """The cases that files belong to, and what is missing or there twice.

    A case's patient is its name from the first digit on, and a test case's that of "test-" as well where its
    name begins so.

    Args:
        files: case, part ("image", "label" or "test") and path of each.
        findings: what is known already; where it says that a file of a case is missing, nothing is added.
        root: the dataset's folder, to name files by.

    Returns:
        The cases sorted by number, tests last, and all findings.
    """
    findings = list(findings)
    cases: dict[str, dict[str, Path]] = {}
    for name, part, path in files:
        case = cases.setdefault(name, {})
        if part in case:
            first, second = relative(case[part], root), relative(path, root)
            message = f"expected {name} once, found {first} and {second}"
            findings.append(Finding("error", "twice", name, first, message))
        else:
            case[part] = path
    found = []
    for name, parts in cases.items():
        test = "test" in parts
        number = name[re.search(r"\d", name).start() :]
        patient = f"test-{number}" if name.startswith("test-") else number
        case = Case(name, patient, parts.get("image", parts.get("test")), parts.get("label"), test)
        found.append(case)
        known = any(f.kind == "missing" and f.case == name for f in findings)
        if not (test or known) and (case.image is None or case.label is None):
            have, lack = ("image", "segmentation") if case.image else ("label", "volume")
            file = relative(parts[have], root)
            message = f"expected a {lack} for {file}, found none"
            findings.append(Finding("error", "missing", name, file, message))
    return sorted(found, key=lambda case: (case.test, natural(case.name))), findings
