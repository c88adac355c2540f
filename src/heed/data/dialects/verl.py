"""Prompts with a verifiable answer, as verl writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heed.data.dialects.base import Dialect, Row, has, rest_of
from heed.data.dialects.turns import messages_in
from heed.data.report import RowError


def _read(row: Row) -> dict[str, Any]:
    model = row["reward_model"]
    if not isinstance(model, Mapping) or model.get("ground_truth") is None:
        raise RowError("reward_model has no ground_truth", repr(model)[:80])
    out: dict[str, Any] = {
        "prompt": messages_in(row["prompt"], "prompt"),
        "answer": model["ground_truth"],
    }
    style = model.get("style")
    return {**out, **({"style": style} if style else {}), **rest_of(row, "prompt", "reward_model")}


def _write(row: Row) -> dict[str, Any]:
    if row.get("answer") is None:
        raise RowError("the format needs an answer")
    model = {"style": row.get("style") or "rule", "ground_truth": row["answer"]}
    rest = rest_of(row, "prompt", "answer", "style")
    prompt = messages_in(row.get("prompt"), "prompt")
    return {"data_source": "unknown", **rest, "prompt": prompt, "reward_model": model}


VERL = Dialect(
    "verl", "prompts", has("prompt", "reward_model"), _read, _write,
    "prompt + reward_model of style and ground_truth, data_source, extra_info",
)  # fmt: skip
