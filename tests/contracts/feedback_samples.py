"""Items and pairs for the contracts of scorers and labellers, and a reward model small as a toy."""

from __future__ import annotations

import torch
from torch import nn

from heed.data.batch import Row, TokenBatch
from heed.errors import DataError
from heed.feedback.base import Item
from heed.records import Completion, Pair, Prompt


def completion(prompt: Prompt, text: str, *, error: str | None = None) -> Completion:
    """Make a completion with one token a character."""
    tokens = tuple(min(ord(c), 255) for c in text)
    return Completion(
        id=f"c-{prompt.id}-{text}",
        prompt_id=prompt.id,
        prompt_tokens=(1,),
        tokens=tokens,
        text=text,
        finish="error" if error else "stop",
        error=error,
    )


def item(question: str, text: str, *, raw: bool = False, error: str | None = None, **meta) -> Item:
    """Make an item; `meta` are the columns of its row."""
    prompt = Prompt.make(question, raw=raw, meta=meta)
    return Item(prompt, completion(prompt, text, error=error))


def pair(name: str, left: str, right: str, *, error: str | None = None) -> Pair:
    """Make a pair of two texts; with `error` its left completion failed."""
    prompt = Prompt.make("Who owns the Swan?")
    sides = completion(prompt, left, error=error), completion(prompt, right)
    return Pair(id=name, prompt=prompt, left=sides[0], right=sides[1])


class LetterRenderer:
    """One token a character, the prompt first; refuses rows that are too long."""

    pad_id = 0

    def item_row(self, prompt: Prompt, text: str, max_length: int) -> Row:
        start = [min(ord(c), 255) for c in prompt.text]
        tokens = start + [min(ord(c), 255) for c in text]
        if len(tokens) > max_length:
            raise DataError(f"{len(tokens)} tokens do not fit in {max_length}")
        return Row(prompt.id, tokens, [False] * len(start) + [True] * len(text))


class LetterHead(nn.Module):
    """Scores a row by the mean embedding of its letters; counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(256, 8)
        self.dropout = nn.Dropout(0.5)
        self.sizes: list[tuple[int, int]] = []

    def outputs(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        assert torch.is_inference_mode_enabled()
        self.sizes.append(tuple(batch.tokens.shape))
        vectors = self.dropout(self.embedding(batch.tokens)) * batch.attend[..., None]
        return {"scores": vectors.sum((1, 2)) / batch.lengths}
