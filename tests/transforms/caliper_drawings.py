"""Speckle with calipers drawn on it, whose pixels are known."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

BLUE, YELLOW, WHITE = (120, 205, 255), (255, 255, 0), (255, 255, 255)


def speckle(shape=(300, 380), seed=0, mean=90.0):
    """Log-compressed speckle over bands of tissue, a dark lesion amid them; float64, 0 to 255."""
    rng = np.random.default_rng(seed)
    real, imaginary = (ndimage.gaussian_filter(rng.standard_normal(shape), (0.8, 1.3)) for _ in range(2))
    envelope = np.hypot(real, imaginary)
    decibels = 20 * np.log10(envelope / envelope.mean() + 1e-3)
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    bands = 25 * np.sin(9 * y + 2 * np.sin(4 * x + seed))
    lesion = -45 * (((x - 0.5) / 0.22) ** 2 + ((y - 0.5) / 0.2) ** 2 < 1)
    return np.clip(mean + bands + ndimage.gaussian_filter(lesion, 2) + 5 * decibels, 0, 255)


def fascia(image, rows=(0.3, 0.62, 0.8), thickness=1.2):
    """Bright, thin, slightly curved lines and bright spots, as tissue has them."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(1)
    for number, row in enumerate(rows):
        course = row * height + 0.06 * number * x + 4 * np.sin(x / 40 + number)
        facing = np.clip(0.7 + 0.5 * np.sin(x / 25 + 2 * number), 0, 1)
        image = image + 170 * facing * np.exp(-(((y - course) / thickness) ** 2))
    for _ in range(40):
        centre, size = rng.uniform((0, 0), image.shape), rng.uniform(0.8, 2.5)
        far = (y - centre[0]) ** 2 + ((x - centre[1]) / 1.6) ** 2
        image = image + rng.uniform(80, 200) * np.exp(-far / (2 * size**2))
    return np.clip(image, 0, 255)


def labels(image):
    """A header, a label on the tissue, a ruler of ticks and a grey bar."""
    picture = Image.fromarray(np.rint(image).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    draw.rectangle((0, 0, width, 16), fill=0)
    draw.text((3, 2), "RIGHT BREAST 12:00  L12-5  MI 0.9", 200, ImageFont.load_default(11))
    draw.text((30, height - 40), "RT AXILLA", 255, ImageFont.load_default(15))
    draw.rectangle((width - 24, 17, width, height), fill=0)
    for tick in range(20, height, 12):
        draw.line((width - 23, tick, width - 20, tick), 230)
    for row in range(30, 130):
        draw.line((width - 12, row, width - 5, row), 255 - 2 * (row - 30))
    return np.asarray(picture).astype(float)


def plus(drawn, y, x, arm, width):
    """A plus sign whose arms are `arm` pixels long beside the middle stroke."""
    low, high = (width - 1) // 2, width // 2
    drawn[y - low : y + high + 1, x - low - arm : x + high + arm + 1] = True
    drawn[y - low - arm : y + high + arm + 1, x - low : x + high + 1] = True


def x_sign(drawn, y, x, arm, width):
    for k in range(-arm, arm + 1):
        for w in range(width):
            drawn[y + k, x + k + w] = drawn[y + k, x - k + w] = True


def dots(drawn, start, end, pitch, size):
    """Square dots in a straight row."""
    start, end = np.array(start, float), np.array(end, float)
    length = np.linalg.norm(end - start)
    for t in np.arange(0, length, pitch):
        y, x = np.rint(start + (end - start) * t / length).astype(int)
        drawn[y : y + size, x : x + size] = True


def dashes(drawn, start, end, dash, gap, width):
    start, end = np.array(start, float), np.array(end, float)
    length = np.linalg.norm(end - start)
    for t in np.arange(0, length, 0.5):
        if t % (dash + gap) < dash:
            y, x = np.rint(start + (end - start) * t / length).astype(int)
            drawn[y : y + width, x : x + width] = True


def number(drawn, y, x, text, height):
    """A figure of the given height about, its upper left corner at (y, x)."""
    picture = Image.new("L", drawn.shape[::-1])
    ImageDraw.Draw(picture).text((x, y), text, 255, ImageFont.load_default(height))
    drawn |= np.asarray(picture) > 127


def measured(shape, sign=plus, arm=5, width=2, line=dots, line_size=(3.5, 1), numbers=0):
    """The two diameters of the lesion of `speckle`, as a machine draws them; bool, `shape`."""
    drawn = np.zeros(shape, bool)
    height, wide = shape
    middle = np.array([height, wide]) // 2
    for index, axis in enumerate((np.array([0.03, 0.21]), np.array([0.18, -0.04]))):
        ends = [np.rint(middle + side * axis * (height, wide)).astype(int) for side in (-1, 1)]
        for y, x in ends:
            sign(drawn, y, x, arm, width)
        if line:
            line(drawn, *ends, *line_size)
        if numbers:
            y, x = ends[0]
            number(drawn, y - arm - numbers, x + arm + 2, str(index + 1), numbers)
    return drawn


def burned(grey, drawn, colour=WHITE):
    """Grey tissue and coloured ink as an image, uint8 (3, H, W)."""
    rgb = np.repeat(np.rint(grey)[None], 3, axis=0).astype(np.uint8)
    rgb[:, drawn] = np.array(colour, np.uint8)[:, None]
    return rgb


def score(found, drawn):
    """Precision and recall per pixel, a pixel's distance allowed."""
    near = np.ones((3, 3))
    precision = (found & ndimage.binary_dilation(drawn, near)).sum() / max(found.sum(), 1)
    recall = (drawn & ndimage.binary_dilation(found, near)).sum() / drawn.sum()
    return precision, recall
