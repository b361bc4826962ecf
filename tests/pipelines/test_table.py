from __future__ import annotations

import copy
import sys

import pytest

from networks import summarize
from pipelines import table
from pipelines.errors import DataError
from pipelines.files import read_json, write_json
from tests.conftest import ROOT

SETTINGS = {
    "cpu": "Example",
    "threads": 2,
    "instructions": "AVX2",
    "torch": "2.0",
    "onnxruntime": "1.2",
    "openvino": "3.4",
    "allocator": "none",
    "matmul_gmacs_per_second": {"matmul": 99.6},
}


@pytest.fixture(scope="module")
def summaries():
    return [s for s in summarize() if s.network in ("PlainUNet", "ReducedUNet")]


@pytest.fixture
def measured(summaries):
    def record(title, parameters, gmacs, size, ours=True):
        latency = {
            "1": {
                "eager": {"median": 213.4, "runs": 5},
                "optimized": {"median": 43.21, "runs": 4},
                "OpenVINO": {"error": "no"},
            }
        }
        return {
            "title": title,
            "parameters": parameters,
            "gmacs": gmacs,
            "image_size": size,
            "ours": ours,
            "latency": latency,
        }

    optimized = {"eager": 1500.4, "optimized": 700.2, "ratio": 2.14, "quartiles": [2.0, 2.25], "pairs": 8}
    ours = [record(s.title, s.parameters, s.gmacs, list(s.image_size)) for s in summaries]
    ours[0]["optimized"] = {"keeping memory": optimized}
    return {"settings": SETTINGS, "networks": [*ours, record("MONAI UNet", 7, 1.0, [3, 9, 9], ours=False)]}


def test_a_row_has_the_paper_the_counts_and_the_latencies(summaries, measured):
    text = table.table(summaries, measured)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    assert rows[0][:6] == ["network", "paper", "parameters published", "here", "image", "GMAC"]
    assert rows[2] == [
        "PlainUNet",
        "Li et al., ISBI 2021",
        "17,267,393",
        "17,267,393",
        "3x256x256",
        "39.98",
        "213",
        "43.2*",
        "-",
        "-",
        "no",
    ]
    assert rows[-1][:4] == ["MONAI UNet", "-", "-", "7"]
    assert "2 threads of one Example processor (AVX2), whose matrix product reaches 100 as matmul" in text


def test_a_network_that_was_not_measured_is_an_error(summaries, measured):
    del measured["networks"][0]
    with pytest.raises(
        DataError, match="latency of PlainUNet with 17,267,393 parameters, found none; measure"
    ):
        table.table(summaries, measured)


def test_a_network_that_changed_since_is_an_error(summaries, measured):
    changed = copy.deepcopy(measured)
    changed["networks"][0]["parameters"] += 1
    with pytest.raises(DataError, match="found one with 17,267,394; measure it"):
        table.table(summaries, changed)


def test_gains_are_listed_for_the_networks_that_were_compared(measured):
    lines = table.gains(measured).splitlines()
    assert len(lines) == 3
    assert lines[2] == ("| PlainUNet | 3x256x256 | keeping memory | 1,500 | 700 | 2.14 (2.00 to 2.25) | 8 |")


BEGIN, END = "<!-- networks: written by `make table` -->", "<!-- /networks -->"


def test_the_table_takes_the_place_of_the_one_before():
    page = f"top\n{BEGIN}\nold\n{END}\nbottom\n"
    once = table.put("networks", "| new |", page)
    assert once == f"top\n{BEGIN}\n\n| new |\n\n{END}\nbottom\n"
    assert table.put("networks", "| new |", once) == once


@pytest.mark.parametrize("page", ["no marks", BEGIN, f"{END} {BEGIN}"])
def test_a_page_without_its_marks_is_an_error(page):
    with pytest.raises(DataError, match="expected the lines"):
        table.put("networks", "| new |", page)


def test_the_readme_has_the_table_of_the_committed_figures():
    measured = read_json(ROOT / "docs" / "networks.json")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.update(page, summarize(), measured) == page, "run `make table`"


def test_command_writes_the_page(tmp_path, monkeypatch, summaries, measured, capsys):
    monkeypatch.setattr(table, "summarize", lambda: summaries)
    write_json(tmp_path / "networks.json", measured)
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}{BEGIN}{END}".replace("networks", "optimized", 2))
    monkeypatch.setattr(
        sys, "argv", ["table", "--measured", str(tmp_path / "networks.json"), "--page", str(page)]
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    table.main()
    assert "PlainUNet" in page.read_text()
    assert "up to date" in capsys.readouterr().out
