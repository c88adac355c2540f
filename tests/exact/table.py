"""Write the table of docs/methods/README.md: where each method ends, and how far from there.

python -m tests.exact.table
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.exact.lines import distances, lines

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SEEDS = (0, 1, 2)
HEAD = (
    "| method | where it ends | distance to there | distance to the regularised optimum |",
    "|---|---|---|---|",
)


def rows() -> Iterator[str]:
    """Lines of the table."""
    yield from HEAD
    for line in lines():
        with tempfile.TemporaryDirectory() as folder:
            found = distances(line, Path(folder), SEEDS)
        cells = [", ".join(f"{value:.4f}" for value in values) for values in found]
        print(line.words, *cells, sep="  ", flush=True)
        yield f"| {line.words} | {line.end} | {cells[0]} | {cells[1]} |"


def written() -> list[list[str]]:
    """Cells of the lines that the page has."""
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert tuple(table[:2]) == HEAD
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def main() -> None:
    """Put the table between its marks."""
    table = "\n".join(rows())
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
