"""What the machine can do at best: its rate of matrix products and its memory bandwidth.

    python -m benchmarks.roofline

prints one line of JSON. Products are of random matrices, in fp32 and bf16, of a size that fills
the machine; bandwidth is that of a copy, bytes read and written together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

REPEATS = 5
SIZES = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
WARM = 2


def measure(device: str = "cpu") -> dict[str, float]:
    """Measure; each figure is that of the fastest of some repeats.

    Returns:
        fp32_flops, bf16_flops: per second; flops: the larger of the two. copy_bytes: per second.
    """
    size = SIZES[device]
    found: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)
        out = torch.empty_like(left)
        # Bound as defaults: the names are taken for the next type before the last call is over.
        call = lambda a=left, b=right, o=out: torch.mm(a, b, out=o)  # noqa: E731
        found[f"{name}_flops"] = 2 * size**3 / fastest(call, device)
    found["flops"] = max(found.values())
    source = torch.randint(0, 255, (COPY_BYTES[device],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["copy_bytes"] = 2 * COPY_BYTES[device] / fastest(lambda: target.copy_(source), device)
    return found


def fastest(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some calls, the device's work included."""
    seconds = []
    for _ in range(WARM + REPEATS):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[WARM:])


if __name__ == "__main__":
    print(json.dumps(measure("cpu")))
