"""Measure heed against TRL, in turns: TRL, heed, TRL, heed, ... on the same models and data.

    benchmarks/setup_env.sh
    .venv/bin/python -m benchmarks.run --jobs sft,grpo --models nano,mini --pairs 5

Each side runs in its own environment, in a process that stays alive, so that start-up and warm-up
are in no figure and a slow hour of the machine is in both. Raw turns go to benchmarks/results, the
table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.costs import work_of
from benchmarks.jobs import JOB_NAMES, Case
from benchmarks.summary import HEED, TRL, TRL_TUNED, put_section, section, summarise, table
from benchmarks.worker import BENCH, ROOT, Sides, Worker, WorkerError, turn_row

DOCUMENT = ROOT / "docs" / "benchmarks.md"
TRIAL_STEPS = 2
# In TRL, bf16 reaches neither PPO (it makes its own Accelerator) nor generation by transformers.
NO_BF16 = ("ppo", "generate")
STEPS_PER_TURN = {"sft": 6, "reward": 4, "ppo": 2}


def fastest_trl(case: Case, wanted: str, sides: Sides) -> str:
    """Return the precision in which TRL is faster here, by a short trial, or the wanted one."""
    if wanted != "fastest":
        return wanted
    if case.job in NO_BF16:
        return "fp32"
    seconds = {}
    for precision in ("fp32", "bf16"):
        worker = Worker(TRL, case, precision, sides)
        worker.start()
        seconds[precision] = statistics.median(worker.turn(TRIAL_STEPS)["seconds"])
        worker.stop()
    return min(seconds, key=lambda name: seconds[name])


def measure(case: Case, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the pairs of one case and return its turns."""
    sides = Sides(threads=given.threads)
    precision = fastest_trl(case, given.trl_precision, sides)
    kinds = [(TRL, precision), (HEED, given.heed_precision)]
    if given.malloc:
        kinds.insert(1, (TRL_TUNED, precision))
    workers = []
    for side, of_side in kinds:
        workers.append(Worker(side, case, of_side, sides))
        workers[-1].start()
    steps = given.steps or STEPS_PER_TURN.get(case.job, 4)
    work = work_of(case)
    turns = [
        {**turn_row(worker, pair, steps), "needed_flops": work.flops}
        for pair in range(given.pairs)
        for worker in workers
    ]
    for worker in workers:
        worker.stop()
    return turns


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """Describe machine, versions and command."""
    processor, memory = platform.processor() or platform.machine(), 0.0
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    command = ".venv/bin/python -m benchmarks.run " + " ".join(given.arguments)
    return {
        "kind": "facts",
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "num_cores": os.cpu_count(),
        "memory_gb": memory,
        "platform": f"{platform.system()}, Python {platform.python_version()}",
        "versions": {"torch": version("torch"), "transformers": version("transformers")}
        | {"TRL": "1.16.0", "TRL for PPO": "1.12.0"},
        "threads": given.threads,
        "clock": "seconds" if given.clock == "wall" else "cpu_seconds",
        "command": command.strip(),
    }


def measured_roofline(threads: int) -> dict[str, float]:
    """What the machine can do, measured in a process of as many threads."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.roofline"],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return dict(json.loads(done.stdout))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--jobs", default=",".join(JOB_NAMES))
    parser.add_argument("--models", default="nano,mini,mini-32k")
    parser.add_argument("--lengths", default="fixed,natural")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="steps in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trl-precision", default="fastest", choices=["fastest", "fp32", "bf16"])
    parser.add_argument("--heed-precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument(
        "--malloc", action=argparse.BooleanOptionalAction, default=True, help="TRL tuned by hand"
    )
    parser.add_argument("--out", type=Path, default=None, help="file of raw JSON lines")
    parser.add_argument("--docs", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    given.arguments = list(arguments)
    return given


def main(arguments: Sequence[str]) -> None:
    """Measure every case, print as it goes, and write results and table."""
    given = parse(arguments)
    python = BENCH / "venv/bin/python"
    if not python.exists():
        raise SystemExit("TRL's environment is missing; make it with benchmarks/setup_env.sh")
    assets = BENCH / "assets"
    command = [str(python), "-m", "benchmarks.assets", str(assets), given.models, given.lengths]
    subprocess.run(command, check=True, cwd=ROOT)
    about = facts(given) | {"roofline": measured_roofline(given.threads)}
    out = given.out or ROOT / "benchmarks" / "results" / f"{about['date']}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    turns: list[dict[str, Any]] = []
    with out.open("w") as stream:
        stream.write(json.dumps(about) + "\n")
        for model in given.models.split(","):
            for job in given.jobs.split(","):
                for lengths in given.lengths.split(","):
                    try:
                        found = measure(Case(assets, job, model, lengths), given)
                    except WorkerError as error:
                        raise SystemExit(str(error)) from error
                    stream.writelines(json.dumps(turn) + "\n" for turn in found)
                    stream.flush()
                    turns += found
                    print(
                        table(summarise([about, *found], about["clock"])).splitlines()[-1],
                        flush=True,
                    )
    lines = summarise([about, *turns], about["clock"])
    print("\n" + section(about, lines))
    if given.docs:
        DOCUMENT.write_text(put_section(DOCUMENT.read_text(), section(about, lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
