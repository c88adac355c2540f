"""One self-contained HTML file for each run: made from its folder, for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from heed.report.blocks import Section
from heed.report.completions import completions_section
from heed.report.curves import distance_section, online_sections, supervised_section
from heed.report.findings import statements
from heed.report.folder import RunRecord, read_folder
from heed.report.frontier import frontier_files, frontier_sections
from heed.report.offline import offline_sections
from heed.report.overview import header, overview
from heed.report.provenance import data_section, reproduction_section, time_section
from heed.report.scorer import reward_section
from heed.runs.files import write_atomic


@dataclass(frozen=True)
class Live:
    """What a page has that is served while the run goes on.

    Args:
        run: the run's name in addresses.
        version: changes when there is something new to see.
        csrf: the page's token.
        state: how far the run is, in words.
        targets: projects that samples can be sent to.
        may_make: whether a new project can be made for them.
        runs: folder of each run on the page, below this one -> its name in addresses.
    """

    run: str
    version: str
    csrf: str
    state: str
    targets: Sequence[str]
    may_make: bool
    runs: Mapping[str, str]


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run's folder, replacing an earlier one as a whole.

    The page is one file: styles and charts stand in it, nothing is loaded, and it reads without
    scripts. A part that the run does not hold is left out with a sentence that says why. The figure
    and the table of a frontier are also written beside it, `frontier.svg` and `frontier.md`.

    Args:
        run_folder: folder of a run, of one stage or of a pipeline.

    Returns:
        the path of the page.

    Raises:
        StoreError: the folder does not exist or holds nothing of a run, or the disk is full.
    """
    record = read_folder(Path(run_folder))
    path = Path(run_folder) / "report.html"
    write_atomic(path, render(record))
    for name, text in frontier_files(record, str(_packaged("style.css"))).items():
        write_atomic(path.with_name(name), text)
    return path


def render(record: RunRecord, live: Live | None = None) -> str:
    """Render a run's record as HTML: one file, or a page that is served and loads its assets."""
    found, absent = sections(record)
    problems = [text for run in record.walk() for text in run.problems]
    page = _environment().get_template("page.html.jinja")
    return page.render(
        header=header(record),
        overview=overview(record),
        sections=found,
        absent=absent,
        problems=problems,
        style=_packaged("style.css"),
        script=_packaged("slider.js"),
        live=live,
    )


def sections(record: RunRecord) -> tuple[list[Section], list[str]]:
    """Return the sections of a page in order, and sentences on those that are left out."""
    absent = []
    frontiers = frontier_sections(record)
    online = online_sections(record)
    distance = distance_section(record)
    reward = reward_section(record, statements(record))
    completions = completions_section(record)
    supervised = supervised_section(record)
    offline = offline_sections(record)
    if not online and not offline and not frontiers:
        absent.append("Policy optimisation: no policy was optimised in this run.")
    elif online and distance is None:
        absent.append("Quality against distance: fewer than 3 looks measured KL with a score.")
    if reward is None:
        absent.append("Reward model: none was trained in this run.")
    if completions is None:
        absent.append("Completions over time: no stage kept samples.")
    if supervised is None:
        absent.append("Supervised training: no stage logged a loss.")
    parts = [*frontiers, *online, *offline, distance, reward, completions, supervised]
    found = [section for section in parts if section is not None]
    found += [data_section(record), time_section(record), reproduction_section(record)]
    return found, absent


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("heed.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _packaged(name: str) -> Markup:
    """Return a style sheet or script of the package, which is trusted as it stands."""
    text = resources.files("heed.report").joinpath("static", name).read_text(encoding="utf-8")
    return Markup(text)
