import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SHARED
from tests.transforms.panel_frames import AMBER, Frame, Layout, bmode, draw
from transforms.panel_search import PanelError, Panels, find_panels

REAL = SHARED / "ceus"

LAYOUTS = {
    "bare": Layout(),
    "right": Layout(side="right"),
    "header": Layout(header=40, margin=12),
    "header on two lines, right": Layout(side="right", header=60, footer=24, margin=4, gap=20),
    "wide margins and gap": Layout(margin=90, gap=60, header=30, text=120),
    "touching": Layout(gap=0, header=40, margin=12),
    "one column between": Layout(gap=1, side="right"),
    "rulers": Layout(ruler=True, header=40),
    "colour bars on the images": Layout(bar="inside", logo=True, side="right"),
    "colour bars beside them": Layout(bar="outside", gap=30, margin=30, ruler=True),
    "line and label": Layout(line=True, label=True, gap=8, header=40, margin=4),
    "all, right": Layout("right", "amber", (330, 360), 60, 24, 12, 6, True, "inside", True, True, True, 120),
    "dark": Layout(contrast="dark", header=40, margin=12),
    "dark, right": Layout(contrast="dark", side="right", ruler=True, bar="inside", logo=True),
    "dark, touching": Layout(contrast="dark", gap=0, margin=20),
    "dark, all": Layout("left", "dark", (330, 360), 60, 24, 12, 6, True, "inside", True, True, True, 120),
    "dark grey": Layout(contrast="dark grey", header=40, margin=40),
    "dark grey, touching, right": Layout(contrast="dark grey", side="right", gap=0, ruler=True),
    "small": Layout(size=(256, 256), header=30, ruler=True, margin=4),
    "high": Layout(size=(420, 300), side="right", header=40, bar="inside", logo=True, margin=20),
    "low, dark": Layout(size=(300, 400), contrast="dark", header=30, ruler=True),
    "large": Layout(size=(600, 560), header=60, margin=20, ruler=True, bar="inside", label=True),
    "large, dark, right": Layout(size=(600, 560), contrast="dark", side="right", header=60, logo=True),
    "compressed": Layout(header=40, margin=12, ruler=True, bar="inside", jpeg=85),
    "compressed, dark": Layout(
        contrast="dark", side="right", header=40, margin=12, gap=16, logo=True, jpeg=85
    ),
    "on grey": Layout(header=40, margin=20, gap=10, background=35, ruler=True),
    "on grey, dark": Layout(contrast="dark", side="right", header=40, margin=20, gap=10, background=35),
    "black with all that both show": Layout(contrast="black", margin=20, ruler=True, bar="inside", logo=True),
    "black, right": Layout(contrast="black", side="right", margin=40, gap=12, ruler=True, logo=True),
}


def off(found: Panels, frame: Frame) -> int:
    """The largest distance of any side of both boxes, in pixels."""

    def sides(boxes):
        boxes = np.array(boxes)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])

    return int(np.abs(sides(found[:2]) - sides((frame.contrast, frame.bmode))).max())


@pytest.mark.parametrize(("seed", "layout"), list(enumerate(LAYOUTS.values())), ids=LAYOUTS.keys())
def test_panels_are_found_to_within_two_pixels(seed, layout):
    frame = draw(layout, seed)
    found = find_panels(frame.image)
    assert off(found, frame) <= 2
    assert found.contrast[2:] == found.bmode[2:]
    assert 0.5 <= found.sure <= 1


@pytest.mark.parametrize("contrast", ["amber", "dark"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_sectors_are_found_to_within_three_percent(contrast, side):
    layout = Layout(side, contrast, (400, 440), header=40, margin=10, ruler=True, logo=True, sector=True)
    frame = draw(layout)
    found = find_panels(frame.image)
    assert off(found, frame) <= 0.03 * 400
    shift = np.subtract(found.contrast, found.bmode)
    assert np.abs(shift - np.subtract(frame.contrast, frame.bmode)).max() <= 2


def test_scale_dtype_and_opacity_do_not_matter():
    image = draw(Layout(header=40, ruler=True)).image
    found = find_panels(image)
    opaque = np.concatenate([image, np.full_like(image[:1], 255)])
    assert find_panels(torch.from_numpy(image.copy()).float() / 255) == found
    assert find_panels(opaque) == found
    grey = find_panels(draw(Layout(contrast="dark grey")).image.max(0, keepdims=True))
    assert grey[:2] == find_panels(draw(Layout(contrast="dark grey")).image)[:2]


def test_a_maximum_over_a_clip_shows_what_a_frame_before_the_bubbles_does_not():
    before = draw(Layout(contrast="black", margin=30), seed=3)
    during = draw(Layout(margin=30), seed=4)
    with pytest.raises(PanelError):
        find_panels(before.image)
    assert off(find_panels(np.maximum(before.image, during.image)), before) <= 2


def single(kind):
    layout = Layout(header=40, margin=30, ruler=True, bar="inside", logo=True)
    frame = draw(layout)
    top, left, height, width = getattr(frame, "contrast" if kind == "bmode" else "bmode")
    image = frame.image.copy()
    image[:, top : top + height, left - 6 : left + width + 6] = 0
    return image


def two_bmode(gap):
    layout = Layout(gap=gap, header=40, margin=12, ruler=True, bar="inside")
    frame = draw(layout)
    top, left, height, width = frame.contrast
    image = frame.image.copy()
    image[:, top : top + height, left : left + width] = bmode(np.random.default_rng(5), layout.size)
    return image


REFUSED = {
    "one B-mode panel": lambda: single("bmode"),
    "one contrast panel": lambda: single("contrast"),
    "B-mode over the whole frame": lambda: np.repeat(bmode(np.random.default_rng(1), (300, 400))[None], 3, 0),
    "two B-mode panels": lambda: two_bmode(6),
    "two B-mode panels that touch": lambda: two_bmode(0),
    "two contrast panels": lambda: draw(Layout()).image[:, :, :360][:, :, np.r_[0:360, 0:360]],
    "a black panel and nothing to find it by": lambda: draw(Layout(contrast="black", margin=40)).image,
    "one above the other": lambda: draw(Layout(header=40)).image.transpose(0, 2, 1),
    "nothing": lambda: np.zeros((3, 300, 600), np.uint8),
    "a colour bar": lambda: np.broadcast_to(
        np.linspace(255, 0, 300)[:, None] * np.ones(600) * AMBER[:, None, None], (3, 300, 600)
    ),
    "noise": lambda: np.random.default_rng(0).integers(0, 255, (3, 300, 600)),
}


@pytest.mark.parametrize("image", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_two_panels_is_refused_and_the_boxes_asked_for(image):
    with pytest.raises(
        PanelError, match=r'sure, found .*; give both in panels.json: {"contrast": \[top, left'
    ):
        find_panels(image())


@pytest.mark.parametrize("shape", [(300, 600), (2, 300, 600), (3, 20, 600), (1, 3, 300, 600)])
def test_another_shape_is_an_error_that_names_it(shape):
    with pytest.raises(ValueError, match=rf"\(C, H, W\) with 1, 3 or 4 channels .* found \({shape[0]}, "):
        find_panels(np.zeros(shape, np.uint8))


@pytest.mark.skipif(not REAL.exists(), reason="the real frames are not here")
class TestRealFrames:
    # Measured by hand in the enlarged picture: of the B-mode panel all four sides, of the contrast panel its
    # frame line, its colour bar and the dots in the middle of both, which lie 365 columns apart.
    FRAME = Frame(np.zeros(0), (9, 1, 332, 360), (9, 366, 332, 360))

    def image(self):
        return np.asarray(Image.open(REAL / "dual_panel.png")).transpose(2, 0, 1)

    def test_dual_panel(self):
        assert off(find_panels(self.image()), self.FRAME) <= 2

    def test_mirrored_and_with_its_panels_swapped(self):
        image = self.image()
        (top, left, height, width), other = self.FRAME.contrast, self.FRAME.bmode[1]
        mirror = [(top, image.shape[2] - x - width, height, width) for x in (left, other)]
        assert off(find_panels(image[:, :, ::-1]), Frame(image, *mirror)) <= 2
        swapped = np.concatenate([image[:, :, 364:], image[:, :, :364]], axis=2)
        boxes = [(top, x, height, width) for x in (image.shape[2] - 364 + left, other - 364)]
        assert off(find_panels(swapped), Frame(swapped, *boxes)) <= 2

    @pytest.mark.parametrize("half", [np.s_[:, :, :364], np.s_[:, :, 364:]])
    def test_either_half_alone_is_refused(self, half):
        with pytest.raises(PanelError):
            find_panels(self.image()[half])

    def test_frames_of_one_panel_are_refused(self):
        for file in sorted((REAL / "frames28").glob("ceus*.png")):
            with pytest.raises(PanelError):
                find_panels(np.asarray(Image.open(file)).transpose(2, 0, 1))
