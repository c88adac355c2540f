"""What the machine can do: device, compute type, and keeping the memory that was asked for."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from heed.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]

BF16_FROM_PARAMETERS = 500_000
"""Below this size casts cost a CPU more than bf16 products save.

Training steps of Llama models through transformers, 32 x 128 tokens, one Zen 4 core: fp32 takes
0.93x the time of bf16 at 0.3 M parameters, 1.27x at 1.2 M, 1.32x at 2.6 M, 1.54x at 16 M.
"""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20

TOKENS_AT_ONCE = 8192
"""Tokens of a micro-batch where nothing else is asked for: enough to fill a CPU."""

LEAST_AT_ONCE, MOST_AT_ONCE = 1024, 65_536
"""Bounds of what the memory of a CUDA device decides."""


def choose_device(name: str = "auto") -> torch.device:
    """Find the device: auto takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        ConfigError: the device named is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device {name!r} is not known; use auto, cpu, cuda, cuda:1 or mps"
        ) from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= present.get(device.type, 0):
        raise ConfigError(
            f"device {name!r} is not on this machine (found "
            f"{', '.join(f'{n} {kind}' for kind, n in present.items() if n)}); "
            "use learner.device=auto, or name one that is there"
        )
    return device


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 matrices faster than fp32 ones.

    A CPU needs tiles (AMX) for it, or AVX-512 products of bf16 on another make than Intel's, whose
    cores issue half as many of those as of fp32 ones: bf16 takes 1.6 to 1.9 times as long there
    (products of 8192 x 128 x 512 to 2048 cubed, one core of a Xeon without tiles). Without either
    bf16 is emulated.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Absent in older versions of torch, where fp32 is the safe choice.
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        if found.get("amx_tile") and found.get("amx_bf16"):
            return True
        return bool(found.get("avx512_bf16")) and "Intel" not in str(found.get("cpu_name", ""))
    return False


def choose_precision(
    precision: Precision, device: torch.device, num_parameters: int
) -> torch.dtype:
    """Choose the compute type; auto takes bf16 where it is faster.

    Args:
        num_parameters: of the model.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    large = device.type != "cpu" or num_parameters >= BF16_FROM_PARAMETERS
    return torch.bfloat16 if large and has_bf16(device) else torch.float32


def tokens_at_once(module: nn.Module, device: torch.device, *, trained: bool) -> int:
    """Choose the tokens of a micro-batch: on a CUDA device as many as half of its room holds.

    A device that waits for Python's launches computes twice the tokens in nearly the same time.
    A trained token keeps about 2 (12 D + 4 inner) bytes a layer in bf16, as Llama's layers have it;
    what gradients and moments of the weights take is left out of the room first. The room is the
    device's whole memory, whatever is free of it now, so that a run that goes on splits its batches
    as before.

    Args:
        trained: whether a backward pass follows, and an optimiser keeps moments.
    """
    models = [m for m in module.modules() if isinstance(m, PreTrainedModel)]
    if device.type != "cuda" or not models:
        return TOKENS_AT_ONCE
    config: Any = models[-1].config.get_text_config(decoder=True)
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    weights = [p for p in module.parameters() if p.requires_grad]
    size = max(p.element_size() for p in module.parameters())
    room = torch.cuda.get_device_properties(device).total_memory
    if trained:
        room -= 12 * sum(p.numel() for p in weights)
    token = size * layers * (12 * width + 4 * inner)
    return min(max(int(room / 2 / token), LEAST_AT_ONCE), MOST_AT_ONCE)


def attend_without_plans() -> None:
    """Leave cuDNN's attention to others on a CUDA device, for the whole process.

    It makes a plan for each new shape, which takes the processor longer than the rest of the step,
    and rows of natural lengths have new shapes at every step. torch's own kernels need none.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def keep_memory() -> bool:
    """Keep freed memory in the process (glibc only); says whether that was possible.

    glibc hands every block over 32 MiB back to the system, so each large temporary is faulted in
    anew, page by page: on a CPU that can cost more than the arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    wanted = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, largest), (M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wanted)
