"""The README's tables of networks: their papers, what they cost, how long they take, what optimizing gains.

python -m pipelines.table            # writes it into README.md
python -m pipelines.table --measured bench/networks.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from networks import Summary, summarize
from pipelines.errors import DataError, one_line_errors
from pipelines.files import read_json, written_whole
from pipelines.report import markdown

RUNTIMES = ("eager", "optimized", "optimized, keeping memory", "ONNX Runtime", "OpenVINO")
"""Those of `pipelines.latency` that have a column."""

FEW = 5
"""Runs that a figure without a star has at least."""


def table(summaries: Sequence[Summary], measured: Mapping[str, Any]) -> str:
    """The table in Markdown, with a line on what its latencies were measured on.

    Args:
        summaries: the networks, in the order of the table.
        measured: what `pipelines.bench_networks` wrote; networks of others in it end the table.

    Raises:
        DataError: a network was never measured, or has changed since.
    """
    records = {record["title"]: record for record in measured["networks"]}
    rows = []
    for summary in summaries:
        record = records.get(summary.title)
        if record is None or record["parameters"] != summary.parameters:
            found = "none" if record is None else f"one with {record['parameters']:,}"
            raise DataError(
                f"expected a latency of {summary.title} with {summary.parameters:,} parameters, "
                f"found {found}; measure it with `make bench-networks OUT=docs`"
            )
        cost = {"gmacs": summary.gmacs, "image_size": summary.image_size}
        rows.append(_row(summary.title, summary.paper, summary.published, {**record, **cost}))
    for record in measured["networks"]:
        if not record["ours"]:
            rows.append(_row(record["title"], "", "", record))
    heading = ["network", "paper", "parameters published", "here", "image", "GMAC"]
    heading += [f"{runtime}, ms" for runtime in RUNTIMES]
    settings = measured["settings"]
    rates = ", ".join(f"{rate:.0f} as {name}" for name, rate in settings["matmul_gmacs_per_second"].items())
    note = (
        f"Latency: median milliseconds for one random image, float32, {settings['threads']} threads of one "
        f"{settings['cpu']} processor ({settings['instructions']}), whose matrix product reaches {rates} in "
        f"GMAC/s; torch {settings['torch']}, ONNX Runtime {settings['onnxruntime']}, OpenVINO "
        f"{settings['openvino']}; allocator: {settings['allocator']}. *Fewer than {FEW} runs."
    )
    return f"{markdown(heading, rows)}\n\n{note}"


def _row(name: str, paper: str, published: str, record: Mapping[str, Any]) -> list[str]:
    latency = record["latency"].get("1", {})
    cells = [
        name,
        paper or "-",
        published or "-",
        f"{record['parameters']:,}",
        "x".join(map(str, record["image_size"])),
        f"{record['gmacs']:,.2f}",
    ]
    return cells + [_milliseconds(latency.get(runtime, {})) for runtime in RUNTIMES]


def _milliseconds(timing: Mapping[str, Any]) -> str:
    if "median" not in timing:
        return timing.get("error", "-")
    text = f"{timing['median']:,.0f}" if timing["median"] >= 100 else f"{timing['median']:.1f}"
    return text if timing["runs"] >= FEW else f"{text}*"


def gains(measured: Mapping[str, Any]) -> str:
    """What `optimize_for_inference` gains, in Markdown, for the networks that were run in turns."""
    rows = []
    for record in measured["networks"]:
        size = "x".join(map(str, record["image_size"]))
        for setting, times in record.get("optimized", {}).items():
            lower, upper = times["quartiles"]
            ratio = f"{times['ratio']:.2f} ({lower:.2f} to {upper:.2f})"
            row = [record["title"], size, setting, f"{times['eager']:,.0f}", f"{times['optimized']:,.0f}"]
            rows.append([*row, ratio, times["pairs"]])
    heading = [
        "network",
        "image",
        "allocator",
        "eager, ms",
        "optimized, ms",
        "times faster (quartiles)",
        "pairs",
    ]
    return markdown(heading, rows)


def put(name: str, text: str, page: str) -> str:
    """A page with a table between the two marks of its name.

    Raises:
        DataError: the page does not have both marks, in their order.
    """
    begin, end = f"<!-- {name}: written by `make table` -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise DataError(f"expected the lines {begin} and {end} in the page, found none; put them back")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def update(page: str, summaries: Sequence[Summary], measured: Mapping[str, Any]) -> str:
    """A page with both tables up to date."""
    return put("optimized", gains(measured), put("networks", table(summaries, measured), page))


def main() -> None:
    """Write the tables into the README."""
    one_line_errors()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, default=Path("docs/networks.json"), metavar="FILE")
    parser.add_argument("--page", type=Path, default=Path("README.md"), metavar="FILE")
    arguments = parser.parse_args()
    before = arguments.page.read_text(encoding="utf-8")
    page = update(before, summarize(), read_json(arguments.measured))
    with written_whole(arguments.page) as beside:
        beside.write_text(page, encoding="utf-8")
    print(f"{arguments.page}: the tables of networks are up to date")


if __name__ == "__main__":
    main()
