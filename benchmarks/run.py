"""Measure heed against TRL, in turns: TRL, heed, TRL, heed, ... on the same models and data.

    benchmarks/setup_env.sh
    .venv/bin/python -m benchmarks.run --jobs sft,reward,ppo,generate --models nano,mini --pairs 5

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

from benchmarks.jobs import Case
from benchmarks.summary import HEED, TRL, TRL_TUNED, put_section, section, summarise, table

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
WARM_UP_STEPS = 2
TRIAL_STEPS = 2
# glibc then keeps freed memory instead of returning it to the system: fewer page faults.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
# In TRL, bf16 reaches neither PPO (it makes its own Accelerator) nor generation by transformers.
HAS_BF16 = {"sft": True, "reward": True, "ppo": False, "generate": False}
STEPS_PER_TURN = {"sft": 6, "reward": 4, "ppo": 2, "generate": 4}


class Worker:
    """One side of a case, in its own process."""

    def __init__(self, side: str, case: Case, precision: str, threads: int) -> None:
        self.side, self.case, self.precision = side, case, precision
        of_trl = side != HEED
        python = BENCH / "venv/bin/python" if of_trl else Path(sys.executable)
        module = "benchmarks.trl_worker" if of_trl else "benchmarks.heed_worker"
        paths = [ROOT] if of_trl else [ROOT, ROOT / "src"]
        if of_trl and case.job == "ppo":
            paths.insert(0, BENCH / "trl-1.12")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in KEEP_MEMORY},
            **(KEEP_MEMORY if side == TRL_TUNED else {}),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        name = f"{side}-{precision}-{case.job}-{case.model}-{case.lengths}"
        self._log = BENCH / "logs" / f"{name}.txt"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["--assets", str(case.assets), "--job", case.job, "--model", case.model]
        arguments += ["--lengths", case.lengths, "--precision", precision]
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._read()  # ready
        self.turn(WARM_UP_STEPS)

    def turn(self, steps: int) -> dict[str, Any]:
        """Run so many steps and return their seconds, memory and notes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"the {self.side} worker of {self.case.job} ended:\n{tail}")
        return dict(json.loads(line))


def fastest_trl(case: Case, wanted: str, threads: int) -> str:
    """Return the precision in which TRL is faster here, by a short trial, or the wanted one."""
    if wanted != "fastest":
        return wanted
    if not HAS_BF16[case.job]:
        return "fp32"
    seconds = {}
    for precision in ("fp32", "bf16"):
        worker = Worker(TRL, case, precision, threads)
        seconds[precision] = statistics.median(worker.turn(TRIAL_STEPS)["seconds"])
        worker.stop()
    return min(seconds, key=lambda name: seconds[name])


def measure(case: Case, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the pairs of one case and return its turns."""
    precision = fastest_trl(case, given.trl_precision, given.threads)
    workers = [Worker(TRL, case, precision, given.threads)]
    if given.malloc:
        workers.append(Worker(TRL_TUNED, case, precision, given.threads))
    workers.append(Worker(HEED, case, given.heed_precision, given.threads))
    steps = given.steps or STEPS_PER_TURN[case.job]
    turns = []
    for pair in range(given.pairs):
        for worker in workers:
            found = worker.turn(steps)
            turns.append(
                {
                    "kind": "turn",
                    "job": case.job,
                    "model": case.model,
                    "lengths": case.lengths,
                    "side": worker.side,
                    "precision": worker.precision,
                    "pair": pair,
                    **found,
                }
            )
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


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--jobs", default="sft,reward,ppo,generate")
    parser.add_argument("--models", default="nano,mini")
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
    subprocess.run([str(python), "-m", "benchmarks.assets", str(assets)], check=True, cwd=ROOT)
    about = facts(given)
    out = given.out or ROOT / "benchmarks" / "results" / f"{about['date']}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    turns: list[dict[str, Any]] = []
    with out.open("w") as stream:
        stream.write(json.dumps(about) + "\n")
        for model in given.models.split(","):
            for job in given.jobs.split(","):
                for lengths in given.lengths.split(","):
                    found = measure(Case(assets, job, model, lengths), given)
                    stream.writelines(json.dumps(turn) + "\n" for turn in found)
                    stream.flush()
                    turns += found
                    print(table(summarise(found, about["clock"])).splitlines()[-1], flush=True)
    lines = summarise(turns, about["clock"])
    print("\n" + section(about, lines))
    if given.docs:
        DOCUMENT.write_text(put_section(DOCUMENT.read_text(), section(about, lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
