"""Stores of a PACS in MONAI Label's environment: a call a line in, what it gave or raised a line out."""

import json
import sys

from pipelines.dicom_encoding import Segment
from pipelines.label import pacs
from pipelines.label.dicomweb import Pacs


def describe(corrected):
    return Segment(
        "lesion",
        ("49755003", "SCT", "Morphologically Abnormal Structure"),
        ("52988006", "SCT", "Lesion"),
        "FeatherSeg",
        "1",
        corrected=corrected,
    )


answers, sys.stdout = sys.stdout, sys.stderr
stores = {}
for line in sys.stdin:
    folder, name, arguments = json.loads(line)
    try:
        if name == "open":
            url, modalities = arguments
            stores[folder] = pacs.PacsStudies(Pacs(url), folder, dict.fromkeys(modalities, describe))
            answer = {"result": None}
        elif name == "fresh":
            (pacs.FRESH,) = arguments
            answer = {"result": None}
        else:
            answer = {"result": getattr(stores[folder], name)(*arguments)}
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, default=str), file=answers, flush=True)
