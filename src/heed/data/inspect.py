"""Show what a data set would teach: format, counts, lengths, losses and one row with its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.data.datasets import (
    load_demonstrations,
    load_preferences,
    load_prompts,
    load_rankings,
    load_steps,
    load_texts,
    recognise,
)
from heed.data.report import DataReport, show_example
from heed.errors import DataError
from heed.records import Message
from heed.settings import DataSettings

if TYPE_CHECKING:
    from heed.data.batch import Row
    from heed.data.render import Renderer
    from heed.data.rows import OnOverlong

_BAR_WIDTH = 40
_NUM_BINS = 8
_SHOWN_CHARACTERS = 2000

_LOADERS: dict[str, Callable[[DataSettings], tuple[Sequence[Any], DataReport]]] = {
    "preferences": load_preferences,
    "rankings": load_rankings,
    "steps": load_steps,
    "demonstrations": load_demonstrations,
    "prompts": load_prompts,
    "texts": load_texts,
}


def inspect(settings: DataSettings, tokenizer_path: str | None = None) -> list[str]:
    """Describe a data set in lines of text, without training on it and without stopping at losses.

    Args:
        settings: which data, and the length that rows must fit.
        tokenizer_path: folder or hub id of a tokenizer, or a run folder that made a model; without
            one, lengths are in characters and no row is rendered.

    Returns:
        Lines: what the rows are, the report, the lengths, and one example with its learn mask,
        learned tokens between `[[` and `]]`.

    Raises:
        DataError: nothing readable is there, or the tokenizer cannot be loaded.
    """
    kind = recognise(settings)
    records, report = _LOADERS[kind](settings)
    lines = [f"kind: {kind}"]
    rows: list[Row] = []
    renderer = None
    if tokenizer_path is not None:
        renderer = _renderer(tokenizer_path)
        rows = _rows(kind, records, renderer, settings, report)
    lines += report.lines()
    try:
        report.check(settings.max_loss_frac)
        lines.append("training would accept this data")
    except DataError as error:
        lines.append(f"training would stop: {error}")
    if renderer is not None:
        lines += histogram(report.lengths, "tokens")
    else:
        lines += histogram([_num_characters(record) for record in records], "characters")
    lines += _example(records, rows, renderer)
    return lines


def histogram(lengths: Sequence[int], unit: str) -> list[str]:
    """Draw how lengths are distributed, with their quantiles."""
    if not lengths:
        return []
    ordered = sorted(lengths)

    def quantile(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    lines = [
        f"length of a row in {unit}: least {ordered[0]:,}, half {quantile(0.5):,}, "
        f"90 % {quantile(0.9):,}, 99 % {quantile(0.99):,}, most {ordered[-1]:,}"
    ]
    width = max(1, -(-(ordered[-1] + 1) // _NUM_BINS))
    counts = [0] * (ordered[-1] // width + 1)
    for length in ordered:
        counts[length // width] += 1
    for i, count in enumerate(counts):
        bar = "#" * round(_BAR_WIDTH * count / max(counts)) or ("." if count else "")
        lines.append(f"  {i * width:>8,} to {(i + 1) * width - 1:>8,}  {count:>8,}  {bar}".rstrip())
    return lines


def _renderer(path: str) -> Renderer:
    from transformers import AutoTokenizer

    from heed.data.render import Renderer

    folder = Path(path)
    if (folder / "model").is_dir():
        folder = folder / "model"
    if folder.is_dir() or path.startswith((".", "/", "~")):
        name, local = str(folder.expanduser()), True
    else:
        name, local = path, False
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
    except Exception as error:
        raise DataError(
            f"no tokenizer could be loaded from {path}: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}. Give a folder that holds tokenizer.json, a run "
            "folder that made a model, or a hub id"
        ) from error
    return Renderer(tokenizer)


def _rows(
    kind: str,
    records: Sequence[Any],
    renderer: Renderer,
    settings: DataSettings,
    report: DataReport,
) -> list[Row]:
    from heed.data.batch import Row
    from heed.data.groups import group_of
    from heed.data.rows import group_rows, pair_rows, step_rows, supervised_rows

    # Showing what is too long is the point here, so `error` counts like `drop`.
    on_overlong: OnOverlong = "truncate" if settings.on_overlong == "truncate" else "drop"
    if kind == "preferences":
        pairs = pair_rows(
            records, renderer, report, max_length=settings.max_length, on_overlong=on_overlong
        )
        return [row for _, *sides in pairs for row in sides]
    if kind == "rankings":
        groups = group_rows(
            [group_of(ranking) for ranking in records], renderer, report,
            max_length=settings.max_length, on_overlong=on_overlong,
        )  # fmt: skip
        return [row for _, rows in groups for row in rows]
    if kind == "steps":
        steps = step_rows(
            records, renderer, report, "\n",
            max_length=settings.max_length, on_overlong=on_overlong,
        )  # fmt: skip
        return [row for _, row in steps]
    if kind == "prompts":
        rows = []
        for prompt in records:
            try:
                tokens = renderer.prompt_tokens(prompt)
            except DataError as error:
                report.drop("the prompt cannot be rendered", str(error))
                continue
            if len(tokens) > settings.max_length:
                report.drop("prompt longer than data.max_length", prompt.text[-80:])
                continue
            report.add_kept(len(tokens))
            rows.append(Row(prompt.id, tokens, [False] * len(tokens)))
        return rows
    return supervised_rows(
        records, renderer, report, max_length=settings.max_length, on_overlong=on_overlong
    )


def _num_characters(record: Any) -> int:
    if hasattr(record, "text") and isinstance(record.text, str) and not hasattr(record, "messages"):
        return len(record.text)
    prompt = record if hasattr(record, "messages") else record.prompt
    length = sum(len(m.text) for m in prompt.messages)
    if hasattr(record, "steps"):
        return length + sum(map(len, record.steps))
    replies = [getattr(record, name, ()) for name in ("reply", "chosen", "rejected")]
    replies += list(getattr(record, "replies", ()))
    return length + max(sum(len(m.text) for m in reply) for reply in replies)


def _example(records: Sequence[Any], rows: Sequence[Row], renderer: Renderer | None) -> list[str]:
    if rows and renderer is not None:
        text = show_example(rows[0], renderer.tokenizer)
        title = "first row as it is learned, learned tokens between [[ and ]]:"
    elif records:
        text = _shown(records[0])
        title = "first record:"
    else:
        return []
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."
    return [title, *(f"  | {line}" for line in cut.splitlines())]


def _shown(record: Any) -> str:
    if hasattr(record, "text") and not hasattr(record, "messages"):
        return str(record.text)
    prompt = record if hasattr(record, "messages") else record.prompt
    parts = [_turns("prompt", prompt.messages)]
    for name in ("reply", "chosen", "rejected"):
        if getattr(record, name, None):
            parts.append(_turns(name, getattr(record, name)))
    for rank, reply in zip(
        getattr(record, "ranks", ()), getattr(record, "replies", ()), strict=True
    ):
        parts.append(_turns(f"rank {rank}", reply))
    for label, step in zip(
        getattr(record, "labels", ()), getattr(record, "steps", ()), strict=True
    ):
        parts.append(f"step labelled {label}: {step}")
    if hasattr(record, "p"):
        parts.append(f"p: {record.p:g}")
    return "\n".join(parts)


def _turns(name: str, messages: Sequence[Message]) -> str:
    return "\n".join(f"{name} ({m.role}): {m.text}" for m in messages)
