"""What a bundle's network looks at in a case: gradients to each channel of its image, drawn and counted.

After D. Laird (2019), Figure 7, which shows the gradient to each sequence of an MRI.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.data.utils import affine_to_spacing
from monai.transforms import Compose
from rich.table import Table

from pipelines import saliency
from pipelines.cases import load_case
from pipelines.errors import DataError, user_message
from pipelines.explain_picture import Saliency, draw
from pipelines.files import read_json, write_json

METHODS = {"vanilla": "gradient", "smooth": "smoothed gradient", "gradcam": "Grad-CAM"}
KNOWN = 5  # names that a message lists
PREDICTED, NOTHING = "the predicted lesion", "the whole image, since no lesion is predicted"
OUTLINE = "Orange: outline of the prediction. "
NOTE = (
    "Blue to white: how strongly the mean logit answers to a small change of a pixel; a column has one "
    "scale, which ends at the 99.5th percentile of its rows. It tells what the network is sensitive to, not "
    "whether it is right."
)


class Explained(NamedTuple):
    """What `explain` wrote.

    Attributes:
        picture: the PNG.
        record: what stands in the JSON file beside it.
    """

    picture: Path
    record: dict[str, Any]


class Subject(NamedTuple):
    """An image, or a slice of a volume, and what is predicted there.

    Attributes:
        image: float, (C, X, Y), on the network's device, prepared but for the bundle's `normalizing`.
        normalize: what is left to do, (C, X, Y) to (C, X, Y).
        prediction: bool, (K, X, Y), as the bundle refines it, on the same device.
        number: of the slice in the volume as prepared, from 0; None of a picture.
        spacing: distance of pixel centres along X and Y.
    """

    image: torch.Tensor
    normalize: Callable[[torch.Tensor], torch.Tensor]
    prediction: torch.Tensor
    number: int | None
    spacing: Sequence[float]


def explain(
    bundle: str,
    path: str | Path | None = None,
    case: str | None = None,
    out: str | Path | None = None,
    methods: Sequence[str] = (),
    layer: str | None = None,
    number: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Explained:
    """Draw what moves the mean logit over the lesion that a bundle's network predicts in a case.

    Preparation, network and weights are those of the bundle's `inference.json`. Of a volume the slice with
    most predicted lesion is taken, and the middle one where there is none; then the mean is over the whole
    image. Where the network has several outputs, it is over the predicted pixels of all of them.

    Args:
        bundle: its name, such as "dce_us".
        path: what its inference takes as `dataset_dir`; by default the bundle's own.
        case: one of those there; by default the first.
        out: the PNG to write, with a JSON file beside it; by default `runs/BUNDLE/explain/CASE_explain.png`.
        methods: of `METHODS`; by default all that fit: Grad-CAM wants a layer on a coarser grid.
        layer: of the network, for Grad-CAM; by default the last one on the coarsest grid.
        number: of the slice in the volume as prepared, from 0.
        seed: of the noise behind the smoothed gradient.
        options: values that replace the bundle's, by id, such as `checkpoint` and `run_name`.

    Raises:
        DataError: no such bundle, image, case, method, slice, layer or weights, or what inference refuses.
    """
    if unknown := sorted(set(methods) - METHODS.keys()):
        raise DataError(f"expected a method out of {', '.join(METHODS)}, found {unknown[0]!r}")
    if out is not None and Path(out).suffix.lower() != ".png":
        raise DataError(f"expected a picture to write whose name ends in .png, found {out}")
    given = {**(options or {}), **({} if path is None else {"dataset_dir": str(path)})}
    with _one_line_errors():
        parser = _inference(bundle, given)
        cases = parser.get_parsed_content("dataset").data
        place = _place(cases, case)
        parser.get_parsed_content("initialize")
        device = parser.get_parsed_content("device")
        network = parser.get_parsed_content("network_def").to(device, memory_format=torch.channels_last)
        subject = _subject(parser, network.eval(), cases[place], number)
    lesion = bool(subject.prediction.any())
    region = subject.prediction if lesion else torch.ones_like(subject.prediction)
    record: dict[str, Any] = {
        "bundle": bundle,
        "case": cases[place]["case"],
        "slice": subject.number,
        "network": type(network).__name__,
        "weights": str(parser.get_parsed_content("weights_file")),
        "image": list(subject.image.shape),
        "mean logit over": PREDICTED if lesion else NOTHING,
        "pixels": int(region.sum()),
        "methods": {},
    }
    shown = Saliency(
        subject.image.cpu().numpy(),
        subject.prediction.any(dim=0).cpu().numpy(),
        _channels(parser, len(subject.image)),
        spacing=subject.spacing,
        volume=subject.number is not None,
    )
    asked = subject.image, region, subject.normalize
    for method in METHODS if not methods else [one for one in METHODS if one in methods]:
        if method == "gradcam":
            chosen = _layer(network, subject.normalize(subject.image), layer, bool(methods))
            if chosen is None:
                continue
            record["methods"][method] = {"layer": chosen.name, "grid": list(chosen.grid)}
            found = saliency.activation_map(network, *asked, layer=chosen.name)
            shown.cam, shown.layer = found.cpu().numpy(), chosen.name
        else:
            if method == "smooth":
                found = saliency.smooth_gradient(network, *asked, seed=seed)
                settings = {"copies": saliency.SAMPLES, "noise": saliency.NOISE, "seed": seed}
            else:
                found, settings = saliency.gradient(network, *asked), {}
            shares = saliency.shares(found)
            record["methods"][method] = {"shares": dict(zip(shown.channels, shares, strict=True)), **settings}
            shown.gradients[METHODS[method]] = found.abs().cpu().numpy()
            shown.shares[METHODS[method]] = shares
    folder = Path("runs") / parser.get_parsed_content("experiment") / "explain"
    out = Path(out) if out else folder / f"{record['case']}_explain.png"
    draw(shown, out, _title(record), (OUTLINE if lesion else "") + NOTE)
    write_json(out.with_suffix(".json"), record)
    return Explained(out, record)


def table(record: Mapping[str, Any]) -> Table | None:
    """Each channel's share of the sum of |gradient|, for a terminal; None where there is nothing to share.

    Args:
        record: of `Explained`.
    """
    counted = {key: one["shares"] for key, one in record["methods"].items() if "shares" in one}
    if not counted or record["image"][0] == 1:
        return None
    made = Table("channel", title="share of the gradient", title_justify="left")
    for key in counted:
        made.add_column(METHODS[key], justify="right")
    for channel in next(iter(counted.values())):
        made.add_row(channel, *(f"{100 * shares[channel]:.1f} %" for shares in counted.values()))
    return made


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Let a `DataError` that MONAI has wrapped in errors of its own be one again."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        raise DataError(message) from error


def _inference(bundle: str, options: Mapping[str, Any]) -> ConfigParser:
    config = Path("bundles") / bundle / "inference.json"
    if not config.is_file():
        known = ", ".join(sorted(file.parent.name for file in Path("bundles").glob("*/inference.json")))
        raise DataError(
            f"expected one of the bundles in bundles/, {known or 'of which there is none here'}, found "
            f"{bundle!r}; run this where the folder bundles is"
        )
    parser = ConfigParser()
    parser.read_config(str(config))
    parser.resolve_macro_and_relative_ids()  # so that an id may lead into what another bundle lends
    parser.update(dict(options))
    return parser


def _place(cases: Sequence[Mapping[str, Any]], case: str | None) -> int:
    """Where a case stands among those that `dataset_dir` holds."""
    names = [str(one["case"]) for one in cases]
    if case is None:
        if len(names) > 1:
            print(f"{names[0]}, the first of {len(names)} cases; choose another by --case")
        return 0
    if case not in names:
        more = f" and {len(names) - KNOWN} more" if len(names) > KNOWN else ""
        raise DataError(f"expected a case out of {', '.join(names[:KNOWN])}{more}, found {case!r}")
    return names.index(case)


def _subject(
    parser: ConfigParser, network: torch.nn.Module, case: dict[str, Any], number: int | None
) -> Subject:
    """Predict a whole case as inference does, and take the slice to explain."""
    loading, preparing, normalizing, activating, refining = (
        parser.get_parsed_content(key)
        for key in ("loading", "preparing", "normalizing", "activating", "refining")
    )
    prepared = load_case(case, Compose(loading + preparing))
    spacing = affine_to_spacing(prepared["image"].affine, r=prepared["image"].ndim - 1).tolist()[:2]
    image = prepared["image"].as_tensor().to(next(network.parameters()).device, torch.float32)

    def normalize(image: torch.Tensor) -> torch.Tensor:
        return Compose(normalizing)({"image": image})["image"]

    inferer = parser.get_parsed_content("inferer")
    if hasattr(inferer, "progress"):
        inferer.progress = sys.stderr.isatty()
    with torch.no_grad():
        logits = inferer(normalize(image)[None], network)[0]
    prediction = Compose(activating + refining)({"pred": logits})["pred"] > 0.5
    if image.ndim == 3:
        if number is not None:
            raise DataError(f"expected no --slice of a picture, found {number}; leave it out")
        return Subject(image, normalize, prediction, None, spacing)
    count = image.shape[-1]
    if number is None:
        areas = prediction.sum(dim=(0, 1, 2))
        number = int(areas.argmax()) if areas.any() else count // 2
    if not 0 <= number < count:
        raise DataError(f"expected --slice from 0 to {count - 1}, found {number}")
    return Subject(image[..., number], normalize, prediction[..., number], number, spacing)


def _channels(parser: ConfigParser, count: int) -> list[str]:
    """What the channels of the network's image are called."""
    metadata = read_json(Path(parser.get_parsed_content("bundle_root")) / "metadata.json")
    names = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    names = [names[key] for key in sorted(names, key=int)]
    if len(names) != count:  # a network of some of the bundle's images
        names = parser.get_parsed_content("model_settings").get("inputs", [])
    return list(names) if len(names) == count else [f"channel {index}" for index in range(count)]


def _layer(
    network: torch.nn.Module, image: torch.Tensor, name: str | None, required: bool
) -> saliency.Layer | None:
    """The layer for Grad-CAM, or None where none fits and Grad-CAM was not asked for by its name."""
    layers = saliency.features(network, image)
    if name is not None:
        found = next((layer for layer in reversed(layers) if layer.name == name), None)
        if found is None:
            names = ", ".join(layer.name for layer in layers[-KNOWN:])
            raise DataError(f"expected a layer that gives features, such as {names}, found {name!r}")
        return found
    found = saliency.coarsest(layers, tuple(image.shape[1:]))
    if found is None:
        message = f"expected a layer of {type(network).__name__} on a coarser grid for Grad-CAM, found none"
        if required:
            raise DataError(f"{message}; name one by --layer, or choose another method")
        print(f"{message}; left out")
    return found


def _title(record: Mapping[str, Any]) -> str:
    """The line above the picture, without what may name a patient."""
    place = "" if record["slice"] is None else f", slice {record['slice']}"
    pixels = f" ({record['pixels']:,} pixels)"
    return (
        f"{record['bundle']}, {record['network']}{place}: what moves the mean logit over "
        f"{record['mean logit over']}{pixels}"
    )
