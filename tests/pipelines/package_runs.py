"""Runs as trainings leave them, without training: a network of a few thousand parameters on small images."""

import json

import torch

from pipelines import folds, package_configs, weights
from pipelines.files import write_json

PATIENTS = [["a", "b"], ["c"], ["d"]]
FACTS = {"dataset_fingerprint": "0123456789abcdef", "cases": 4}
TAGS = {"data": "0123456789abcdef", "split": "written-by-the-training", "recipe": "4ec1", "code": "c0de"}
EVALUATED = {
    "test_dice": 0.81234567,
    "test_hd95": 4.5,
    "test_cases": 2.0,
    "test_grid_dice": 0.7,
    "other": 1.0,
}
# Of one machine, none of which may travel.
SECRET = "someones-machine"
HERE = {"host": SECRET, "pid": 1, "pid_started": 0.0}


def network(channels, out_channels=1):
    """The definition of a network of MONAI's, small."""
    return {
        "_target_": "BasicUNet",
        "spatial_dims": 2,
        "in_channels": channels,
        "out_channels": out_channels,
        "features": [4, 4, 8, 8, 8, 4],
    }


def make_run(folder, bundle, figures=EVALUATED, network_def=None, **changes):
    """Write the folder of a finished run of a bundle; returns its `model.pt`.

    Args:
        folder: `runs/BUNDLE/NAME`.
        figures: of its evaluation; None where it was not evaluated.
        network_def: by default a small one.
        changes: to the configuration, as options of its training.
    """
    train = package_configs.flat(f"bundles/{bundle}/train.json")
    channels = train["network_def"]["in_channels"] * (2 if bundle == "ceus" else 1)
    network_def = network_def or network(channels)
    config = {**train, "image_size": [32, 32], "max_epochs": 3, "dataset_dir": f"/{SECRET}/data"}
    config |= {"cache_dir": f"/{SECRET}/cache", "network_def": network_def, "num_folds": 3, **changes}
    write_json(folder / "config.json", config)
    folds.write_split(folder / "split.json", PATIENTS)
    settings = weights.from_config(config)["model_settings"]
    torch.manual_seed(0)
    built = weights.build(network_def)
    note = {"bundle": bundle, "status": "finished", "started": 0.0, "ended": 1.0, "key": "k", "fold": 0}
    note |= {"network": type(built).__name__, "model_settings": settings, "facts": FACTS, **HERE}
    write_json(folder / "run.json", {**note, "values": {"seed": config["seed"]}, "code_version": "abcdef"})
    records = [{"kind": "tags", "time": 0, "values": TAGS}]
    records += [{"kind": "metrics", "time": 1, "step": 3, "values": {"val_dice": 0.5}}]
    if figures is not None:
        records += [{"kind": "metrics", "time": 2, "step": None, "values": figures}]
    (folder / "tracking.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    torch.save(built.state_dict(), folder / "model.pt")
    return folder / "model.pt"
