import mmap

import torch

from pipelines import machine


def test_what_figures_hang_on_is_named():
    found = machine.describe()
    assert found["cpu"]
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["torch"] == torch.__version__
    assert ("gpu" in found) == torch.cuda.is_available()


def test_the_highest_memory_is_that_since_it_was_forgotten():
    machine.forget_peak()
    before = machine.peak()
    with mmap.mmap(-1, 2**28) as pages:  # 256 MiB, given back to the system at once
        for _ in range(2**8):
            pages.write(bytes(2**20))
    assert machine.peak() - before > 200 * 2**20
    machine.forget_peak()
    assert machine.peak() - before < 100 * 2**20
