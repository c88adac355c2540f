"""The command line: find the verb, run it, and turn what goes wrong into one honest line."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import heed
from heed.errors import HeedError
from heed.pipelines.verbs import VERBS

OK, BUG, WRONG, INTERRUPTED, TERMINATED, CLOSED_PIPE = 0, 1, 2, 130, 143, 141

USAGE = """usage: heed VERB [FILE.toml ...] [--a.b value ...] [--print-config] [--debug]

heed trains language models on what people prefer, and shows whether it worked.
"""

COMMANDS = {
    "run": ("heed.cli.chain", "Run a pipeline of stages; what has not changed is not run again"),
    "resume": ("heed.cli.resume", "Go on with a run that was interrupted"),
    "label": ("heed.cli.label", "Label pairs in the browser; label export writes the answers"),
    "report": ("heed.cli.report", "Write the page of a run"),
    "data": (
        "heed.cli.data",
        "data inspect: show what a data set would teach; data convert: change its format",
    ),
    "doctor": ("heed.cli.doctor", "Show what is installed, the device, and the defaults"),
}
"""Commands that are not stages: name -> (module with `main(words, context)`, help)."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end."""


class Context:
    """What the error messages of a command need to know while it runs."""

    folder: Path | None = None
    """The run folder, once it is known."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 done; 1 an unexpected error (a bug: the traceback is in the run folder, or shown by
    `--debug`); 2 something to correct, said in one message; 130 interrupted; 143 terminated.
    """
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("--help", "-h", "help"):
        return _quietly(lambda: print(overview()))
    if words[0] in ("--version", "-V"):
        return _quietly(lambda: print(f"heed {heed.__version__}"))
    context = Context()
    return guarded(lambda: dispatch(words, context), context, debug)


def overview() -> str:
    """The text of `heed --help`."""
    rows = {name: verb.help for name, verb in VERBS.items()}
    rows |= {name: text for name, (_, text) in COMMANDS.items()}
    width = max(len(name) for name in rows)
    lines = [USAGE, "verbs:"]
    lines += [f"  {name:<{width}}  {text}" for name, text in rows.items()]
    lines += [
        "",
        "heed VERB --help lists the settings of a verb, with defaults.",
        "Files compose left to right, then flags; --print-config shows the result and stops.",
    ]
    return "\n".join(lines)


def dispatch(words: Sequence[str], context: Context) -> int:
    """Run the verb that the words begin with."""
    name, rest = words[0], list(words[1:])
    if name in COMMANDS:
        import importlib

        command: Callable[[list[str], Context], int] = importlib.import_module(
            COMMANDS[name][0]
        ).main
        return command(rest, context)
    if name in VERBS:
        from heed.cli.stage import run_verb

        return run_verb(VERBS[name], rest, context)
    raise HeedError(unknown_verb(name))


def unknown_verb(name: str) -> str:
    """Say that there is no such verb, and which is the nearest."""
    import difflib

    known = [*VERBS, *COMMANDS]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return f"there is no verb {name!r}{hint}. Verbs: {', '.join(known)}"


def guarded(command: Callable[[], int], context: Context, debug: bool) -> int:
    """Run a command; no traceback reaches the terminal unless `debug`."""
    _terminate_like_an_interrupt()
    try:
        with warnings.catch_warnings():
            if not debug:
                # What a library will rename one day is for those who write heed, not who use it.
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
            return command()
    except KeyboardInterrupt as stop:
        _complain(_how_to_resume(context.folder))
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        return _close_pipe()
    except HeedError as error:
        if debug:
            traceback.print_exc()
        _complain(f"error: {error}")
        return WRONG
    except Exception as error:
        if debug:
            traceback.print_exc()
        _complain(_unexpected(error, context.folder, debug))
        return BUG


def _quietly(command: Callable[[], None]) -> int:
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        return _close_pipe()
    return OK


def _close_pipe() -> int:
    # The reader went away (`heed ... | head`). Python would complain once more when it closes
    # standard output, so that is pointed at nothing.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE


def _terminate_like_an_interrupt() -> None:
    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Terminated

    # Outside the main thread this is refused: whoever started the thread handles signals.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, raise_it)


def _how_to_resume(folder: Path | None) -> str:
    if folder is not None and (folder / "manifest.json").exists():
        return f"interrupted; go on with: heed resume {folder}"
    return "interrupted before anything was written"


def _unexpected(error: Exception, folder: Path | None, debug: bool) -> str:
    said = " ".join(str(error).split())
    text = f"error: {type(error).__name__}: {said}" if said else f"error: {type(error).__name__}"
    if folder is not None and folder.is_dir():
        try:
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            text += f"\n  the traceback is in {folder / 'error.txt'}"
        except OSError:
            pass
    return text if debug else text + "\n  this is not foreseen; --debug shows where it happened"


def _complain(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr)
