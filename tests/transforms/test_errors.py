from __future__ import annotations

import torch
from monai.data import MetaTensor

from transforms import ImageError, PanelError
from transforms.errors import file_of


def test_whoever_catches_value_errors_catches_these():
    assert issubclass(ImageError, ValueError)
    assert issubclass(PanelError, ImageError)


def test_an_error_names_the_file_or_else_the_key():
    array = torch.zeros(1, 2, 2)
    assert file_of(MetaTensor(array, meta={"filename_or_obj": "a/b.png"}), "image") == "a/b.png"
    assert file_of(MetaTensor(array), "image") == file_of(array, "image") == "the image under 'image'"
