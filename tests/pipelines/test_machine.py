import torch

from pipelines import machine


def test_what_figures_hang_on_is_named():
    found = machine.describe()
    assert found["cpu"]
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["torch"] == torch.__version__
    assert ("gpu" in found) == torch.cuda.is_available()
