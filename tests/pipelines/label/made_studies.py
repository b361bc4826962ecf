"""Small studies of every kind, weights that segment a part of anything, and what a bundle itself gives."""

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet
from PIL import Image

from pipelines import datasets, weights
from tests.conftest import write_volume

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, 0.05, -0.2) @ np.diag([-0.8, 0.9, 2.5]), [12, -7, 31]
)
VOLUMES = [f"volume-{number}" for number in range(6)]
LARGE, CUT, BRAIN, PICTURE = "volume-9", "volume-8", "BRATS_001", "Patient001_img1"
SETTINGS = {
    "lits": {"target_labels": [2], "window": [-100, 200], "image_size": [32, 32]},
    "brain_tumour": {
        "target_labels": [1, 2, 3],
        "field_of_view": [30, 30],
        "image_size": [32, 32],
        "intensity_offset": 0,
        "whitening": {"mean": [0.0] * 4, "matrix": np.eye(4).tolist()},
    },
    "inbreast": {
        "target_labels": [1, 2],
        "normalize_side": True,
        "crop_breast": True,
        "keep_aspect": True,
        "image_size": [32, 32],
    },
}
CHANNELS = {"lits": 1, "brain_tumour": 4, "inbreast": 1}


def write_studies(folder):
    """Volumes with a bright lesion, a large one, one that is cut off, one of four sequences, a picture and a
    mammogram.

    Returns:
        The true masks of the volumes, and the name of the mammogram.
    """
    folder.mkdir()
    random, masks = np.random.default_rng(0), {}
    for number, name in enumerate(VOLUMES):
        shape = (26, 22, 7 + number)
        image, mask = random.normal(40, 10, shape).astype(np.int16), np.zeros(shape, np.uint8)
        mask[6 + number : 14 + number, 5:12, 2:5] = 1
        image[mask > 0] += 90
        write_volume(folder / f"{name}{'.nii' if number % 2 else '.nii.gz'}", image, OBLIQUE)
        masks[name] = mask
    write_volume(folder / f"{LARGE}.nii.gz", np.zeros((256, 256, 96), np.int16), OBLIQUE)
    whole = (folder / f"{VOLUMES[0]}.nii.gz").read_bytes()
    (folder / f"{CUT}.nii.gz").write_bytes(whole[: len(whole) // 2])
    sequences = random.normal(300, 50, (30, 28, 9, 4)).astype(np.float32)
    sequences[:4] = 0  # around the head
    write_volume(folder / f"{BRAIN}.nii.gz", sequences, np.diag([-1.0, -1.0, 3.0, 1.0]))
    Image.fromarray(random.integers(0, 255, (60, 90, 3), np.uint8)).save(folder / f"{PICTURE}.png")
    datasets.get("inbreast").phantom(folder.parent / "inbreast", cases=1, seed=0, size=96)
    mammogram = sorted((folder.parent / "inbreast").rglob("*.dcm"))[0]
    mammogram.rename(folder / mammogram.name)
    return masks, mammogram.stem


def write_weights(bundle, file):
    """Weights of a network of a few thousand parameters."""
    torch.manual_seed(0)
    arguments = {"spatial_dims": 2, "in_channels": CHANNELS[bundle], "out_channels": 1}
    arguments |= {"features": [4, 4, 8, 8, 8, 4], "dropout": 0.0}
    state = BasicUNet(**arguments).state_dict()
    state["final_conv.weight"] *= 50
    network_def = {"_target_": "monai.networks.nets.BasicUNet", **arguments}
    settings = SETTINGS[bundle]
    record = {
        "bundle": bundle,
        "network": "BasicUNet",
        "network_def": network_def,
        "model_settings": settings,
    }
    record |= {"input_shape": [CHANNELS[bundle], *settings["image_size"]], "seed": 0, "fold": 0}
    weights.write(file, state, record, torch.float32)
    return file


def read(file):
    """A mask in the order in which its file has it."""
    file = str(file)
    return (
        np.asarray(nib.load(file).dataobj) if file.endswith(".nii.gz") else np.asarray(Image.open(file)) > 0
    )


def directly(bundle, image, folder, **given):
    """The mask that the bundle's own inference writes, from a working directory with the bundles."""
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}/inference.json")
    parser.update({"dataset_dir": str(image), "output_dir": str(folder), "device": "cpu", **given})
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    volumes, pictures = list(folder.glob("*_mask.nii.gz")), list(folder.glob("*_mask.png"))
    (mask,) = volumes or pictures  # a volume has a picture beside it
    return read(mask)
