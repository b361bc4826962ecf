"""A phantom of breast lesions in ultrasound, two views a patient, with what scanners burn into images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from pipelines.datasets import ultrasound_screen as screen
from pipelines.datasets.dce_us_anatomy import CARCINOMA, CYST, DIFFUSE, FIBROADENOMA, Kind, breast, contact
from pipelines.datasets.dce_us_faults import write_faults
from pipelines.datasets.phantoms import check_options, write_phantom
from pipelines.datasets.speckle import Probe, b_mode
from pipelines.datasets.ultrasound_screen import BLUE, WHITE, YELLOW

GENERATOR = 1  # counts up with every change of what is drawn
PARTS = ("images", "masks")


class Traits(NamedTuple):
    """What a patient is whatever the seed, so that every phantom of a dozen patients holds every trap."""

    kind: Kind
    height: float  # of the image, as a share of its width
    mask: str = "L"  # the mask's mode
    calipers: tuple[int, int, int] = BLUE
    width: float = 1.0  # of the image, as a share of the size


TRAITS = (
    Traits(CARCINOMA, 0.8),
    Traits(FIBROADENOMA, 0.75, "1"),
    Traits(CYST, 0.85, "RGB"),
    Traits(DIFFUSE, 0.7, width=1.125),
    Traits(FIBROADENOMA, 0.95, "1", YELLOW),
    Traits(CARCINOMA, 1.1, width=0.875),
    Traits(CARCINOMA, 0.75, "RGB", width=1.25),
    Traits(DIFFUSE, 0.9, "1", WHITE),
    Traits(FIBROADENOMA, 0.7, "L"),
    Traits(CARCINOMA, 0.85, "1", YELLOW),
    Traits(CYST, 0.8, width=0.9375),
    Traits(DIFFUSE, 0.75, "RGB", WHITE, 1.125),
)


def phantom(
    root: str | Path,
    cases: int = 12,
    seed: int = 0,
    size: int = 256,
    faults: bool = False,
    progress: bool | None = None,
) -> bool:
    """Write `images/PatientNNN_img1.png` and `_img2.png`, RGB, and `masks/` with the same names.

    A patient depends on the seed, the size and its own number only; the same arguments give the same bytes.

    Args:
        root: the folder to make.
        cases: how many patients, from Patient001. Every dozen has all kinds of lesions, calipers and masks.
        seed: not negative.
        size: about an image's width in pixels; patients differ by up to a quarter.
        faults: add a patient for each fault of `dce_us_faults`, listed in PHANTOM.json under "faults" with
            the finding to expect.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        True where the phantom was written, False where the same one was there.

    Raises:
        DataError: for an option out of range, or where `root` holds anything but an earlier phantom.
    """
    check_options(cases, seed, size, least=96, largest=1024)

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        for part in PARTS:
            (folder / part).mkdir()
        for number in tqdm(range(1, cases + 1), desc="phantom", unit="case", disable=quiet):
            _save(folder, number, seed, size)
        if not faults:
            return {}
        return {"faults": write_faults(folder, cases + 1, lambda number: _save(folder, number, seed, size))}

    parameters = {"dataset": "dce_us", "generator": GENERATOR, "cases": cases, "seed": seed, "size": size}
    return write_phantom(root, {**parameters, "faults": faults}, make)


def _save(folder: Path, number: int, seed: int, size: int) -> tuple[Path, Path]:
    """Write both views of a patient; returns image and mask of the first one."""
    for view in (2, 1):
        rgb, lesion, _ = image(number, view, seed, size)
        picture, mask = (folder / part / f"Patient{number:03d}_img{view}.png" for part in PARTS)
        Image.fromarray(rgb).save(picture)
        mode = _traits(number).mask
        Image.fromarray(lesion.astype(np.uint8) * 255).convert(mode, dither=Image.Dither.NONE).save(mask)
    return picture, mask


def _traits(number: int) -> Traits:
    return TRAITS[(number - 1) % len(TRAITS)]


def image(
    number: int, view: int, seed: int = 0, size: int = 256, calipers: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One view of one patient's lesion.

    Both views cut the same tissue through the lesion's middle, the second one at a right angle to the first.

    Args:
        number: of the patient, from 1.
        view: 1 or 2.
        seed: not negative.
        size: about the image's width in pixels; patients differ by up to a quarter.
        calipers: burn them in; without them the image is otherwise the same.

    Returns:
        The image, uint8 (H, W, 3); the lesion, bool (H, W), in one piece; the pixels of the calipers, bool
        (H, W), none without them.
    """
    traits = _traits(number)
    rng = np.random.default_rng([seed, number])  # the patient, drawn alike for both views
    width = round(size * traits.width)
    height = round(width * traits.height)
    top, right = round(0.075 * size), round(0.06 * size)  # the header, and the margin of ruler and grey bar
    rows, columns = height - top, width - right
    pixel = rng.uniform(35, 46) / rows

    view_rng = np.random.default_rng([seed, number, view])
    aside = min(0.5, 13 / (columns * pixel))  # so that the widest lesion stays inside
    origin = round(columns * view_rng.uniform(aside, 1 - aside))  # the line that both views share
    across = np.arange(-origin, columns - origin, dtype=np.float32) * np.float32(pixel)
    depth = np.arange(rows, dtype=np.float32)[:, None] * np.float32(pixel)
    zero = np.zeros((1, 1), np.float32)
    points = (across[None], depth, zero) if view == 1 else (zero, depth, across[None])
    echo, loss, inside = breast(rng, points, rows * pixel, pixel, traits.kind)
    loss[0] += contact(view_rng, across) / pixel
    fine = max(1.0, rows / 240)
    probe = Probe(axial=0.75 * fine, lateral=1.15 * fine)
    grey = b_mode(10 ** (echo / 20), loss * pixel, view_rng, probe, looks=3)

    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[top:, :columns] = grey[..., None]
    lesion = np.zeros((height, width), bool)
    lesion[top:, :columns] = inside
    picture = Image.fromarray(rgb)
    _furnish(picture, top, columns, pixel, size, number, view)
    rgb, drawn = np.array(picture), np.zeros((height, width), bool)
    if calipers:
        drawn = screen.calipers(lesion, size)
        rgb[drawn] = traits.calipers
    return rgb, lesion, drawn


def _furnish(
    picture: Image.Image, top: int, columns: int, pixel: float, size: int, number: int, view: int
) -> None:
    """Burn in a header, a ruler, a grey bar and, in every third patient, a coloured label."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    screen.write(draw, (3, 1), f"BREAST {number:03d}  L12-5", size)
    depth = (height - top) * pixel / 10
    screen.write(draw, (width // 2, 1), f"D {depth:.1f} cm  MI 0.9  60 dB", size)
    screen.ruler(draw, columns + 1, (top, height), pixel, size)
    screen.grey_bar(draw, (width - size // 40, width - 3), (top, height))
    if number % 3 == 0:
        side, plane = ("RT", "LT")[number % 2], ("SAG", "TRV")[view - 1]
        colour = YELLOW if number % 2 else BLUE
        screen.write(draw, (size // 20, height - size // 9), f"{side} {plane}", size, colour)
