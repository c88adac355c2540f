import sys

import pytest

from heed.runs import memory
from heed.runs.memory import PeakMemory, peak_memory_bytes

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


@pytest.mark.skipif(sys.platform != "linux", reason="the mark can be lowered on Linux only")
def test_each_tracker_reports_its_own_span() -> None:
    outer = PeakMemory()
    block = bytearray(256 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    with_block = outer.bytes()
    del block
    inner = PeakMemory()
    assert with_block is not None
    assert (inner.bytes() or 0) < with_block - 128 * MIB
    assert (outer.bytes() or 0) >= with_block
