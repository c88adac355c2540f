"""Content hashes and named random streams."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.ids import content_hash, file_hash, stream_seed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON)
def test_equal_content_has_an_equal_hash(value: object) -> None:
    again = json.loads(json.dumps(value))
    assert content_hash(value) == content_hash(again)
    assert len(content_hash(value)) == 16
    assert content_hash(value, 8) == content_hash(value)[:8]


@given(JSON, JSON)
def test_other_content_has_another_hash(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash(one) == content_hash(other)) == same


def test_the_order_of_keys_does_not_count_and_that_of_items_does() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])


def test_hashes_and_seeds_are_those_of_every_process_and_release() -> None:
    """They stand in run folders, so they may never change; Python's own hash differs by process."""
    assert (
        content_hash(["prompt", "Ä"]) == hashlib.sha256('["prompt","Ä"]'.encode()).hexdigest()[:16]
    )
    assert stream_seed(0, "sample", 1) == 4934959927094160475
    code = "from heed.ids import stream_seed; print(stream_seed(0, 'sample', 1))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == stream_seed(0, "sample", 1)


def test_a_file_is_hashed_by_its_bytes_and_a_folder_by_names_and_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "deep").mkdir(parents=True)
        (folder / "a").write_bytes(b"x" * 3_000_000)
        (folder / "deep" / "b").write_text("b")
    assert file_hash(one / "a", 64) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert file_hash(one) == file_hash(other)
    (other / "deep" / "b").rename(other / "deep" / "c")
    assert file_hash(one) != file_hash(other)
    (other / "deep" / "c").rename(other / "deep" / "b")
    (other / "deep" / "b").write_text("c")
    assert file_hash(one) != file_hash(other)


def test_moving_bytes_from_one_file_to_its_neighbour_is_seen(tmp_path: Path) -> None:
    for name, parts in (("one", ("ab", "c")), ("other", ("a", "bc"))):
        (tmp_path / name).mkdir()
        for file, text in zip(("1", "2"), parts, strict=True):
            (tmp_path / name / file).write_text(text)
    assert file_hash(tmp_path / "one") != file_hash(tmp_path / "other")


@given(st.lists(st.integers() | st.text(max_size=4), max_size=4))
def test_seeds_fit_every_generator(name: list[object]) -> None:
    seed = stream_seed(*name)
    assert 0 <= seed < 2**63
    np.random.default_rng(seed)


def test_names_that_could_be_confused_are_not() -> None:
    names = [("a", "b"), ("ab",), ("a", "b", ""), ("a", 1), ("a", "1"), (1, "a"), ("a", 1.0)]
    assert len({stream_seed(*name) for name in names}) == len(names)


def test_streams_of_neighbouring_names_are_independent() -> None:
    """Means of streams by step have the spread of independent draws, and no trend."""
    draws = np.array(
        [np.random.default_rng(stream_seed(7, "order", step)).random(20) for step in range(500)]
    )
    assert draws.mean(1).std() == pytest.approx((1 / 12 / 20) ** 0.5, rel=0.1)
    neighbours = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / draws.size**0.5
