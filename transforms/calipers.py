"""Find the electronic calipers burned into an ultrasound image, and paint them over.

Calipers are drawn by the machine: plus or x signs at the ends of a measurement, a dotted or dashed line
between them, a small number beside one end. They tell a network where the lesion is (Li et al., "Lightweight
U-Nets for breast lesion segmentation in ultrasound", ISBI 2021, name it as a danger).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from .caliper_marks import Cross, Row, find_crosses, find_rows, place

__all__ = ["RemoveCalipers", "RemoveCalipersD", "RemoveCalipersDict", "RemoveCalipersd", "find_calipers"]

SCALES = 1, 2  # thick strokes and widely spaced dots are found at half the resolution
SMALLEST = 32  # pixels; no calipers are looked for in an image with a shorter side
FAINTER, CLEAR, CLEARER, STARK = 0.08, 0.12, 0.25, 0.3  # contrasts of a cross, where black to white is 1
SAME_INK = 0.23  # the least contrast of a mark, as a share of that of another one of the same calipers
LONG_ROW, LONE_ROW = 9, 16  # dots


def find_calipers(image: NdarrayOrTensor) -> np.ndarray:
    """Find the strokes of electronic calipers.

    They are looked for in the brightness of the image and, where it has colour, in its colourfulness, which
    is almost nothing but graphics. Text, rulers and frames are left alone.

    Args:
        image: shape (3, H, W) for RGB or (1, H, W) for grey, or with the last two axes exchanged. Integers,
            and floats whose largest value exceeds 1, run from 0 to 255; other floats from 0 to 1.

    Returns:
        bool, shape (H, W): True on crosses, dots, dashes and the numbers beside crosses.

    Raises:
        ValueError: where the image has another shape.
    """
    channels = _unit_channels(image)
    brightness = channels.max(axis=0)
    colourfulness = brightness - channels.min(axis=0)
    mask = np.zeros(brightness.shape, bool)
    if min(brightness.shape) >= SMALLEST:
        for layer in (brightness, colourfulness):
            if layer.max() >= CLEAR:
                mask |= _strokes(layer)
    return mask


class RemoveCalipers(Transform):
    """Find electronic calipers with `find_calipers` and fill their pixels smoothly from around them.

    Only the strokes and the pixels next to them change, and an image without calipers is returned as it is.
    The speckle below a stroke is not restored: a strip of a few pixels is left that is smoother than its
    surroundings. Calipers are found best in the image as the machine wrote it, before it is resized.
    """

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Shape, type, dtype and range of values as for `find_calipers`, in and out.

        A MetaTensor keeps its metadata and its record of earlier transforms; nothing is added to them, since
        the geometry stays.
        """
        strokes = find_calipers(img)
        if not strokes.any():
            return img
        channels = convert_to_numpy(img)
        filled = channels.copy()
        hole = ndimage.binary_dilation(strokes, np.ones((3, 3)))
        alike = (channels == channels[:1]).all()
        source = (channels[:1] if alike else channels).astype(np.float64)
        values = inpaint_biharmonic(source, hole, channel_axis=0)[:, hole]
        if np.issubdtype(channels.dtype, np.integer):
            values = np.rint(values)
        filled[:, hole] = values
        return convert_to_dst_type(filled, dst=img)[0]


class RemoveCalipersd(MapTransform):
    """Dictionary version of :class:`RemoveCalipers`.

    Args:
        keys: the images; not their masks.
        allow_missing_keys: do not raise for a key that the data does not have.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.remove = RemoveCalipers()

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.remove(d[key])
        return d


def _unit_channels(image: NdarrayOrTensor) -> np.ndarray:
    channels = convert_to_numpy(image)
    if channels.ndim != 3 or channels.shape[0] not in (1, 3):
        raise ValueError(
            f"expected an image of shape (3, H, W) or (1, H, W), found {tuple(channels.shape)}; "
            "load it with its channels first and without alpha"
        )
    to_255 = np.issubdtype(channels.dtype, np.integer) or channels.max(initial=0) > 1
    return channels.astype(np.float32) / (255 if to_255 else 1)


def _strokes(layer: np.ndarray) -> np.ndarray:
    """The pixels of the crosses and rows of one channel that bear one another out."""
    crosses: list[Cross] = []
    rows: list[Row] = []
    for scale in SCALES:
        crosses += find_crosses(layer, scale)
        for row in find_rows(layer, scale):
            if not any(_covers(other, row) for other in rows):
                rows.append(row)
    kinds = [[cross for cross in crosses if cross.turned == turned] for turned in (False, True)]
    believed = [_believed(_distinct(kind), rows) for kind in kinds]
    crosses, rows = max(believed, key=lambda marks: sum(cross.contrast for cross in marks[0]))
    mask = np.zeros(layer.shape, bool)
    for row in rows:
        _draw_row(mask, row, layer)
    for cross in crosses:
        _draw_cross(mask, cross, layer)
    for cross in crosses:
        _draw_number(mask, cross, layer)
    return mask


def _believed(crosses: list[Cross], rows: list[Row]) -> tuple[list[Cross], list[Row]]:
    """The marks that bear one another out.

    A clear cross is stark, or has a mate or a row that ends at it. A row ends at such a cross, or is long and
    intersects one that does; a row on its own has to be very long, since a line of text looks like one now
    and then. A cross that is not clear, as on bright tissue, stands at the end of a long row.
    """
    clear = [cross for cross in crosses if _is_clear(cross)]
    sure = [
        cross
        for cross in clear
        if cross.contrast >= STARK
        or any(_ends_at(row, cross) for row in rows)
        or any(_is_mate(other, cross) for other in clear)
    ]
    sure += [cross for cross in crosses if cross not in sure and _fits(cross, sure)]
    tied = []
    for row in rows:
        # At half the resolution chance makes more short rows.
        ends = 1 if row.scale == 1 or row.dots >= LONG_ROW else 2
        alone = row.dots >= LONE_ROW and row.contrast >= CLEAR
        if alone or sum(_ends_at(row, cross) for cross in sure) >= ends:
            tied.append(row)
    long = [row for row in rows if row.dots >= LONG_ROW]
    rows = tied + [row for row in long if row not in tied and any(_intersect(row, other) for other in tied)]
    arm = np.median([cross.arm for cross in sure]) if sure else np.inf
    unclear = [
        replace(cross, arm=min(cross.arm, arm))
        for cross in crosses
        if any(
            row.dots >= LONG_ROW and _ends_at(row, cross) and not _is_taken(row, cross, sure) for row in rows
        )
    ]
    return sure + unclear, rows


def _distinct(crosses: list[Cross]) -> list[Cross]:
    """The clearest of the crosses that lie on top of one another."""
    kept: list[Cross] = []
    for cross in sorted(crosses, key=lambda cross: -cross.contrast * (2 if cross.regular else 1)):
        if all(np.linalg.norm(cross.centre - other.centre) > max(3, 0.75 * other.arm) for other in kept):
            kept.append(cross)
    return kept


def _is_clear(cross: Cross) -> bool:
    """Whether a cross is one by itself; tissue and letters look like large or turned ones more often."""
    return cross.regular and cross.contrast >= (CLEARER if cross.turned or cross.scale > 1 else CLEAR)


def _is_mate(other: Cross, cross: Cross) -> bool:
    """Whether two crosses are of one size and one ink; chance makes pairs that are merely clear."""
    apart = np.linalg.norm(other.centre - cross.centre)
    return bool(
        apart > 2 * cross.arm
        and abs(other.arm - cross.arm) <= 1 + 0.2 * cross.arm
        and abs(other.level - cross.level) <= 0.1
        and max(other.contrast, cross.contrast) >= CLEARER
    )


def _fits(cross: Cross, sure: list[Cross]) -> bool:
    """Whether a cross is so like and so near the sure ones that it may be faint or of disturbed shape."""
    if len(sure) < 2:
        return False
    centres = np.stack([other.centre for other in sure])
    middle = centres.mean(axis=0)
    reach = 2.1 * max(np.linalg.norm(centres - middle, axis=1).max(), 20)
    arm, level, contrast = np.median([(other.arm, other.level, other.contrast) for other in sure], axis=0)
    if abs(cross.arm - arm) > 1 + 0.2 * cross.arm:
        least = CLEARER if cross.regular else np.inf
    else:
        least = FAINTER if cross.regular and cross.scale == 1 else CLEAR
    return bool(
        cross.contrast >= max(least, 0.35 * contrast)
        and cross.level >= 0.7 * level
        and np.linalg.norm(cross.centre - middle) <= reach
    )


def _ends_at(row: Row, cross: Cross) -> bool:
    """Whether a cross lies where a row of no fainter ink would go on to."""
    (t,), (off,), length = place(cross.centre[None], row)
    near = abs(off) <= 2 * row.scale and -cross.arm <= max(-t, t - length) <= cross.arm + 3 * row.pitch
    return bool(near and row.contrast > SAME_INK * cross.contrast)


def _is_taken(row: Row, cross: Cross, others: list[Cross]) -> bool:
    """Whether one of other crosses stands at that end of a row where a cross is."""
    half = np.linalg.norm(row.end - row.start) / 2
    return any(
        _ends_at(row, other) and np.linalg.norm(other.centre - cross.centre) < half for other in others
    )


def _intersect(row: Row, other: Row) -> bool:
    """Whether a row intersects another one and is of no fainter ink; each may lack a dot at the end."""
    for one, two in ((row, other), (other, row)):
        _, off, _ = place(np.stack([two.start, two.end]), one)
        if off[0] * off[1] > 0 and np.abs(off).min() > two.pitch:
            return False
    return row.contrast > SAME_INK * other.contrast


def _covers(row: Row, other: Row) -> bool:
    """Whether most of another row lies on a row's line."""
    t, off, length = place(np.stack([other.start, other.end]), row)
    shared = min(t.max(), length) - max(t.min(), 0)
    return bool((np.abs(off) <= 3).all() and shared > 0.5 * np.ptp(t))


def _window(
    shape: tuple[int, ...], low: np.ndarray, high: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The part of an image between two corners, and the coordinates of its pixels, shape (h, w, 2)."""
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
    window = tuple(slice(max(a, 0), min(b, size)) for a, b, size in zip(first, last, shape, strict=True))
    return window, np.stack(np.mgrid[window], axis=-1)


def _draw_row(mask: np.ndarray, row: Row, layer: np.ndarray) -> None:
    margin = 4 * row.scale
    ends = np.stack([row.start, row.end])
    window, points = _window(mask.shape, ends.min(axis=0) - margin, ends.max(axis=0) + margin)
    t, off, length = place(points, row)
    band = (np.abs(off) <= 1.6 * row.scale) & (t > -2 * row.scale) & (t < length + 2 * row.scale)
    detail = layer[window] - ndimage.median_filter(layer[window], 4 * row.scale + 1)
    # About the middle one of the values of the dots, which are the brightest pixels of the band.
    ink = np.quantile(detail[band], 1 - min(0.5, 0.5 * row.dots * row.scale**2 / band.sum()))
    mask[window] |= band & (detail > 0.35 * ink)


def _draw_cross(mask: np.ndarray, cross: Cross, layer: np.ndarray) -> None:
    window, points = _window(mask.shape, cross.centre - cross.arm - 1, cross.centre + cross.arm + 1)
    dy, dx = np.abs(points - cross.centre).transpose(2, 0, 1)
    width = 1 + cross.scale
    band = np.abs(dy - dx) <= width if cross.turned else np.minimum(dy, dx) <= width
    mask[window] |= band & (layer[window] > cross.level - cross.contrast / 2)


def _draw_number(mask: np.ndarray, cross: Cross, layer: np.ndarray) -> None:
    """Draw the number beside a cross: a small figure of the same ink."""
    reach = 4 * cross.arm + 2
    window, points = _window(mask.shape, cross.centre - reach, cross.centre + reach)
    values, taken = layer[window], mask[window].copy()
    away = np.abs(points - cross.centre).max(axis=2)
    labels, _ = ndimage.label((values > cross.level - cross.contrast / 3) & ~taken, np.ones((3, 3)))
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        figure = labels == number
        size = max(part.stop - part.start for part in box)
        beside = away[figure].min() <= 1.3 * cross.arm + 3 and away[figure].max() < reach - 2
        if beside and cross.arm <= size <= 2.6 * cross.arm + 2:
            around = ndimage.binary_dilation(figure, iterations=3) & ~ndimage.binary_dilation(figure) & ~taken
            same_ink = np.quantile(values[figure], 0.75) >= cross.level - 0.02
            if same_ink and values[figure].mean() - values[around].mean() > 0.7 * cross.contrast:
                mask[window] |= figure


RemoveCalipersD = RemoveCalipersDict = RemoveCalipersd
