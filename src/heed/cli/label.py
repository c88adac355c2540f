"""`heed label`: the page on a file, samples, a store or runs; and exports of the answers."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from heed.cli.command import OK, Context
from heed.cli.label_export import ExportConfig, write_export
from heed.config import load_config
from heed.errors import ConfigError, DataError
from heed.flags import slots_of, split_arguments
from heed.settings import Settings

if TYPE_CHECKING:
    from heed.data.store import Store
    from heed.data.store.foreign import Read
    from heed.web.serve import Listening

KindName = Literal["pair", "ranking", "rating", "demonstration", "edit", "spans"]
ScaleName = Literal["binary", "binary_tie", "seven", "hh8", "nine", "llama4"]
_SQLITE = b"SQLite format 3\x00"
_ASKED = {
    "pair": "to compare", "ranking": "to rank", "rating": "to rate", "edit": "to edit",
    "spans": "to mark", "demonstration": "to answer",
}  # fmt: skip
_HELD_AHEAD = 10
"""Items that a browser holds on one's own machine: so many can be answered while it is away."""


class LabelConfig(Settings):
    """What is labelled, where the answers are kept, and where the page is."""

    store: str | None = None
    """SQLite file or postgresql:// URL; by default NAME.labels.db in the current folder."""
    project: str | None = None
    """Name of the project in the store; by default the name of the file."""
    title: str = ""
    """Title on the page."""
    kind: KindName | None = None
    """Kind of work of a new project: which of two is better, an order, values, writing, editing,
    or marks on a text; pair by default."""
    scale: ScaleName | None = None
    """Scale of a new project of pairs; seven steps by default."""
    attributes: tuple[str, ...] = ()
    """Questions of a rating, each NAME or NAME:LOW:HIGH; by default overall:1:7."""
    span_kinds: tuple[str, ...] = ()
    """What marks on a text can say; by default error, good, unsupported, unsafe, critic_claim."""
    need: int | None = Field(default=None, ge=1, le=100)
    """People who judge each item of a new project; 1 by default."""
    per_prompt: int = Field(default=1, ge=1)
    """Items per prompt that are made of a run's samples."""
    size: int | None = Field(default=None, ge=1, le=9)
    """Completions in one item of a run's samples: 4 for rankings and 1 for ratings by default."""
    guideline: str | None = None
    """File of Markdown that people can read with `g`."""
    runs: str | None = None
    """Folder of runs, or one run, that the page shows as they go; then WHAT can be left out."""
    host: str = "127.0.0.1"
    """Address to listen on; others than this machine's need accounts and TLS."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """Port; by default the first free one from 8410 on."""
    names: tuple[str, ...] = ()
    """Further host names under which visitors come."""
    tls_cert: str | None = None
    """File of the TLS certificate."""
    tls_key: str | None = None
    """File of the TLS key."""
    allow_public: bool = False
    """Listen beyond this machine without accounts or TLS."""
    invite: Literal["annotator", "reviewer", "researcher"] | None = None
    """Print an invitation to the project for this role."""
    trainer_token: bool = False
    """Print a token with which a trainer on another machine adds pairs and reads labels."""
    browser: bool = True
    """Open the browser."""
    api_only: bool = False
    """Serve the REST API without pages."""


def main(words: list[str], context: Context) -> int:
    """Run `heed label WHAT [...]` or `heed label export STORE OUT [...]`."""
    exporting = words[:1] == ["export"]
    if "--help" in words or "-h" in words:
        return _help(exporting)
    cls: type[Settings] = ExportConfig if exporting else LabelConfig
    words = [_spelled(word) for word in (words[1:] if exporting else words)]
    bare, _, _ = split_arguments(slots_of(cls), words)
    for word in bare:
        words.remove(word)
    if exporting:
        return write_export(bare, load_config(ExportConfig, [], words))
    return _label(bare, load_config(LabelConfig, [], words))


def _spelled(word: str) -> str:
    """Let flags be written with hyphens, as `--no-browser` and `--api-only` are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    prefix = "--no-" if name.startswith("--no-") else "--"
    return prefix + name.removeprefix(prefix).replace("-", "_") + equals + value


def _help(exporting: bool) -> int:
    from heed.cli.help import verb_help

    usage = "[FILE.toml ...] [--a.b value ...] [--print-config]"
    if exporting:
        text = "Write answers as files that trainers read, with a manifest"
        print(verb_help("label export", text, ExportConfig).replace(usage, "STORE OUT [--a value]"))
    else:
        text = "Label in the browser: a file, the samples of a run, or a store; follow runs"
        shown = verb_help("label", text, LabelConfig).replace(usage, "FILE|RUN|STORE [--a value]")
        print(f"{shown}\n\nheed label export STORE OUT writes the answers (--help lists how).")
    return OK


def _label(bare: list[str], config: LabelConfig) -> int:
    if len(bare) > 1 or (not bare and config.runs is None):
        raise ConfigError(
            "name one thing to label: heed label FILE.jsonl, heed label runs/generate, or heed "
            f"label labels.db; found {' '.join(bare) or 'nothing'}"
        )
    if config.runs is not None and not Path(config.runs).is_dir():
        raise ConfigError(f"--runs {config.runs} is no folder; name a folder of runs, or a run")
    from heed.web.serve import require_packages, serve

    require_packages()
    from heed.data.store import open_store

    what, source = bare[0] if bare else None, None
    if what is None:
        place = config.store or f"{stem_of(config.runs or '')}.labels.db"
    elif is_store(what):
        place = what
    elif config.store is not None and not Path(what).exists():
        place, config = config.store, config.model_copy(update={"project": what})
    else:
        place, source = config.store or f"{stem_of(what)}.labels.db", what
    listening = _listening(config)
    with open_store(place) as store:
        names = [] if what is None else prepare(store, source, config)
        for line in _about(store, names, place):
            print(line, flush=True)

        def on_ready(address: str) -> None:
            if config.trainer_token and names:
                print(f"token (HEED_TOKEN): {_trainer_token(store, names[0])}", flush=True)
            if config.invite is not None and names:
                secret = store.people.access.invite(names[0], config.invite, actor="system")
                base = address.partition("/start#")[0]
                print(f"invitation ({config.invite}, 7 days): {base}/invite#{secret}", flush=True)

        with contextlib.suppress(KeyboardInterrupt):
            serve(
                store, listening, told=lambda text: print(text, flush=True),
                browser=config.browser, api_only=config.api_only, runs=_path(config.runs),
                on_ready=on_ready,
            )  # fmt: skip
        if what is None:
            names = [project.slug for project in store.projects.all()]
        for line in _about(store, names, place):
            print(line)
    print(f"export them with: heed label export {place} OUT")
    return OK


def _listening(config: LabelConfig) -> Listening:
    from heed.web.serve import Listening

    return Listening(
        config.host, config.port, config.names, _path(config.tls_cert), _path(config.tls_key),
        config.allow_public,
    )  # fmt: skip


def _trainer_token(store: Store, project: str) -> str:
    from heed.data.store.roles import TRAINER_SCOPES

    access = store.people.access
    return access.make_token("trainer", TRAINER_SCOPES, project=project, actor="system")[1]


def prepare(store: Store, source: str | None, config: LabelConfig) -> list[str]:
    """Make the project where it is not there, and add what the source has; returns the projects.

    Raises:
        ConfigError: the store has no project, or another scale than the one asked for.
        DataError: the source has nothing that can be compared.
    """
    slugs = [project.slug for project in store.projects.all()]
    if source is None:
        wanted = [config.project] if config.project else slugs
        if not wanted or not set(wanted) <= set(slugs):
            had = ", ".join(slugs) or "none"
            raise ConfigError(
                f"the store has no project {config.project!r}; it has {had}. "
                "Name a file of prompts and completions to make one"
            )
    else:
        name = config.project or slug_of(source)
        kind = None
        if name in slugs:
            _hold_to(store, name, config)
            kind = store.projects.get(name).config.kind
        read = read_source(source, config, kind)
        if kind is None:
            store.projects.make(name, _project(source, config))
        from heed.data.store.importing import import_rows

        report = import_rows(store, name, read.items, actor="system")
        for reason, count in sorted((read.refused + report.refused).items()):
            print(f"left out: {count} ({reason})")
        wanted = [name]
    for name in wanted:
        _hold_to(store, name, config)
        if config.guideline is not None:
            _write_guideline(store, name, Path(config.guideline))
    return wanted


def read_source(source: str, config: LabelConfig, kind: str | None = None) -> Read:
    """Read items of a kind of work from a file of rows, or from the samples of a run.

    Args:
        kind: of the project that they are for; by default the one that is asked for.

    Raises:
        ConfigError: so many completions are no item of this kind.
        DataError: there is nothing at the path, or nothing that fits the kind.
    """
    from heed.data.completions import COMPLETIONS_FILE
    from heed.data.store.rows import NEEDS, read_items, read_run

    kind = config.kind or kind or "pair"
    least = {"ranking": 2, "rating": 1}.get(kind)
    if config.size is not None and (least is None or config.size < least):
        raise ConfigError(
            f"--size {config.size} does not fit kind {kind}: a ranking has 2 to 9 completions, a "
            "rating 1 to 9, and the other kinds leave no choice"
        )
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source} does not exist; name a file of rows, a run folder or a store")
    if path.name.startswith(COMPLETIONS_FILE) or (path / COMPLETIONS_FILE).exists():
        read = read_run(path, kind, size=config.size, per_prompt=config.per_prompt)
    else:
        read = read_items(path, kind)
    if not read.items:
        why = "; ".join(f"{count} rows: {reason}" for reason, count in read.refused.items())
        raise DataError(
            f"{source} has nothing {_ASKED[kind]} ({why or 'no rows'}). A row has {NEEDS[kind]}"
        )
    return read


def is_store(what: str) -> bool:
    """Whether the words name a label store: a URL, or a SQLite file."""
    if "://" in what:
        return True
    path = Path(what)
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE


def stem_of(source: str) -> str:
    """The name of a file or folder without what follows its first dot."""
    return Path(source).resolve().name.partition(".")[0] or "labels"


def slug_of(source: str) -> str:
    """A project's name from the name of its source."""
    return re.sub(r"[^a-z0-9]+", "-", stem_of(source).lower()).strip("-")[:80] or "labels"


def _project(source: str, config: LabelConfig) -> dict[str, object]:
    need = config.need or 1
    alone = need == 1
    asked: dict[str, object] = {}
    if config.attributes:
        asked["attributes"] = [attribute_of(words) for words in config.attributes]
    if config.span_kinds:
        asked["span_kinds"] = config.span_kinds
    return {
        **asked,
        "kind": config.kind or "pair",
        "title": config.title or stem_of(source),
        "scale": config.scale or "seven",
        "need": need,
        # One person alone has nobody to share a calibration pool with.
        "calibration_frac": 0.0 if alone else 0.15,
        "max_leases": _HELD_AHEAD if alone else 2,
    }


def attribute_of(words: str) -> dict[str, object]:
    """Read a question of a rating: `NAME`, or `NAME:LOW:HIGH`.

    Raises:
        ConfigError: it is neither.
    """
    name, *ends = words.split(":")
    try:
        low, high = (int(end) for end in ends or ("1", "7"))
    except ValueError as error:
        raise ConfigError(
            f"attribute {words!r}: write NAME, or NAME:LOW:HIGH such as helpfulness:0:4"
        ) from error
    if not name.strip() or len(name) > 64 or low >= high:
        raise ConfigError(f"attribute {words!r}: it needs a name, and LOW below HIGH")
    return {"name": name.strip(), "low": low, "high": high}


def _hold_to(store: Store, name: str, config: LabelConfig) -> None:
    found = store.projects.get(name).config
    for setting in ("kind", "scale", "need"):
        wanted = getattr(config, setting)
        if wanted is not None and wanted != getattr(found, setting):
            raise ConfigError(
                f"project {name!r} has {setting} {getattr(found, setting)}, not {wanted}; leave "
                f"--{setting} out, or give another --project"
            )


def _write_guideline(store: Store, name: str, path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the guideline {path} cannot be read ({error})") from error
    if store.projects.guideline(name)[1] != text:
        store.projects.write_guideline(name, text, actor="system")


def _about(store: Store, names: list[str], place: str) -> list[str]:
    lines = []
    for name in names:
        counts = store.items.counts(name)
        done, items = counts["judgments"], counts["items"]
        lines.append(f"{name}: {items} items, {done} answers, in {place}")
    return lines


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
