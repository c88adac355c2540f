"""Load records from files, run folders and hub data sets, and say what was left out and why.

Which columns are read, in this order (the names are TRL's):

    demonstrations  prompt + completion | prompt + reply | messages | prompt + chosen |
                    chosen (a whole dialogue) | text (a transcript)
    prompts         prompt | messages | chosen + rejected | text (a transcript)
    preferences     prompt + chosen + rejected | chosen + rejected (their shared beginning is the
                    prompt); each with optional p, margin, weight; or a run folder with
                    pairs.jsonl and preferences.jsonl
    unpaired        prompt + completion + label; or preferences, each pair a good and a bad reply
    texts           text
    rankings, ratings and steps: `heed.data.labels`

Strings are raw text, lists of messages are dialogues; see `heed.data.columns`. Of `messages` every
assistant turn is learned; of a transcript or of `chosen`, the last. Other columns are kept in
`Prompt.meta`, from where reward functions get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from heed.data.dialects.table import dialects_of
from heed.data.excerpt import excerpt
from heed.data.exchange import RECORD_FILES, find_file, is_hub_id, read_rows
from heed.data.formats import (
    DEMONSTRATIONS,
    PREFERENCES,
    PROMPTS,
    TEXTS,
    UNPAIRED,
    Format,
    PlainText,
    Row,
    match_format,
    read_row,
)
from heed.data.judgements import (
    PAIRS_FILE,
    PREFERENCES_FILE,
    BothBad,
    LabelledPair,
    LabelledReply,
    both_sides,
    has_judgements,
    read_judgements,
)
from heed.data.labels import RANKINGS, STEPS, Rating, Steps, rating_formats
from heed.data.report import DataReport, RowError
from heed.errors import DataError
from heed.ids import content_hash, stream_seed
from heed.records import Demonstration, Prompt, Ranking, prompt_id
from heed.settings import DataSettings, PromptSettings

Kind = Literal[
    "preferences",
    "rankings",
    "ratings",
    "steps",
    "unpaired",
    "demonstrations",
    "prompts",
    "texts",
]
T = TypeVar("T")


class PromptEncoder(Protocol):
    """What says how many tokens a prompt has; `heed.data.render.Renderer` does."""

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """Encode a prompt."""
        ...


def load_demonstrations(data: DataSettings) -> tuple[list[Demonstration], DataReport]:
    """Load prompts with replies to learn.

    Raises:
        DataError: nothing readable is at the path, or the columns are none of those accepted.
    """
    files = ("demonstrations.jsonl", "completions.jsonl")
    return _load(data, "demonstrations", DEMONSTRATIONS, files)


def load_prompts(
    data: DataSettings, renderer: PromptEncoder | None = None
) -> tuple[list[Prompt], DataReport]:
    """Load prompts; of equal ones the first is kept.

    Args:
        data: where from. With a renderer, `max_length` bounds the prompt alone.
        renderer: drops prompts that are too long in its tokens, or that it cannot render; a
            prompt is cut only where `PromptSettings` says so.

    Raises:
        DataError: as `load_demonstrations`; or a prompt is too long and `on_overlong` is `error`.
    """
    files = ("prompts.jsonl", "demonstrations.jsonl", "completions.jsonl", PAIRS_FILE)
    prompts, report = _load(data, "prompts", PROMPTS, files)
    if isinstance(data, PromptSettings) and renderer is not None:
        prompts = _excerpts(prompts, data, renderer, report)
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        # What is sampled depends on the prompt's id, so a second one would get the same samples.
        if prompt.id in seen:
            report.set_aside("prompt repeated; the first is kept", prompt.text[-80:])
        else:
            seen[prompt.id] = prompt
    if renderer is None:
        return list(seen.values()), report
    return [p for p in seen.values() if _prompt_fits(p, renderer, data, report)], report


def _excerpts(
    prompts: Sequence[Prompt], data: PromptSettings, renderer: PromptEncoder, report: DataReport
) -> list[Prompt]:
    """The prompts as `start_text` and `end_text` cut them."""
    start, end = data.start_text, data.end_text
    if start is None and end is None:
        return list(prompts)

    def length(prompt: Prompt) -> int:
        return len(renderer.prompt_tokens(prompt))

    kept = []
    for prompt in prompts:
        cut = excerpt(prompt, start, end, length, data.max_length)
        if cut is None:
            report.drop("no prompt between start_text and end_text", prompt.text[-80:])
        else:
            kept.append(cut)
    report.note(f"prompts begin after {start!r} and end with {end!r}, where one is given")
    return kept


def _prompt_fits(
    prompt: Prompt, renderer: PromptEncoder, data: DataSettings, report: DataReport
) -> bool:
    try:
        length = len(renderer.prompt_tokens(prompt))
    except DataError as error:
        report.drop("the prompt cannot be rendered", str(error))
        return False
    if length <= data.max_length:
        report.add_kept(length)
        return True
    text = f"{length:,} tokens, allowed are {data.max_length:,}: {prompt.text[-60:]}"
    if data.on_overlong == "error":
        raise DataError(f"a prompt has {text!r}; raise data.max_length, or drop such prompts")
    report.drop("prompt longer than data.max_length", text)
    return False


def load_preferences(
    data: DataSettings, both_bad: BothBad = "drop"
) -> tuple[list[LabelledPair], DataReport]:
    """Load pairs of replies with the probability that the chosen one is better.

    Args:
        data: where from.
        both_bad: whether a judgement that both are bad is a tie or no label.

    Raises:
        DataError: as `load_demonstrations`.
    """
    folders = [path for path in paths_of(data) if has_judgements(path)]
    if not folders:
        return _load(data, "preferences", PREFERENCES, ())
    if len(folders) < len(paths_of(data)):
        raise DataError(
            f"data.path mixes folders of {PAIRS_FILE} and {PREFERENCES_FILE} with other sources: "
            f"{', '.join(paths_of(data))}; load one kind at a time"
        )
    report = DataReport(", ".join(folders))
    report.note(f"read as {PAIRS_FILE} + {PREFERENCES_FILE}")
    return read_judgements(folders, report, data.limit, both_bad), report


def load_rankings(data: DataSettings) -> tuple[list[Ranking], DataReport]:
    """Load rankings of several completions of one prompt.

    Raises:
        DataError: as `load_demonstrations`.
    """
    return _load(data, "rankings", RANKINGS, ("rankings.jsonl",))


def load_ratings(data: DataSettings, attributes: Sequence[str]) -> tuple[list[Rating], DataReport]:
    """Load completions with the numbers that they were given.

    Args:
        data: where from.
        attributes: the columns that hold the numbers; a row may lack some.

    Raises:
        DataError: as `load_demonstrations`; or no row has one of the attributes.
    """
    formats = rating_formats(attributes)
    ratings, report = _load(data, "ratings", formats, ("ratings.jsonl",))
    counts = [sum(r.numbers[k] is not None for r in ratings) for k in range(len(attributes))]
    absent = [name for name, count in zip(attributes, counts, strict=True) if not count]
    if absent:
        _, row = next(read_rows(paths_of(data)[0], split=data.split))
        reasons = ", ".join(f"{reason} ({n:,})" for reason, n in report.reasons.most_common(2))
        raise DataError(
            f"no row of {report.source} has a number for {', '.join(absent)}; the first row has "
            f"the columns {', '.join(row)}. Rows left out: {reasons or 'none'}. Name columns that "
            "hold numbers, or leave the attribute out"
        )
    for name, count in zip(attributes, counts, strict=True):
        if count < len(ratings):
            report.note(f"{name}: {count:,} of {len(ratings):,} completions have a number")
    return ratings, report


def load_steps(data: DataSettings) -> tuple[list[Steps], DataReport]:
    """Load completions in steps, with a label for each.

    Raises:
        DataError: as `load_demonstrations`.
    """
    return _load(data, "steps", STEPS, ("steps.jsonl",))


def load_unpaired(data: DataSettings) -> tuple[list[LabelledReply], DataReport]:
    """Load single replies that are labelled good or bad; of a pair both sides are taken.

    Raises:
        DataError: as `load_demonstrations`.
    """
    path = paths_of(data)[0]
    if not has_judgements(path):
        _, row = next(read_rows(path, split=data.split))
        if match_format(row, UNPAIRED) or not match_format(row, PREFERENCES):
            return _load(data, "unpaired", UNPAIRED, ())
    pairs, report = load_preferences(data)
    report.note("each pair is read as a good and a bad reply")
    report.add_read(len(pairs))
    return [reply for pair in pairs for reply in both_sides(pair)], report


def load_texts(data: DataSettings) -> tuple[list[PlainText], DataReport]:
    """Load texts whole; `Renderer.text_rows` splits long ones without losing a token.

    Raises:
        DataError: as `load_demonstrations`.
    """
    return _load(data, "texts", TEXTS, ("texts.jsonl",))


def load_supervised(
    data: DataSettings,
) -> tuple[list[Demonstration] | list[PlainText], DataReport]:
    """Load what supervised fine-tuning learns: demonstrations, or texts where it finds plain text.

    Raises:
        DataError: as `load_demonstrations`.
    """
    return load_texts(data) if recognise(data) == "texts" else load_demonstrations(data)


def recognise(data: DataSettings) -> Kind:
    """Say what the first row of the first source is good for.

    Raises:
        DataError: its columns are of no known kind.
    """
    path = paths_of(data)[0]
    if has_judgements(path):
        return "preferences"
    _, row = next(read_rows(path, split=data.split))
    kinds: list[tuple[Kind, Sequence[Format[Any]]]] = [
        ("preferences", PREFERENCES),
        ("rankings", RANKINGS),
        ("steps", STEPS),
        ("demonstrations", DEMONSTRATIONS),
        ("prompts", PROMPTS),
        ("texts", TEXTS),
    ]
    if not is_hub_id(path) and find_file(path).name.startswith("prompts.jsonl"):
        return "prompts"
    for kind, formats in kinds:
        if match_format(row, formats):
            return kind
    every = [format for _, formats in kinds for format in formats]
    raise DataError(_no_format(path, row, "rows", every))


def split_by_prompt(records: Sequence[T], frac: float, seed: int) -> tuple[list[T], list[T]]:
    """Split records so that equal prompts fall on one side, whatever else the rows hold.

    Args:
        records: prompts, demonstrations, labelled pairs, labelled replies or texts.
        frac: share of the prompts on the second side; above 0, at least one of two or more.
        seed: of the run. Which prompts go depends on it and on their text alone.

    Returns:
        (the rest, the held-out share), each in the order given.
    """
    keys = [_prompt_key(record) for record in records]
    order = sorted(set(keys), key=lambda key: stream_seed(seed, "split by prompt", key))
    num_out = 0 if frac <= 0 or len(order) < 2 else round(frac * len(order))
    if frac > 0 and len(order) > 1:
        num_out = min(max(1, num_out), len(order) - 1)
    out = set(order[:num_out])
    rest = [record for record, key in zip(records, keys, strict=True) if key not in out]
    held_out = [record for record, key in zip(records, keys, strict=True) if key in out]
    return rest, held_out


def _prompt_key(record: Any) -> str:
    if isinstance(record, PlainText):
        return content_hash(record.text)
    prompt = record if isinstance(record, Prompt) else record.prompt
    return prompt_id(prompt.messages)


def paths_of(data: DataSettings) -> tuple[str, ...]:
    """Return the sources as a tuple, also where one is named."""
    return (data.path,) if isinstance(data.path, str) else data.path


def _load(
    data: DataSettings, kind: Kind, formats: Sequence[Format[T]], files: Sequence[str]
) -> tuple[list[T], DataReport]:
    report = DataReport(", ".join(paths_of(data)))
    records: list[T] = []
    chosen: dict[str, Format[T]] = {}
    for path, number, row in islice(_rows(data, files), data.limit):
        if path not in chosen:
            found = match_format(row, formats)
            if found is None:
                raise DataError(_no_format(path, row, kind, formats))
            chosen[path] = found
            report.note(f"read as {kind}: {found}")
        report.add_read()
        try:
            records.append(read_row(row, chosen[path]))
        except RowError as problem:
            report.drop(problem.reason, f"{Path(path).name}:{number} {problem.detail}".strip())
    return records, report


def _rows(data: DataSettings, files: Sequence[str]) -> Iterator[tuple[str, int, Row]]:
    for path in paths_of(data):
        for number, row in read_rows(path, split=data.split, prefer=files or RECORD_FILES):
            yield path, number, row


def _no_format(path: str, row: Row, kind: str, formats: Sequence[Format[Any]]) -> str:
    accepted = "; ".join(dict.fromkeys(str(known) for known in formats))
    text = f"{path} has the columns {', '.join(row) or '(none)'}; {kind} are read from {accepted}. "
    if kind == "preferences":
        text += f"Or give a run folder with {PAIRS_FILE} and {PREFERENCES_FILE}. "
    if kind == "demonstrations" and "text" in row:
        text += "Plain text has no reply to learn; load it as texts. "
    dialects = dialects_of(row)
    if dialects:
        names = " or ".join(dialect.name for dialect in dialects)
        text += (
            f"They look like {names}; convert them first: "
            f"heed data convert {path} OUT.jsonl --format {dialects[0].name} --to preferences. "
        )
    return text + "Rename the columns, or choose other data"
