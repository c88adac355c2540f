import subprocess
import sys

import pytest
import torch

from heed.errors import ConfigError
from heed.models import device
from heed.models.device import choose_device, choose_precision, has_bf16, keep_memory

CPU = torch.device("cpu")
LARGE = 10**8


def test_a_device_that_is_not_there_is_an_error_that_says_what_is() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="not known"):
        choose_device("tpu9")
    with pytest.raises(ConfigError, match=r"not on this machine \(found 1 cpu"):
        choose_device("cuda:7")


def test_precision_follows_the_instructions_and_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("fp32", CPU, LARGE) == torch.float32
    assert choose_precision("bf16", CPU, 1) == torch.bfloat16
    monkeypatch.setattr(device, "has_bf16", lambda where: True)
    assert choose_precision("auto", CPU, LARGE) == torch.bfloat16
    assert choose_precision("auto", CPU, device.BF16_FROM_PARAMETERS) == torch.bfloat16
    assert choose_precision("auto", CPU, device.BF16_FROM_PARAMETERS - 1) == torch.float32
    assert choose_precision("auto", torch.device("cuda"), 1000) == torch.bfloat16
    monkeypatch.setattr(device, "has_bf16", lambda where: False)
    assert choose_precision("auto", CPU, LARGE) == torch.float32


@pytest.mark.parametrize(
    ("found", "faster"),
    [
        ({"amx_tile": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"amx_tile": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, False),
        ({}, False),
    ],
)
def test_bf16_is_taken_where_the_processor_is_faster_at_it(
    found: dict[str, object], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_bf16(CPU) == faster


def test_an_older_torch_that_does_not_name_the_processor_computes_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bf16(CPU)
    assert not has_bf16(torch.device("mps"))


FAULTS = """
import resource, sys, torch
from heed.models.device import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep" and not keep_memory():
    sys.exit(3)
def used():
    torch.ones(40 << 20 >> 2)
for _ in range(20):
    used()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    used()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_kept_memory_is_not_faulted_in_anew() -> None:
    faults = {}
    for how in ("keep", "plain"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        if done.returncode == 3:
            pytest.skip("this C library has no mallopt")
        assert done.returncode == 0, done.stderr
        faults[how] = int(done.stdout)
    # Ten blocks of 40 MiB: at least 200 faults even with huge pages of 2 MiB. The first blocks
    # fault either way, until the heap has a hole that fits.
    assert faults["plain"] >= 200
    assert faults["keep"] < faults["plain"] / 10


def test_keeping_memory_is_refused_quietly_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False
