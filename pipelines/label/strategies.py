"""Which study is annotated next. A strategy of another kind is one more entry in `strategies`."""

from __future__ import annotations

import random
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First


class AnyStudy(Strategy):
    """One without a final label, drawn at random, rather one that was not suggested lately.

    MONAI Label's own fails where all that are left were suggested within the same second.

    Args:
        seed: of the draws since the server's start.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__("One at random that has no label yet")
        self.random = random.Random(seed)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """A study's id under `id`; None where all have labels."""
        studies = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not studies:
            return None
        now, strategy = int(time.time()), request["strategy"]
        seen = [datastore.get_image_info(one).get("strategy", {}).get(strategy, {}) for one in studies]
        weights = [max(1, now - one.get("ts", 0)) for one in seen]
        return {"id": self.random.choices(studies, weights)[0]}


def strategies() -> dict[str, Strategy]:
    """The strategies that a viewer can choose from: name -> strategy."""
    return {"first": First(), "random": AnyStudy()}
