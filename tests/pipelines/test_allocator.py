import gc
import subprocess
import sys

import pytest

from pipelines.allocator import uncollected
from tests.conftest import ROOT

PROGRAM = """
import resource, torch
from pipelines.allocator import reuse_freed_memory
if {reuse}:
    assert reuse_freed_memory()
for _ in range(10):
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(reuse):
    words = [sys.executable, "-c", PROGRAM.format(reuse=reuse)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_large_blocks_are_taken_again_without_new_pages():
    assert page_faults(reuse=True) * 10 < page_faults(reuse=False)


@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_are_looked_for_again_after_the_block_as_before_it(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError), uncollected():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
