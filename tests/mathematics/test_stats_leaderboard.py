"""Leaderboards: strengths of the fit, ranks that the data support, and intervals that cover."""

import numpy as np
import pytest

from heed.errors import DataError
from heed.stats import choice
from heed.stats.intervals import win_rate
from heed.stats.leaderboard import leaderboard

NAMES = ("base", "sft", "ppo", "best")
TRUTH = dict(zip(NAMES, [-0.9, -0.1, 0.2, 0.8], strict=True))


def simulate(rng, num_prompts=150, num_people=15, spread=0.0, taste=0.0):
    """Three comparisons of each prompt; spread and taste move the gap by prompt and by person.

    A third of the comparisons that would be lost or won alike is a tie, which leaves the mean.
    """
    prompt = np.repeat(np.arange(num_prompts), 3)
    person = rng.integers(num_people, size=len(prompt))
    left = rng.integers(4, size=len(prompt))
    right = (left + rng.integers(1, 4, size=len(prompt))) % 4
    values = np.array([TRUTH[name] for name in NAMES])
    of_prompt = rng.normal(0, spread, (num_prompts, 4))
    of_person = rng.normal(0, taste, (num_people, 4))
    seen = values + of_prompt[prompt] + of_person[person]
    row = np.arange(len(prompt))
    p = 1 / (1 + np.exp(seen[row, right] - seen[row, left]))
    tie = 0.4 * np.minimum(p, 1 - p)
    u = rng.random(len(prompt))
    said = np.where(u < p - tie / 2, 1.0, np.where(u < p + tie / 2, 0.5, 0.0))
    return (
        [NAMES[i] for i in left],
        [NAMES[i] for i in right],
        said,
        prompt.tolist(),
        person.tolist(),
    )


def test_strengths_are_those_of_the_fit_and_rates_those_of_the_counts():
    left, right, said, prompts, _ = simulate(np.random.default_rng(0))
    board = leaderboard(left, right, said, rng=np.random.default_rng(1), prompts=prompts, prior=0.0)
    a, b = ([NAMES.index(name) for name in side] for side in (left, right))
    wins, ties = choice.count(a, b, said, 4)
    fit = choice.bradley_terry(wins, ties).values
    for standing in board.standings:
        i = NAMES.index(standing.policy)
        assert standing.strength.estimate == pytest.approx(fit[i])
        assert standing.num_wins == wins[i].sum()
        assert standing.num_losses == wins[:, i].sum()
        assert standing.num_comparisons == sum(i in pair for pair in zip(a, b, strict=True))
        assert standing.strength.n == 150
    met = [
        (x, y) == ("ppo", "sft") or (y, x) == ("ppo", "sft")
        for x, y in zip(left, right, strict=True)
    ]
    outcome = [o if x == "ppo" else 1 - o for o, x, m in zip(said, left, met, strict=True) if m]
    clusters = [p for p, m in zip(prompts, met, strict=True) if m]
    assert board.win_rates["ppo", "sft"] == win_rate(outcome, clusters)
    assert board.win_rates["sft", "ppo"].estimate == pytest.approx(1 - np.mean(outcome))
    assert len(board.win_rates) == 12


def test_ranks_say_no_more_than_the_data():
    rng = np.random.default_rng(2)
    few = leaderboard(*simulate(rng, 20)[:3], rng=rng)
    many = leaderboard(*simulate(rng, 4000)[:3], rng=rng)
    assert [s.policy for s in many.standings] == ["best", "ppo", "sft", "base"]
    assert [(s.rank_low, s.rank_high) for s in many.standings] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert many.separable("ppo", "sft")
    assert not many.separable("sft", "ppo")
    assert sum(s.rank_high - s.rank_low for s in few.standings) > 0
    assert not few.separable("ppo", "sft")


def test_equal_policies_share_their_rank():
    rng, apart = np.random.default_rng(3), 0
    for _ in range(100):
        said = (rng.random(200) < 0.5).astype(float)
        board = leaderboard(["a"] * 200, ["b"] * 200, said, rng=rng, num_resamples=300)
        apart += board.separable("a", "b") or board.separable("b", "a")
    assert apart <= 12  # 5 expected


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_names_order_and_sides_change_nothing(ties):
    left, right, said, prompts, _ = simulate(np.random.default_rng(4))

    def board(*columns, clusters):
        return leaderboard(*columns, prompts=clusters, ties=ties, rng=np.random.default_rng(5))

    one = board(left, right, said, clusters=prompts)
    turned = board(right, left, 1 - said, clusters=prompts)
    new = {name: name.upper() for name in NAMES}
    renamed = board([new[x] for x in left], [new[x] for x in right], said, clusters=prompts)
    for a, b, c in zip(one.standings, turned.standings, renamed.standings, strict=True):
        assert (new[a.policy], b.policy) == (c.policy, a.policy)
        assert a.strength.estimate == pytest.approx(b.strength.estimate, abs=1e-9)
        assert a.strength.low == pytest.approx(b.strength.low, abs=1e-9)
        assert a.strength == c.strength
    assert (one.tie is None) == (ties == "half")


def test_an_anchor_stands_at_zero():
    left, right, said, *_ = simulate(np.random.default_rng(6))
    board = leaderboard(left, right, said, anchor="sft", rng=np.random.default_rng(7))
    free = leaderboard(left, right, said, rng=np.random.default_rng(7))
    place = {s.policy: s for s in board.standings}
    assert (place["sft"].strength.estimate, place["sft"].strength.low) == (0, 0)
    middle = {s.policy: s.strength.estimate for s in free.standings}
    assert place["best"].strength.estimate == pytest.approx(middle["best"] - middle["sft"])
    assert [s.rank_high for s in board.standings] == [s.rank_high for s in free.standings]


def coverage(num, resampled, seed, **options):
    """Share of the intervals that hold what a very large study of the same kind finds."""
    rng = np.random.default_rng(seed)
    left, right, said, *_ = simulate(rng, 60_000, 60_000, **options)
    a, b = ([NAMES.index(name) for name in side] for side in (left, right))
    truth = choice.bradley_terry(*choice.count(a, b, said, 4)).values
    held = 0
    for _ in range(num):
        left, right, said, prompts, people = simulate(rng, **options)
        labels = {"prompts": prompts, "people": people}
        board = leaderboard(
            left, right, said, rng=rng, num_resamples=400, prior=0.0,
            **{name: labels[name] for name in resampled},
        )  # fmt: skip
        for s in board.standings:
            held += s.strength.low <= truth[NAMES.index(s.policy)] <= s.strength.high
    return held / (4 * num)


def test_intervals_by_prompt_cover_the_truth():
    """300 leaderboards of 450 comparisons of 150 prompts that differ in what they favour."""
    assert coverage(300, ["prompts"], 8, spread=1.0) >= 0.93


@pytest.mark.slow
def test_resampling_people_too_covers_what_prompts_alone_do_not():
    options = {"spread": 0.5, "taste": 1.0}
    assert coverage(300, ["prompts", "people"], 9, **options) >= 0.93
    assert coverage(300, ["prompts"], 9, **options) <= 0.85


def test_two_crossed_clusterings_of_single_comparisons_widen_the_interval():
    """A cluster of its own in both: weights are products of two draws, of variance 3 for 1."""
    left, right, said, *_ = simulate(np.random.default_rng(10), 400)
    own = list(range(len(left)))
    one = leaderboard(left, right, said, prompts=own, rng=np.random.default_rng(11))
    two = leaderboard(left, right, said, prompts=own, people=own, rng=np.random.default_rng(11))
    ratio = [
        (b.strength.high - b.strength.low) / (a.strength.high - a.strength.low)
        for a, b in zip(one.standings, two.standings, strict=True)
    ]
    assert np.mean(ratio) == pytest.approx(3**0.5, rel=0.1)


def test_policies_that_were_never_compared_are_named():
    with pytest.raises(DataError, match=r"2 sets .*\['a', 'b'\]; \['c', 'd'\]"):
        leaderboard(["a", "c"], ["b", "d"], [1, 0], rng=np.random.default_rng(0))


def test_one_that_never_lost_is_finite_by_the_prior():
    left, right = ["a"] * 10 + ["b"] * 10, ["b"] * 10 + ["c"] * 10
    board = leaderboard(left, right, [1] * 20, rng=np.random.default_rng(0))
    assert [s.policy for s in board.standings] == ["a", "b", "c"]
    assert board.standings[0].strength.estimate < 10
    with pytest.raises(DataError, match="prior"):
        leaderboard(left, right, [1] * 20, prior=0.0, rng=np.random.default_rng(0))


def test_inputs_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="anchor"):
        leaderboard(["a"], ["b"], [1], anchor="z", rng=rng)
    with pytest.raises(DataError, match="two different items"):
        leaderboard(["a", "a"], ["a", "b"], [1, 1], rng=rng)
    with pytest.raises(DataError, match="1 right"):
        leaderboard(["a", "b"], ["a"], [1, 0], rng=rng)
    board = leaderboard(["a", "a"], ["b", "b"], [1, 0], rng=rng)
    with pytest.raises(DataError, match="no policy 'z'"):
        board.separable("a", "z")
