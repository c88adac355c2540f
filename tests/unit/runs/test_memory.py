import os
import subprocess
import sys

import pytest

from heed.runs import memory
from heed.runs.memory import peak_memory_bytes

MIB = 1 << 20


def test_the_peak_is_in_bytes() -> None:
    before = peak_memory_bytes()
    assert before is not None
    assert 10 * MIB < before < 100_000 * MIB
    block = bytearray(before + 64 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    assert (peak_memory_bytes() or 0) >= before + 64 * MIB


def test_getrusage_counts_kib_but_bytes_on_macos() -> None:
    linux, macos = memory.rusage_bytes("linux"), memory.rusage_bytes("darwin")
    assert linux is not None
    assert macos is not None
    assert linux == pytest.approx(1024 * macos, rel=0.05)


SPANS = """
from heed.runs.memory import PeakMemory
outer = PeakMemory()
block = bytearray(256 << 20)
block[::4096] = b"x" * len(block[::4096])
with_block = outer.bytes()
del block
inner = PeakMemory()
print(with_block, inner.bytes(), outer.bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mark can be lowered on Linux only")
def test_each_tracker_reports_its_own_span() -> None:
    # In a process of its own: a learner in this one may have told it to keep freed memory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SPANS], capture_output=True, text=True, env=environment, check=True
    )
    with_block, inner, outer = map(int, done.stdout.split())
    assert inner < with_block - 128 * MIB
    assert outer >= with_block
