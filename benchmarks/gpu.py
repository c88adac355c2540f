"""Measure heed against TRL on one CUDA device, at shapes of 0.5B and more with random weights.

    python -m benchmarks.gpu --models 0.5B --jobs sft,dpo,generate,grpo --out gpu.jsonl

TRL is looked for in `.bench/venv`, else beside heed. Both sides of a case are set up at once,
warmed up, and take turns. The report has tokens a second, the share of the device's matrix rate
(training) or memory bandwidth (generation alone), both measured in the same run, and the most
memory that tensors took. What fails is reported and passed over. `--device cpu` tries the script.
`python -m benchmarks.gpu_report gpu.jsonl` puts what was written into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.costs import Work, work_of
from benchmarks.gpu_report import section, table
from benchmarks.jobs import Case
from benchmarks.summary import HEED, TRL
from benchmarks.worker import BENCH, ROOT, Sides, Worker, WorkerError, turn_row

STEPS_PER_TURN = {"sft": 6, "reward": 6, "dpo": 4, "dpo-cached": 4}
TRL_PRECISIONS = {"ppo": "fp32", "generate": "bf16-weights"}
"""TRL computes in bf16 over fp32 weights, as heed does; what has another best setting is here:
PPO knows no bf16, and weights that only sample are bf16."""


def measure(case: Case, given: argparse.Namespace, sides: Sides) -> Iterator[dict[str, Any]]:
    """Set both sides up at once, let them take turns, and yield each turn."""
    kinds = {
        TRL: given.trl_precision or TRL_PRECISIONS.get(case.job, "bf16"),
        HEED: given.heed_precision,
    }
    workers = [Worker(side, case, kinds[side], sides) for side in given.sides.split(",")]
    try:
        for worker in workers:
            worker.start(given.warm_up)
        steps = given.steps or STEPS_PER_TURN.get(case.job, 1)
        for pair in range(given.pairs):
            for worker in workers:
                yield turn_row(worker, pair, steps)
    finally:
        for worker in workers:
            with suppress(OSError):
                worker.stop()


def line_of(
    case: Case, work: Work, turns: Sequence[dict[str, Any]], roofline: dict[str, float]
) -> dict[str, Any]:
    """Figures of each side of one case.

    Seconds are the median step over all turns; tokens a second of jobs that sample follow the
    tokens that heed counted, where it counted them.
    """
    by_side: dict[str, list[dict[str, Any]]] = {}
    for turn in turns:
        by_side.setdefault(turn["side"], []).append(turn)
    line: dict[str, Any] = {"kind": "line", "job": case.job, "model": case.model}
    line |= {"lengths": case.lengths, "batch_size": case.batch_size}
    for side, found in by_side.items():
        seconds = statistics.median(s for turn in found for s in turn["seconds"])
        noted = [n for turn in found for n in turn.get("num_tokens", ())]
        new = statistics.fmean(noted) if noted else work.num_new
        tokens = new if case.job == "generate" else work.tokens - work.num_new + new
        figures = {
            "tokens_per_second": tokens / seconds,
            "share_of_flops": work.flops / seconds / roofline["flops"],
        }
        if case.job == "generate" and work.decode_bytes:
            bandwidth = work.decode_bytes / seconds
            figures["share_of_bandwidth"] = bandwidth / roofline["copy_bytes"]
        line[side] = figures
    return line


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """Describe device, versions, command and what the device can do."""
    import torch

    from benchmarks import roofline

    cuda = given.device == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    measured = roofline.measure(given.device)
    if cuda:
        torch.cuda.empty_cache()
    return {
        "kind": "facts",
        "date": datetime.date.today().isoformat(),
        "device": name,
        "versions": {p: version(p) for p in ("torch", "transformers")} | {"TRL": "1.16.0"},
        "roofline": measured,
        "command": "python -m benchmarks.gpu " + " ".join(given.arguments),
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--jobs", default="sft,dpo,generate,grpo,ppo")
    parser.add_argument("--models", default="0.5B")
    parser.add_argument("--lengths", default="fixed-128,natural-128")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=None, help="steps in a turn")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first turn")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sides", default=f"{TRL},{HEED}")
    parser.add_argument("--trl-precision", choices=["fp32", "bf16", "bf16-weights"])
    parser.add_argument("--heed-precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--assets", type=Path, default=BENCH / "assets")
    parser.add_argument("--trl-with-ppo", type=Path, default=BENCH / "trl-1.12")
    parser.add_argument("--seconds", type=float, default=None, help="begin no case after so many")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines, added to")
    given = parser.parse_args(arguments)
    given.arguments = list(arguments)
    return given


def cases(given: argparse.Namespace) -> Iterator[Case]:
    """The cases asked for, in order."""
    for model in given.models.split(","):
        for job in given.jobs.split(","):
            for lengths in given.lengths.split(","):
                sizes = (given.batch_size, given.group_size)
                yield Case(given.assets, job, model, lengths, *sizes, given.device)


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Measure every case, write as it goes, print the table, and return what was written."""
    began = time.monotonic()
    given = parse(arguments)
    # In a process of its own, so that no memory of the device stays taken.
    models, lengths = given.models, given.lengths
    made = [sys.executable, "-m", "benchmarks.assets", str(given.assets), models, lengths]
    subprocess.run(made, check=True, cwd=ROOT)
    about = facts(given)
    python = BENCH / "venv/bin/python"
    sides = Sides(
        trl_python=python if python.exists() else Path(sys.executable),
        trl_with_ppo=given.trl_with_ppo,
        threads=os.cpu_count() or 1 if given.device == "cuda" else 1,
        inherited=tuple(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))),
    )
    rows: list[dict[str, Any]] = []
    with given.out.open("a") as stream:

        def write(row: dict[str, Any]) -> None:
            rows.append(row)
            stream.write(json.dumps(row) + "\n")
            stream.flush()

        write(about)
        for case in cases(given):
            if given.seconds is not None and time.monotonic() - began > given.seconds:
                print(f"left out for time: {case.job} {case.model} {case.lengths}", flush=True)
                continue
            first = len(rows)
            try:
                for turn in measure(case, given, sides):
                    write(turn)
            except WorkerError as error:
                print(error, flush=True)
            if turns := rows[first:]:
                write(line_of(case, work_of(case), turns, about["roofline"]))
                print(table(rows[first:]).splitlines()[-1], flush=True)
    print("\n" + section(rows))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
