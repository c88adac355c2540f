"""Passages of books to pretrain on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from heed.data.exchange import read_rows, write_rows
from heed.data.report import DataReport
from heed.ids import stream_seed

_PASSAGE_LETTERS = 2000


def passages(folder: Path, *, books: Path, num_letters: int, seed: int) -> DataReport:
    """Write `texts.jsonl`: passages of about 2,000 letters, as many from each book.

    Args:
        folder: where to write.
        books: folder of `*.jsonl*`, or one such file, with the column `text`.
        num_letters: in all, about; a book that is shorter than its share gives all it has.
        seed: which passages of a book are taken.
    """
    files = sorted(books.glob("*.jsonl*")) if books.is_dir() else [books]
    report = DataReport(str(books))
    found = [row for file in files for _, row in read_rows(file)]
    report.add_read(len(found))
    share = max(1, round(num_letters / len(found) / _PASSAGE_LETTERS))
    texts = []
    for number, book in enumerate(found):
        pieces = list(pieces_of(book["text"]))
        rng = np.random.default_rng(stream_seed(seed, "passages", number))
        picked = sorted(rng.permutation(len(pieces))[:share].tolist())
        texts += [{"text": pieces[i], "title": book.get("title")} for i in picked]
    order = np.random.default_rng(stream_seed(seed, "order of passages")).permutation(len(texts))
    write_rows(folder / "texts.jsonl", [texts[i] for i in order])
    report.note(f"{share} passages of about {_PASSAGE_LETTERS} letters from each book")
    return report


def pieces_of(text: str) -> Iterator[str]:
    """Cut a text at its paragraphs into pieces of about `_PASSAGE_LETTERS` letters."""
    piece: list[str] = []
    for paragraph in text.split("\n\n"):
        piece.append(paragraph.strip())
        if sum(len(part) for part in piece) >= _PASSAGE_LETTERS:
            yield "\n\n".join(piece)[: 2 * _PASSAGE_LETTERS]
            piece = []
    if piece:
        yield "\n\n".join(piece)
