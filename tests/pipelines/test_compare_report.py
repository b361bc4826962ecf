from __future__ import annotations

import base64
import csv
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from pipelines import compare_report
from pipelines.compare_groups import grouped
from tests.pipelines.test_compare_groups import run
from tests.pipelines.tracked_runs import client_of, log, uri_of


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    client = client_of(folder)
    for seed, dice in enumerate(([0.9, 0.8, 0.7], [0.9, 0.9, 0.9])):
        log(client, folder / "written", dice, network="Light & small", seed=seed)
    log(client, folder / "written", [0.1, 0.2, 0.6])
    log(client, folder / "written", [0.5], seed=7, status="FAILED")
    return folder


@pytest.fixture(scope="module")
def made(store):
    """The folder of a report, and what was printed."""
    text = io.StringIO()
    page = compare_report.make(
        "dce_us", store / "out", uri_of(store), console=Console(file=text, width=170, highlight=False)
    )
    assert page == store / "out" / "report.html"
    return store / "out", text.getvalue()


def test_all_of_it_is_written(made):
    folder, printed = made
    tables = ["cases.csv", "comparisons.csv", "table.csv", "table.md", "latency.json", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*tables, *compare_report.PICTURES])
    assert "Against Light & small, the best" in printed
    assert "- 1 run failed, left out" in printed
    assert f"report: {folder / 'report.html'}" in printed


def test_tables_for_programs_have_plain_numbers(made):
    folder, _ = made
    first, second = table(folder / "table.csv")
    assert (first["label"], second["label"]) == ("Light & small", "Plain")
    assert float(first["dice_mean"]) == pytest.approx(0.85)
    assert float(first["dice_std"]) == pytest.approx(0.1 / 2**0.5)
    assert (second["dice_std"], second["runs"], second["cases"]) == ("", "1", "3")
    assert float(first["latency_ms"]) > 0
    dice = {(row["network"], row["case"]): float(row["dice"]) for row in table(folder / "cases.csv")}
    assert len(dice) == 6
    assert dice["Light & small", "Doe-2"] == pytest.approx(0.8)
    assert dice["Plain", "Doe-0"] == 0.1
    (tested,) = table(folder / "comparisons.csv")
    assert (tested["first"], tested["second"], tested["patients"]) == ("Light & small", "Plain", "3")
    assert float(tested["difference"]) == pytest.approx(0.55)


def test_the_page_needs_no_other_file_and_names_no_patient(made):
    folder, _ = made
    page = (folder / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    pictures = [base64.b64decode(one.removeprefix("data:image/png;base64,")) for one in sources]
    names = ("pareto.png", "curves.png", "cases.png")
    assert pictures == [(folder / name).read_bytes() for name in names]
    assert "href=" not in page and "url(" not in page
    assert "<td>Light &amp; small</td>" in page and "0.850 ± 0.071" in page
    words = re.sub(r'src="[^"]*"', "", page)  # a picture's letters may spell anything
    for text in (words, (folder / "table.md").read_text(encoding="utf-8")):
        assert "Doe" not in text
        assert "1 run failed, left out" in text


def test_markdown_has_the_tables(made):
    folder, _ = made
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    (row,) = (
        line for line in lines if line.startswith("| Light & small | 760 | 0.50 | 2 x 1 | 0.850 ± 0.071 |")
    )
    (heading,) = (line for line in lines if line.startswith("| network | parameters |"))
    assert row.count("|") == heading.count("|")
    assert any(line.startswith("| Plain | 3 | 0.550 (") for line in lines)


def test_a_picture_without_figures_is_not_left_from_before(made, store, tmp_path):
    (tmp_path / "pareto.png").write_bytes(b"old")
    text = io.StringIO()
    console = Console(file=text, width=170)
    compare_report.make("dce_us", tmp_path, uri_of(store), grid=True, latency=False, console=console)
    assert not (tmp_path / "pareto.png").exists() and not (tmp_path / "latency.json").exists()
    assert "pareto" not in (tmp_path / "table.md").read_text()
    assert float(table(tmp_path / "table.csv")[0]["dice_mean"]) == pytest.approx(0.425)
    assert "on the network's grid" in text.getvalue()


def test_many_groups_are_all_in_the_table_and_the_best_in_pictures(tmp_path, monkeypatch):
    groups, _ = grouped([run([1 - number / 20], network=f"N{number:02}") for number in range(15)], ())
    drawn = []
    monkeypatch.setattr(compare_report.compare_pictures, "table", lambda *of: drawn.append(of))
    page = compare_report.write(groups, [], tmp_path, "dce_us").read_text(encoding="utf-8")
    assert all(f"<td>N{number:02}</td>" in page for number in range(15))
    assert "pictures show the best 12 of 15 rows" in page
    assert [row[0] for row in drawn[0][1]] == [f"N{number:02}" for number in range(12)]
    assert (tmp_path / "comparisons.csv").read_text().startswith("first,second,patients,difference,low,high")


def test_pictures_can_be_looked_at(made):
    folder, _ = made
    for name in compare_report.PICTURES:
        with Image.open(folder / name) as picture:
            picture.verify()
