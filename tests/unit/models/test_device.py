import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.small import small

from heed.errors import ConfigError
from heed.models import device
from heed.models.device import (
    attend_without_plans,
    choose_device,
    choose_precision,
    has_bf16,
    keep_memory,
    tokens_at_once,
)
from heed.models.heads import PolicyHead

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


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("gigabytes", [1e-4, 0.2, 80.0])
def test_micro_batches_fill_half_of_what_weights_leave(
    gigabytes: float, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token takes 4 bytes x 2 layers x (12 x 32 + 4 x inner)."""
    model = small()
    inner = model.config.intermediate_size
    there = SimpleNamespace(total_memory=int(gigabytes * 1e9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: there)
    found = tokens_at_once(PolicyHead(model), torch.device("cuda"), trained=trained)
    taken = 12 * sum(p.numel() for p in model.parameters()) if trained else 0
    room = (there.total_memory - taken) / 2 / (4 * 2 * (12 * 32 + 4 * inner))
    assert found == min(max(int(room), 1024), 65_536)
    assert found == tokens_at_once(PolicyHead(model), torch.device("cuda:0"), trained=trained)


def test_micro_batches_are_of_one_size_elsewhere() -> None:
    assert tokens_at_once(PolicyHead(small()), torch.device("cpu"), trained=True) == 8192
    assert tokens_at_once(torch.nn.Linear(3, 3), torch.device("cuda"), trained=True) == 8192


def test_attention_that_plans_is_left_out() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        attend_without_plans()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
