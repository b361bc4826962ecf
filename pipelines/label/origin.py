"""The tags by which MLflow tells a training on annotations from others."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from pipelines.runs import Run
from pipelines.tracking import Tracker


class Origin:
    """Add tags to a run as it starts; attached after what opens the run.

    Args:
        folder: of the run.
        experiment: that it belongs to.
        tags: name -> value.
    """

    def __init__(self, folder: str, experiment: str, tags: dict[str, Any]) -> None:
        self.tracker = Tracker(Run(folder, experiment))
        self.tags = tags

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.tracker.add("tags", values=self.tags)
        self.tracker.send()
