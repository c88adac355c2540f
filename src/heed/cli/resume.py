"""`heed resume RUN`: read what the run was, and go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heed.cli.command import OK, Context
from heed.config import make_config
from heed.errors import ConfigError, StoreError
from heed.pipelines.verbs import VERBS
from heed.runs.run import Run
from heed.settings import RunSettings

USAGE = """usage: heed resume RUN [--debug]

Go on with an interrupted run from its newest whole checkpoint, with the settings it was started
with. It ends with the same bits as a run that was never interrupted."""


def main(words: list[str], context: Context) -> int:
    """Run `heed resume RUN`."""
    if "--help" in words or "-h" in words:
        print(USAGE)
        return OK
    if len(words) != 1 or words[0].startswith("-"):
        raise ConfigError("heed resume takes one run folder: heed resume RUN")
    folder = Path(words[0])
    run = Run.open(folder)
    context.folder = folder
    if run.status == "finished":
        if run.manifest["kind"] == "pipeline" and not (folder / "report.html").exists():
            from heed.report.page import write_report

            write_report(folder)  # the run was killed between its end and its page
        print(f"{folder} is finished already; nothing to go on with")
        return OK
    kind, config = run.manifest["kind"], dict(run.manifest["config"])
    settings = resumed_settings(config, folder)
    if kind == "pipeline" and "stages" in config:
        from heed.cli.chain import run_shown
        from heed.pipelines.recipe import Pipeline

        pipeline = Pipeline.model_validate({k: v for k, v in config.items() if k != "run"})
        run_shown(pipeline, settings, context)
        return OK
    from heed.cli.stage import run_config

    verb = VERBS.get("quickstart" if kind == "pipeline" else kind)
    if verb is None:
        raise StoreError(f"{folder} was made by {kind!r}, which this version of heed does not know")
    values = {**config, "run": settings.model_dump(mode="json")}
    run_config(verb, make_config(verb.config_class(), values), context)
    return OK


def resumed_settings(config: dict[str, Any], folder: Path) -> RunSettings:
    """The run's settings, set to go on, in the folder as it was named now (it may have moved).

    Raises:
        StoreError: the manifest holds no settings.
    """
    if not isinstance(config.get("run"), dict):
        raise StoreError(
            f"{folder / 'manifest.json'} holds no settings of the run, so it cannot be gone on "
            "with; start it again with run.overwrite=true"
        )
    changes = {"folder": str(folder), "resume": True, "overwrite": False}
    return RunSettings.model_validate({**config["run"], **changes})
