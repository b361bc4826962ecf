"""The overlay that trains and validates in bfloat16: nearly the same losses, and weights in float32."""

import pytest
import torch
from ignite.engine import Events
from monai.utils import set_determinism

from pipelines.bench_setup import experiment
from pipelines.precision import Bfloat16
from tests.bundles.test_on_device import BUNDLES, small


def train(name, overlays, options):
    """Train two epochs; returns the losses of the steps, the trainer and the evaluator."""
    set_determinism(0)
    parser = experiment(name, overlays, **options)
    trainer = parser.get_parsed_content("train#trainer")
    losses = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"]))
    )
    trainer.run()
    evaluator = parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    set_determinism(None)
    return losses, trainer, evaluator


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_validation_compute_in_bfloat16(name, tmp_path, workspace):
    options = small(name, tmp_path) | {"num_workers": 0, "device": "cpu"}
    options |= {"validate#dataset#data": "$@cases", "validate#handlers": []}
    plain, _, usual = train(name, [], options)
    losses, trainer, evaluator = train(name, ["bundles/common/bfloat16.json"], options)
    assert losses != plain and losses == pytest.approx(plain, abs=0.05)
    assert trainer.network is evaluator.network and isinstance(evaluator.network, Bfloat16)
    assert {one.dtype for one in trainer.network.parameters()} == {torch.float32}
    assert not isinstance(usual.network, Bfloat16)
    dice = [engine.state.metrics["val_dice"] for engine in (usual, evaluator)]
    assert dice[1] == pytest.approx(dice[0], abs=0.1)
