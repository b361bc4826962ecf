from __future__ import annotations

import re

import matplotlib.image
import pytest

from pipelines import pareto
from pipelines.errors import DataError
from pipelines.pareto import Point


def test_front_holds_what_nothing_betters():
    points = [
        Point("small and slow", 1, 9),
        Point("as small, slower", 1, 10),
        Point("middle", 3, 5),
        Point("larger, no faster", 4, 5),
        Point("large and slow", 8, 8),
        Point("large and fast", 9, 1),
    ]
    assert [p.title for p in pareto.front(points)] == ["small and slow", "middle", "large and fast"]
    assert pareto.front([]) == []


def test_front_does_not_depend_on_the_order():
    points = [Point(str(i), x, y) for i, (x, y) in enumerate([(5, 5), (1, 7), (2, 2), (9, 1), (3, 3)])]
    assert pareto.front(points) == pareto.front(points[::-1])


@pytest.fixture
def panels():
    return {
        "256x256": [Point("NetA", 2e6, 80.0), Point("NetB", 17e6, 250.0, ours=False)],
        "1536x1536": [Point("NetC", 5e6, 2200.0)],
    }


def test_picture_names_every_network_and_axis(panels, tmp_path):
    pareto.draw(panels, tmp_path / "plot.svg", "parameters", "milliseconds", title="2 threads")
    text = (tmp_path / "plot.svg").read_text()
    for word in ("NetA", "NetB", "NetC", "256x256", "1536x1536", "parameters", "milliseconds", "2 threads"):
        assert word in text
    assert re.search(r">\s*10 M\s*<", text)


def test_same_points_make_the_same_files(panels, tmp_path):
    for kind in ("png", "svg"):
        files = [tmp_path / f"{name}.{kind}" for name in ("one", "two")]
        for file in files:
            pareto.draw(panels, file, "parameters", "milliseconds", title="2 threads")
        assert files[0].read_bytes() == files[1].read_bytes()
    assert matplotlib.image.imread(tmp_path / "one.png").shape[1] > 1000


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(DataError, match="expected networks to draw"):
        pareto.draw({"256x256": []}, tmp_path / "plot.png", "parameters", "milliseconds", title="2 threads")
    assert not list(tmp_path.iterdir())
