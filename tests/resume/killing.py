"""Real processes that run a stage or a pipeline, to be killed at any moment.

They are forked from a server process that has imported heed and computed nothing, so that one
starts in milliseconds and shares no state with the test.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from heed.runs.run import Run

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["heed.algorithms.ppo", "heed.algorithms.reward", "heed.cli.command"]
)


def command(words: Sequence[str], log: str) -> None:
    """Run the command line with these words, in a process of its own."""
    import torch

    from heed.cli.command import main

    torch.set_num_threads(1)
    with open(log, "a", encoding="utf-8") as stream:
        sys.stdout = sys.stderr = stream
        status = main(words)
    sys.exit(status)


def start(words: Sequence[str], log: Path) -> BaseProcess:
    """Start the command in the background."""
    process = _SERVER.Process(target=command, args=(list(words), str(log)))
    process.start()
    return process


def run(words: Sequence[str], log: Path, timeout: float = 300.0) -> float:
    """Run the command to its end; returns the seconds it took."""
    began = time.monotonic()
    process = start(words, log)
    process.join(timeout)
    assert process.exitcode == 0, (process.exitcode, log.read_text(encoding="utf-8"))
    return time.monotonic() - began


def kill_repeatedly(
    first: Sequence[str],
    again: Sequence[str],
    log: Path,
    *,
    times: int,
    folder: Path,
    pause: float,
    seed: int,
) -> list[int]:
    """Start, kill -9 at a random moment after some progress, start again, and so on.

    Args:
        first: words of the first start.
        again: words of the later ones.
        times: most kills; fewer where the run came to its end, which is no kill.
        folder: of the run. Each start is killed within `pause` seconds after the run wrote
            something that it had not written before, so kills are spread over the whole of it.
        pause: seconds.
        seed: of the moments.

    Returns:
        how much was written at each kill.
    """
    moments, seen, most = random.Random(seed), [], 0
    for kill in range(times):
        process = start(again if kill else first, log)
        deadline = time.monotonic() + 120
        while _written(folder) <= most and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, pause))
        process.kill()
        process.join()
        # The manifest of a run that was killed still says that it runs; whoever opens it knows.
        if Run.open(folder).status == "finished":
            break
        assert Run.open(folder).status == "interrupted"
        most = max(most, _written(folder))
        seen.append(most)
    return seen


def _written(folder: Path) -> int:
    """Lines of metrics, and checkpoints by their step, also inside a pipeline's stages."""
    while True:
        try:
            runs = [folder, *folder.glob("stages/*")]
            files = [run / "metrics.jsonl" for run in runs]
            lines = [file.read_bytes().count(b"\n") for file in files if file.is_file()]
            steps = [int(path.name[-8:]) for run in runs for path in run.glob("checkpoints/step-*")]
        except FileNotFoundError:
            continue  # something was renamed while this looked; look again
        return sum(lines) + sum(steps)
