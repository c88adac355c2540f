"""`heed doctor`: what is installed, what the machine has, and which defaults follow."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import heed
from heed.cli.command import OK, WRONG, Context
from heed.errors import ConfigError

USAGE = """usage: heed doctor [--debug]

Show versions, the device, cores, memory, optional packages, and the defaults that follow."""

CORE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pydantic")
EXTRAS = {
    "peft": ("peft", "low-rank adapters"),
    "hub": ("datasets", "data sets by hub id"),
    "track": ("tensorboard", "metrics in TensorBoard"),
    "wandb": ("wandb", "metrics in Weights & Biases"),
    "trackio": ("trackio", "metrics in Trackio"),
    "mlflow": ("mlflow-skinny", "metrics in MLflow"),
    "web": ("fastapi", "the labelling page"),
}
"""Extra -> (package, what it is for)."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def main(words: list[str], context: Context) -> int:
    """Run `heed doctor`; status 2 where a package is missing without which nothing trains."""
    if words and words[0] in ("--help", "-h"):
        print(USAGE)
        return OK
    if words:
        raise ConfigError(f"heed doctor takes no arguments; found {' '.join(words)!r}")
    missing = [package for package in CORE if version(package) is None]
    sections = [("installed", installed()), ("machine", machine()), ("extras", extras())]
    if not missing:
        sections.append(("defaults that follow", defaults()))
    for title, rows in sections:
        found = list(rows)
        width = max(len(name) for name, _ in found)
        print(title)
        for name, text in found:
            print(f"  {name:<{width}}  {text}")
    if missing:
        print(f"missing: {', '.join(missing)}; install them with: pip install heed-rlhf")
        return WRONG
    return OK


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed() -> Iterator[tuple[str, str]]:
    """Versions of heed, Python and the packages that nothing works without."""
    yield "heed", f"{heed.__version__} in {Path(heed.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for package in CORE:
        yield package, version(package) or "NOT INSTALLED"


def machine() -> Iterator[tuple[str, str]]:
    """Cores, memory and disk that this process may use."""
    usable, present = usable_cores(), os.cpu_count()
    limited = "" if usable == present else f" (of {present}; this process may use {usable:g})"
    yield "cores", f"{usable:g}{limited}"
    total = memory_bytes()
    yield "memory", f"{total / 2**30:.1f} GiB" if total else "unknown on this system"
    yield "free disk here", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"


def extras() -> Iterator[tuple[str, str]]:
    """Which optional packages are there."""
    for extra, (package, purpose) in EXTRAS.items():
        if importlib.util.find_spec(package):
            yield extra, f"{purpose}: {package} {version(package) or ''}".rstrip()
        else:
            yield extra, f"{purpose}: not installed (pip install 'heed-rlhf[{extra}]')"


def defaults() -> Iterator[tuple[str, str]]:
    """What the settings that say `auto` become here."""
    import torch

    from heed.models.device import choose_device, choose_precision, has_bf16

    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    yield "learner.device", f"{device} {name}".rstrip()
    words = "bf16 is faster here" if has_bf16(device) else "bf16 is not faster here"
    for parameters, size in ((1_000_000, "1M"), (1_000_000_000, "1B")):
        chosen = choose_precision("auto", device, parameters)
        short = {torch.bfloat16: "bf16", torch.float32: "fp32"}[chosen]
        yield f"learner.precision ({size})", f"{short} for a model of {size} parameters ({words})"
    yield "engine.path", decoding(device.type)
    threads, cores = torch.get_num_threads(), usable_cores()
    hint = f"; set OMP_NUM_THREADS={max(int(cores), 1)}" if threads > cores else ""
    yield "torch threads", f"{threads}{hint}"


def decoding(device: str) -> str:
    """How completions are decoded, and why not by the native loop."""
    from heed.engines.native.build import BuildError
    from heed.engines.native.library import load_library

    if device != "cpu":
        return f"torch (the native loop runs on a CPU, and the model on {device})"
    try:
        lanes = load_library().heed_lanes()
    except BuildError as error:
        return f"torch, more slowly ({error})"
    return f"native for plain Llama, Qwen, Mistral and GPT-2 models ({lanes} numbers at a time)"


def usable_cores() -> float:
    """Cores that this process may use: its affinity and the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less; None where unknown."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        total = int(fields["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        return min(total, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):
        return total
