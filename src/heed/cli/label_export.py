"""`heed label export`: answers as files that trainers read, with a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from heed.cli.command import OK
from heed.errors import ConfigError
from heed.settings import Settings


class ExportConfig(Settings):
    """Which answers are exported, and how."""

    to: tuple[str, ...] = ()
    """Layouts: trl_preference, trl_unpaired, preferences, judgments, ranking, sft, critiques,
    events; or all, which is each that fits the kind of work. By default trl_preference of pairs,
    rankings and edits, trl_unpaired of ratings, sft of demonstrations, critiques of spans."""
    project: str | None = None
    """Name of the project; needed where the store has several."""
    view: Literal["each", "majority"] = "each"
    """each: every standing answer; majority: one per item."""
    held_out_frac: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts in the held-out files."""
    seq: int | None = Field(default=None, ge=0)
    """Position of the log; its end by default."""
    parquet: bool = False
    """Parquet files beside the JSON lines."""


def write_export(bare: list[str], config: ExportConfig) -> int:
    """Write the answers of a project into a new folder.

    Raises:
        ConfigError: the store or the project is not named, or not there.
    """
    if len(bare) != 2:
        raise ConfigError("name the store and the new folder: heed label export labels.db OUT")
    place, out = bare
    if "://" not in place and not Path(place).exists():
        raise ConfigError(f"there is no store {place}")
    from heed.data.store import open_store
    from heed.data.store.exporting import Wanted, export
    from heed.data.store.kinds import trained_layout

    with open_store(place) as store:
        slugs = [project.slug for project in store.projects.all()]
        name = config.project or (slugs[0] if len(slugs) == 1 else None)
        if name is None:
            raise ConfigError(f"the store has {len(slugs)} projects ({', '.join(slugs)}); "
                              "name one with --project")  # fmt: skip
        layouts = config.to or (trained_layout(store.projects.get(name).kind),)
        layouts = () if layouts == ("all",) else layouts
        wanted = Wanted(
            layouts, config.seq, config.view, held_out_frac=config.held_out_frac,
            parquet=config.parquet,
        )  # fmt: skip
        manifest = export(store, name, out, wanted)
    for layout, about in manifest["layouts"].items():
        dropped = about.get("answers_dropped") or {}
        words = "".join(f"; {count} dropped ({reason})" for reason, count in dropped.items())
        print(f"{layout}: {about['rows']} rows{words}")
    print(f"written to {out}, with manifest.json")
    return OK
