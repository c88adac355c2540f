"""Real dialogues and comparisons for `hh.toml`: conversion, and splits by prompt.

A conversation goes to one part by its first human turn, so that two comparisons of one
conversation never stand on both sides of a split; nor does a prompt:

    warm_up   chosen replies to learn, and prompts for the optimiser
    proxy     comparisons for the reward model that is optimised
    gold      comparisons for the reward model that only judges
    judge     prompts to judge on
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heed.data.exchange import read_rows, write_rows
from heed.data.report import DataReport, RowError
from heed.data.transcripts import transcript_reply
from heed.ids import content_hash, stream_seed
from heed.records import Message

PARTS = {"warm_up": 0.24, "proxy": 0.28, "gold": 0.40, "judge": 0.08}
"""Share of the conversations."""
_SPEAKERS = {"U": "user", "S": "assistant", "user": "user", "assistant": "assistant"}
_END = "<|endoftext|>"


def dialogues(folder: Path, *, dialogues: Path, num_letters: int) -> DataReport:
    """Write `texts.jsonl`: task dialogues in the turns of the tokenizers that `heed init` trains.

    Args:
        folder: where to write.
        dialogues: folder with `train.jsonl*` (Schema-Guided Dialogue), or one such file; rows
            have `turns`, a list of [speaker, text] with speakers U and S.
        num_letters: in all, about; dialogues are taken evenly over the file.
    """
    file = next(iter(sorted(dialogues.glob("train.jsonl*"))), dialogues)
    report = DataReport(str(file))
    texts = [turns_text(row["turns"]) for _, row in read_rows(file)]
    report.add_read(len(texts))
    step = max(1, sum(len(text) for text in texts) // num_letters)
    kept = texts[::step]
    report.num_set_aside += len(texts) - len(kept)
    write_rows(folder / "texts.jsonl", ({"text": text} for text in kept))
    return report


def turns_text(turns: Sequence[Sequence[str]]) -> str:
    """Write turns as the chat template does, each reply with its end."""
    said = ""
    for speaker, text in turns:
        role = _SPEAKERS[speaker]
        said += f"<|{role}|>{text}" + (_END if role == "assistant" else "")
    return said


def comparisons(
    folder: Path,
    *,
    comparisons: Path,
    kinds: Sequence[str] = ("helpful",),
    prompt_letters: int = 400,
    reply_letters: int = 600,
    demonstration_letters: int = 300,
    limit: int = 0,
    seed: int,
) -> list[DataReport]:
    """Write demonstrations, proxy, gold, prompts and judge (`.jsonl`), split by conversation.

    The oldest turns of a prompt are left out, two at a time, until it has `prompt_letters`; a
    comparison with a reply above `reply_letters`, or a last turn above `prompt_letters`, is
    dropped and counted. Demonstrations are the chosen replies of at most `demonstration_letters`.

    Args:
        folder: where to write.
        comparisons: folder of `*.jsonl*` with whole dialogues in `chosen` and `rejected`.
        kinds: beginnings of the file names that are read.
        limit: rows read of each file; 0 reads all.
        seed: which conversation goes where.
    """
    files = [f for f in sorted(comparisons.glob("*.jsonl*")) if f.name.startswith(tuple(kinds))]
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
    owner: dict[str, str] = {}
    reports = []
    for file in files:
        report = DataReport(str(file))
        reports.append(report)
        for number, row in read_rows(file):
            if limit and report.read == limit:
                break
            report.add_read()
            try:
                part, pair = split_pair(row, prompt_letters, reply_letters, report, seed)
            except RowError as error:
                report.drop(error.reason, f"line {number} {error.detail}")
                continue
            # Without their oldest turns two conversations may come to the same prompt.
            if owner.setdefault(content_hash(pair["prompt"]), part) == part:
                parts[part].append(pair)
            else:
                report.drop("prompt stands in another part already", pair["prompt"][-1]["content"])
    demonstrations = [
        {"prompt": pair["prompt"], "completion": pair["chosen"]}
        for pair in parts["warm_up"]
        if len(pair["chosen"][0]["content"]) <= demonstration_letters
    ]
    write_rows(folder / "demonstrations.jsonl", demonstrations)
    write_rows(folder / "proxy.jsonl", parts["proxy"])
    write_rows(folder / "gold.jsonl", parts["gold"])
    write_rows(folder / "prompts.jsonl", _prompts(parts["warm_up"]))
    write_rows(folder / "judge.jsonl", _prompts(parts["judge"]))
    return reports


def split_pair(
    row: dict[str, Any], prompt_letters: int, reply_letters: int, report: DataReport, seed: int
) -> tuple[str, dict[str, Any]]:
    """Name the part that a comparison belongs to, and give it as messages.

    Raises:
        RowError: the two sides are equal, answer different prompts, or are too long.
    """
    turns, chosen = transcript_reply(row["chosen"])
    others, rejected = transcript_reply(row["rejected"])
    if turns != others:
        raise RowError("prompts of chosen and rejected differ", chosen[:60])
    if chosen == rejected:
        raise RowError("chosen equals rejected", chosen[:60])
    if not chosen or not rejected:
        raise RowError("empty reply", turns[-1].text[:60])
    if max(len(chosen), len(rejected)) > reply_letters:
        raise RowError(f"reply longer than {reply_letters} letters", chosen[:60])
    first = " ".join(re.findall(r"\w+", turns[0].text.lower()))
    recent = last_turns(turns, prompt_letters)
    if not recent:
        raise RowError(f"last turn longer than {prompt_letters} letters", turns[-1].text[:60])
    if len(recent) < len(turns):
        report.cut(f"oldest turns left out to fit {prompt_letters} letters", turns[0].text[:60])
    prompt = [{"role": turn.role, "content": turn.text} for turn in recent]
    return part_of(first, seed), {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def part_of(conversation: str, seed: int) -> str:
    """The part of a conversation: a function of its first turn and the seed alone."""
    place = stream_seed(seed, "part", conversation) / 2**63
    for name, share in PARTS.items():
        place -= share
        if place < 0:
            return name
    return name


def last_turns(turns: Sequence[Message], letters: int) -> Sequence[Message]:
    """The newest turns that fit, beginning with a human one; none where the last is too long."""
    while turns and sum(len(turn.text) for turn in turns) > letters:
        turns = turns[2:]
    return turns


def _prompts(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": pair["prompt"]} for pair in pairs]
