"""Plackett-Luce and its ties: brute force over orders and partitions, and the pairs inside."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from heed.errors import DataError
from heed.losses import ranking, reward
from heed.stats import choice

LOG_NU = torch.tensor([-0.3, -1.1, -0.7, 0.2], dtype=torch.float64)


def draw(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of_one(scores: Tensor, ranks: list[int], ties: str, log_nu: Tensor | None = None) -> Tensor:
    group = torch.zeros(len(scores), dtype=torch.long)
    return ranking.plackett_luce(scores, torch.tensor(ranks), group, ties, log_nu)[0]


def order_likelihood(scores: list[float], order: tuple[int, ...]) -> float:
    """P(order) by its definition."""
    out = 1.0
    for j in range(len(order)):
        out *= math.exp(scores[order[j]]) / sum(math.exp(scores[i]) for i in order[j:])
    return out


def agreeing(ranks: list[int]) -> list[tuple[int, ...]]:
    """All orders in which no completion stands before one of a better rank."""
    found = itertools.permutations(range(len(ranks)))
    return [o for o in found if [ranks[i] for i in o] == sorted(ranks)]


def partitions(items: tuple[int, ...], most: int) -> list[list[tuple[int, ...]]]:
    """All ordered partitions into blocks of at most `most`."""
    if not items:
        return [[]]
    out = []
    for size in range(1, min(most, len(items)) + 1):
        for block in itertools.combinations(items, size):
            rest = tuple(i for i in items if i not in block)
            out += [[block, *others] for others in partitions(rest, most)]
    return out


def ranks_of(partition: list[tuple[int, ...]]) -> list[int]:
    ranks = {i: rank for rank, block in enumerate(partition) for i in block}
    return [ranks[i] for i in range(len(ranks))]


RANKINGS = [[1, 2, 3, 4], [3, 1, 2, 1], [1, 1, 1, 2], [2, 1, 1, 1], [1, 1, 2, 2], [5, 5, 5, 5]]


@pytest.mark.parametrize("ranks", RANKINGS)
def test_the_order_not_known_is_the_sum_over_orders(ranks: list[int]) -> None:
    scores = draw(4)
    expected = -math.log(sum(order_likelihood(scores.tolist(), o) for o in agreeing(ranks)))
    assert float(of_one(scores, ranks, "drop")) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ranks", RANKINGS)
def test_soft_ties_are_the_mean_over_orders(ranks: list[int]) -> None:
    scores = draw(4, 1)
    found = [-math.log(order_likelihood(scores.tolist(), o)) for o in agreeing(ranks)]
    assert float(of_one(scores, ranks, "soft")) == pytest.approx(sum(found) / len(found), abs=1e-12)


@pytest.mark.parametrize("ranks", RANKINGS)
def test_davidson_luce_by_its_definition(ranks: list[int]) -> None:
    scores, nu = draw(4, 2).tolist(), [1.0, *LOG_NU.exp().tolist()]

    def weight(chosen: tuple[int, ...]) -> float:
        strength = math.exp(sum(scores[i] for i in chosen) / len(chosen))
        return nu[len(chosen) - 1] * strength

    expected, left = 0.0, list(range(4))
    for block in ranking.blocks(ranks):
        sets = [s for t in range(1, 5) for s in itertools.combinations(left, t)]
        total = sum(weight(s) for s in sets)
        expected -= math.log(weight(tuple(block)) / total)
        left = [i for i in left if i not in block]
    found = of_one(torch.tensor(scores, dtype=torch.float64), ranks, "davidson", LOG_NU)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_probabilities_of_all_outcomes_add_up_to_one() -> None:
    scores = draw(4, 3)
    orders = [ranks_of([(i,) for i in o]) for o in itertools.permutations(range(4))]
    for ties in ("soft", "drop"):
        total = sum(math.exp(-float(of_one(scores, r, ties))) for r in orders)
        assert total == pytest.approx(1.0, abs=1e-12)
    for most in (1, 2, 3, 4):
        found = [ranks_of(p) for p in partitions((0, 1, 2, 3), most)]
        nu = LOG_NU[: most - 1]
        total = sum(math.exp(-float(of_one(scores, r, "davidson", nu))) for r in found)
        assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_with_two_completions_each_reading_is_that_of_pairs(p: float) -> None:
    scores = draw(2, 4)
    left, right, label = scores[:1], scores[1:], torch.tensor([p], dtype=torch.float64)
    ranks = [1, 2] if p == 1.0 else [1, 1]
    pair = reward.bradley_terry(left, right, label)
    torch.testing.assert_close(of_one(scores, ranks, "soft"), pair[0])
    expected = pair[0] if p == 1.0 else torch.zeros(()).double()
    torch.testing.assert_close(of_one(scores, ranks, "drop"), expected)
    davidson = reward.davidson(left, right, LOG_NU[0], label)
    torch.testing.assert_close(of_one(scores, ranks, "davidson", LOG_NU[:1]), davidson[0])


def test_the_best_of_all_is_a_softmax_over_the_candidates() -> None:
    """One best and the rest tied with their order not known: Ziegler's choice of K."""
    scores = draw(4, 5)
    expected = reward.best_of_k(scores[None], torch.tensor([2]))
    torch.testing.assert_close(of_one(scores, [2, 2, 1, 2], "drop"), expected[0])


@pytest.mark.parametrize("ties", ["soft", "drop", "davidson"])
def test_a_constant_and_the_order_of_rows_change_nothing(ties: str) -> None:
    scores, ranks = draw(7, 6), torch.tensor([2, 1, 1, 1, 1, 3, 2])
    group = torch.tensor([7, 7, 7, 3, 3, 7, 3])
    found = ranking.plackett_luce(scores, ranks, group, ties, LOG_NU)
    alone = [of_one(scores[group == g], ranks[group == g].tolist(), ties, LOG_NU) for g in (3, 7)]
    torch.testing.assert_close(found, torch.stack(alone))
    moved = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    again = ranking.plackett_luce(
        scores[moved] + 3.7, ranks[moved] * 10 - 4, group[moved], ties, LOG_NU
    )
    torch.testing.assert_close(found, again)


@pytest.mark.parametrize("ties", ["soft", "drop", "davidson"])
@pytest.mark.parametrize("ranks", RANKINGS)
def test_finite_differences(ties: str, ranks: list[int]) -> None:
    scores, log_nu = draw(4, 7).requires_grad_(), LOG_NU.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, n: of_one(s, ranks, ties, n), (scores, log_nu))


@pytest.mark.parametrize("ties", ["soft", "drop", "davidson"])
def test_huge_differences_stay_finite(ties: str) -> None:
    scores = torch.tensor([1e4, -1e4, 0.0, 1e4], dtype=torch.float64, requires_grad=True)
    loss = of_one(scores, [2, 1, 1, 2], ties, LOG_NU)
    loss.backward()
    assert torch.isfinite(loss)
    assert bool(torch.isfinite(scores.grad).all())


def fitted(rankings: list[list[int]], ties: str, num: int, orders: int) -> tuple[Tensor, Tensor]:
    """Scores (mean 0) and log nu of highest likelihood; one ranking of all items each."""
    scores = torch.zeros(num, dtype=torch.float64, requires_grad=True)
    log_nu = torch.zeros(orders, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores, log_nu], max_iter=100, line_search_fn="strong_wolfe")
    distinct: dict[tuple[int, ...], int] = {}
    for ranks in rankings:
        distinct[tuple(ranks)] = distinct.get(tuple(ranks), 0) + 1
    count = torch.tensor(list(distinct.values()), dtype=torch.float64)
    ranks = torch.tensor(list(distinct)).flatten()
    group = torch.arange(len(distinct)).repeat_interleave(num)

    def closure() -> Tensor:
        optimiser.zero_grad()
        losses = ranking.plackett_luce(scores.repeat(len(distinct)), ranks, group, ties, log_nu)
        total = (losses * count).sum() / count.sum()
        total.backward()
        return total

    optimiser.step(closure)
    return scores.detach() - scores.detach().mean(), log_nu.detach()


def test_planted_utilities_and_tie_parameters_are_recovered() -> None:
    """8,000 rankings drawn from Davidson-Luce; errors stay within four standard errors."""
    true, log_nu = torch.tensor([1.0, 0.4, -0.2, -1.2]).double(), torch.tensor([-0.5, -1.5])
    every = [ranks_of(p) for p in partitions((0, 1, 2, 3), 3)]
    chance = [math.exp(-float(of_one(true, r, "davidson", log_nu))) for r in every]
    generator = torch.Generator().manual_seed(1)
    picked = torch.multinomial(torch.tensor(chance), 8000, replacement=True, generator=generator)
    scores, found = fitted([every[i] for i in picked.tolist()], "davidson", 4, 2)
    torch.testing.assert_close(scores, true, atol=0.08, rtol=0)
    torch.testing.assert_close(found, log_nu.double(), atol=0.15, rtol=0)


def test_orders_that_are_hidden_do_not_bias_what_is_recovered() -> None:
    """Ties that only hide an order: `drop` finds the planted utilities, `soft` shrinks them."""
    true = torch.tensor([1.2, 0.3, -0.4, -1.1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    rankings = []
    for _ in range(6000):
        order = torch.multinomial(true.exp(), 4, generator=generator).tolist()
        ranks = [order.index(i) for i in range(4)]
        rankings.append([min(rank, 1) for rank in ranks])  # the best is known, the rest is not
    dropped, _ = fitted(rankings, "drop", 4, 0)
    soft, _ = fitted(rankings, "soft", 4, 0)
    torch.testing.assert_close(dropped, true, atol=0.1, rtol=0)
    assert float(soft.std() / true.std()) < 0.8


def test_davidson_agrees_with_the_exact_fit_of_counts() -> None:
    """The loss is smallest where `heed.stats.choice.davidson` says, on the same comparisons."""
    wins = torch.tensor([[0, 30, 45], [12, 0, 25], [8, 14, 0]], dtype=torch.float64)
    ties = torch.tensor([[0, 15, 9], [15, 0, 22], [9, 22, 0]], dtype=torch.float64)
    fit = choice.davidson(wins.numpy(), ties.numpy())
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_nu = torch.zeros((), dtype=torch.float64, requires_grad=True)
    i, j = (t.flatten() for t in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    optimiser = torch.optim.LBFGS([scores, log_nu], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        won = reward.davidson(scores[i], scores[j], log_nu)
        half = torch.full_like(won, 0.5)
        tied = reward.davidson(scores[i], scores[j], log_nu, half)
        total = (won * wins.flatten() + tied * ties.flatten() / 2).sum() / 100
        total.backward()
        return total

    optimiser.step(closure)
    found = scores.detach() - scores.detach().mean()
    torch.testing.assert_close(found, torch.from_numpy(fit.values), atol=1e-4, rtol=0)
    assert fit.tie is not None
    assert float(log_nu.detach()) == pytest.approx(fit.tie, abs=1e-4)


def test_davidson_by_hand_and_its_limits() -> None:
    one = torch.tensor([math.log(4.0)], dtype=torch.float64)  # a = 2, Z = 2 + 1/2 + nu
    zero, nu = torch.zeros_like(one), torch.tensor(0.5, dtype=torch.float64).log()
    labels = [(1.0, 0.0, 2 / 3), (0.0, 0.0, 1 / 6), (0.5, 1.0, 1 / 6)]
    for p, tie, expected in labels:
        found = reward.davidson(one, zero, nu, one.new_tensor([p]), one.new_tensor([tie]))
        assert float(found) == pytest.approx(-math.log(expected), abs=1e-12)
    none = torch.tensor(-80.0, dtype=torch.float64)
    torch.testing.assert_close(
        reward.davidson(one, zero, none, one.new_tensor([0.8]), label_smoothing=0.1),
        reward.bradley_terry(one, zero, one.new_tensor([0.8]), label_smoothing=0.1),
    )


def test_davidson_swap_margin_and_finite_differences() -> None:
    left, right, nu = draw(5, 8), draw(5, 9), torch.tensor(-0.4, dtype=torch.float64)
    p = torch.tensor([0.5, 1.0, 0.7, 0.3, 0.5], dtype=torch.float64)
    tie = torch.tensor([1.0, 0.0, 0.2, 0.4, 0.6], dtype=torch.float64)
    margin = draw(5, 10)
    found = reward.davidson(left, right, nu, p, tie, margin, 0.1)
    torch.testing.assert_close(found, reward.davidson(right, left, nu, 1 - p, tie, -margin, 0.1))
    torch.testing.assert_close(found, reward.davidson(left - margin, right, nu, p, tie, None, 0.1))
    inputs = [t.clone().requires_grad_() for t in (left, right, nu)]
    assert torch.autograd.gradcheck(
        lambda a, b, n: reward.davidson(a, b, n, p, tie, margin, 0.1), inputs
    )


def test_inputs_that_are_no_rankings_are_refused() -> None:
    one = torch.zeros(1)
    with pytest.raises(DataError, match="one completion"):
        ranking.plackett_luce(one, one, one.long())
    with pytest.raises(DataError, match="not finite"):
        of_one(torch.zeros(2), [1, float("nan")], "soft")  # type: ignore[list-item]
    with pytest.raises(DataError, match="9 completions share a rank"):
        of_one(torch.zeros(10), [1, *[2] * 9], "drop")
    with pytest.raises(DataError, match="tie parameters for at most 2"):
        of_one(torch.zeros(3), [1, 1, 1], "davidson", LOG_NU[:1])
    with pytest.raises(DataError, match="sets to choose from"):
        of_one(torch.zeros(20), list(range(20)), "davidson", torch.zeros(7))
    with pytest.raises(DataError, match="needs log_nu"):
        of_one(torch.zeros(3), [1, 1, 1], "davidson")
    with pytest.raises(DataError, match="expected the same"):
        ranking.plackett_luce(torch.zeros(2), torch.zeros(3), torch.zeros(2).long())
    half = torch.tensor([0.9])
    with pytest.raises(DataError, match="no probabilities together"):
        reward.davidson(half, half, torch.zeros(()), half, torch.tensor([0.5]))
