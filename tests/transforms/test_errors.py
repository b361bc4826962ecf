from __future__ import annotations

from transforms import ImageError, PanelError


def test_whoever_catches_value_errors_catches_these():
    assert issubclass(ImageError, ValueError)
    assert issubclass(PanelError, ImageError)
