from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import torch
from monai.networks.nets import BasicUNet
from rich.console import Console

from networks import count_parameters
from pipelines import bench_highres
from pipelines.bench_highres import NETWORKS, measure, measure_apart

OURS = "HighResUNet, separable, residual"
TINY = "MONAI BasicUNet, tiny"


@pytest.fixture
def tiny(monkeypatch):
    networks = {TINY: lambda: BasicUNet(2, 1, 1, features=(4, 4, 8, 8, 8, 4))}
    monkeypatch.setattr(bench_highres, "NETWORKS", networks)


@pytest.mark.parametrize(
    ("title", "parameters"),
    [("HighResUNet, dense", 37_417_841), ("HighResUNet, separable", 4_649_098), (OURS, 5_350_026)],
)
def test_ours_are_the_papers(title, parameters):
    with torch.device("meta"):
        assert count_parameters(NETWORKS[title]()) == parameters


def test_monais_have_our_widths_at_each_size():
    image = torch.empty(1, 1, 128, 128, device="meta")
    for title, levels in (
        ("MONAI BasicUNet, 5 levels, 16 to 256", 5),
        ("MONAI DynUNet, 7 levels, 16 to 1024", 7),
    ):
        with torch.device("meta"):
            network = NETWORKS[title]()
        widths = {}

        def keep(module, inputs, output, widths=widths):
            widths[output.shape[-1]] = max(widths.get(output.shape[-1], 0), output.shape[1])

        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.out_channels > 1:
                module.register_forward_hook(keep)
        assert network(image).shape == image.shape
        expected = {128 // 2**level: 16 * 2**level for level in range(levels)}
        assert {side: widths[side] for side in expected} == expected
        assert set(widths) == set(expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_step_is_measured(tiny, precision, checkpointed):
    found = measure(TINY, precision, checkpointed, size=64, steps=2)
    assert found["seconds"] > 0
    assert found["whole"] >= found["memory"] >= 0


def test_a_network_is_measured_in_a_process_of_its_own():
    found = measure_apart(50, 1, True, title=OURS, precision="float32", checkpointed=True, size=128, steps=1)
    # Weights, gradients and two moments of 5.35 million parameters are 82 MiB; imports are not counted.
    assert 0.08 < found["memory"] < 0.6
    assert found["memory"] + 0.2 < found["whole"] < 2


def test_a_process_that_may_not_have_the_memory_says_so():
    found = measure_apart(
        0.3, 1, False, title=OURS, precision="float32", checkpointed=False, size=512, steps=1
    )
    assert found == {"error": "not enough memory"}


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (-9, "", "not enough memory"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "not enough memory"),
        (1, "x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to", "not enough memory"),
        (1, "Traceback\nKeyError: 'x'\n", "KeyError: 'x'"),
        (3, "", "ended without a word"),
    ],
)
def test_a_process_that_dies_leaves_its_reason(monkeypatch, code, errors, expected):
    done = subprocess.CompletedProcess([], code, "", errors)
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)
    assert measure_apart(1, 1, False, title=TINY) == {"error": expected}


def test_the_tables_tell_what_is_saved_and_what_fits(tiny, tmp_path, monkeypatch):
    steps = {
        False: {"memory": 8.5, "whole": 9.0, "seconds": 10.0},
        True: {"memory": 3.4, "whole": 3.9, "seconds": 13.0},
    }

    def apart(limit, threads, keep_freed, *, precision, checkpointed, **setting):
        dies = precision == "bfloat16" and not checkpointed
        return {"error": "not enough memory"} if dies else steps[checkpointed]

    monkeypatch.setattr(bench_highres, "measure_apart", apart)
    found = bench_highres.run([TINY], ["float32", "bfloat16"], 64, 2, 20, True, tmp_path / "highres.json")
    assert json.loads((tmp_path / "highres.json").read_text()) == found
    assert found["settings"]["allocator"] == "keeping freed memory"
    assert found["settings"]["image"] == "1x64x64, batch 1"
    console = Console(width=200, record=True, file=io.StringIO())
    for table in bench_highres.tables(found):
        console.print(table)
    rows = [line.split("│")[3:] for line in console.export_text().splitlines() if TINY in line]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert cells[0] == ["8.50", "10.00", "12 24", "3.40", "13.00", "8 12 24", "60%", "+30%"]
    assert cells[1] == ["not enough memory", "", "", "3.40", "13.00", "8 12 24", "", ""]


def test_an_unknown_network_is_an_error_that_lists_them(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_highres", "--only", "NoSuchNet"])
    with pytest.raises(SystemExit) as ended:
        bench_highres.main()
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "got NoSuchNet" in errors
    assert OURS in errors
