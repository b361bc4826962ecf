"""Which study is annotated next. A strategy of another kind is one more entry in `strategies`."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First

from pipelines.label.doubting import Doubting
from pipelines.label.doubts import most_doubtful

TAKEN = 1800  # seconds in which a study that somebody was given is likely to be still in the works


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
        return self.one_of(studies, request, datastore)

    def one_of(
        self, studies: Sequence[str], request: dict[str, Any], datastore: Datastore
    ) -> dict[str, Any] | None:
        """One of some studies; None where there are none."""
        if not studies:
            return None
        given = [_given(one, request, datastore) for one in studies]
        weights = [max(1, int(time.time()) - one.get("ts", 0)) for one in given]
        return {"id": self.random.choices(studies, weights)[0]}


class MostDoubtful(AnyStudy):
    """The one that the served model is least sure of; one at random as long as it has looked at none.

    Two annotators who ask at about the same time get different ones.

    Args:
        doubting: finds out how sure the model is.
        seed: of the draws since the server's start.
    """

    def __init__(self, doubting: Doubting, seed: int | None = None) -> None:
        super().__init__(seed)
        self.description = f"The one that {doubting.bundle} is least sure of"
        self.doubting = doubting

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """A study's id under `id`, and where it was looked at, `doubt` and `candidates`; None without any."""
        studies = self.doubting.unlabelled(datastore)
        found = self.doubting.found
        given = {one: _given(one, request, datastore) for one in studies}
        own, now = request.get("client_id"), time.time()
        others = [one for one, to in given.items() if own and to and to.get("client_id") != own]
        taken = {one for one in others if now - given[one]["ts"] < TAKEN}
        chosen = most_doubtful(studies, found, taken, self.random)
        if chosen is None:
            return self.one_of(studies, request, datastore)
        return {"id": chosen, **found[chosen]}


def _given(study: str, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
    """When and to whom a study was suggested last by the strategy: `ts`, `client_id`; or nothing."""
    return datastore.get_image_info(study).get("strategy", {}).get(request["strategy"], {})


def strategies(doubting: Mapping[str, Doubting]) -> dict[str, Strategy]:
    """The strategies that a viewer can choose from: name -> strategy.

    Args:
        doubting: what finds out how sure the model of a bundle is, by the name that MONAI Label gives it.
    """
    doubtful = {name: MostDoubtful(one) for name, one in doubting.items()}
    return {"first": First(), "random": AnyStudy(), **doubtful}
