"""Agreement beyond chance: published examples, slow definitions, limits and invariances."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.errors import ConfigError, DataError
from heed.stats import agreement
from heed.stats.agreement import cohen_kappa, cohen_matrix, fleiss_kappa, gwet, krippendorff_alpha
from heed.stats.answers import collect
from heed.stats.intervals import Interval, Undefined

METRICS = ("nominal", "ordinal", "interval", "ratio")
WEIGHTS = ("identity", "linear", "quadratic")

# Krippendorff 2011, four observers and twelve units; None where an observer did not answer.
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
# Krippendorff's three coders and fifteen units, of which one has no answer.
THREE = [
    [None] * 5 + [3, 4, 1, 2, 1, 1, 3, 3, None, 3],
    [1, None, 2, 1, 3, 3, 4, 3] + [None] * 7,
    [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
]
# Fleiss 1971 as in the usual example: ten items, fourteen raters, five categories.
FOURTEEN = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def rng():
    return np.random.default_rng(0)


def of_table(table, values=None):
    """Answers [raters, items] with None where missing."""
    rows = [(i, r, v) for r, row in enumerate(table) for i, v in enumerate(row)]
    return collect(*zip(*rows, strict=True), values)


def of_counts(counts):
    return of_table(np.array([np.repeat(np.arange(len(c)), c) for c in counts]).T.tolist())


def slow_alpha(table, metric):
    """The definition: mean distance within units over mean distance of all pairable answers."""
    units = [[v for v in unit if v is not None] for unit in zip(*table, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    every = [v for unit in units for v in unit]
    num = {v: every.count(v) for v in set(every)}

    def distance(a, b):
        if metric == "nominal":
            return float(a != b)
        if metric == "interval":
            return (a - b) ** 2
        if metric == "ratio":
            return ((a - b) / (a + b)) ** 2
        low, high = min(a, b), max(a, b)
        return (sum(num[g] for g in num if low <= g <= high) - (num[a] + num[b]) / 2) ** 2

    observed = sum(
        sum(distance(a, b) for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(every)
    expected = sum(distance(a, b) for a, b in permutations(every, 2))
    return 1 - observed / (expected / (len(every) * (len(every) - 1)))


def slow_gwet(table, weights, values):
    q = len(values)
    place = {v: i for i, v in enumerate(values)}
    power = {"identity": 0, "linear": 1, "quadratic": 2}[weights]

    def weight(a, b):
        gap = abs(place[a] - place[b]) / (q - 1)
        return 1.0 if a == b else (0.0 if weights == "identity" else 1 - gap**power)

    units = [[v for v in unit if v is not None] for unit in zip(*table, strict=True)]
    units = [unit for unit in units if unit]
    twice = [unit for unit in units if len(unit) > 1]
    observed = np.mean([np.mean([weight(a, b) for a, b in permutations(u, 2)]) for u in twice])
    share = {v: np.mean([unit.count(v) / len(unit) for unit in units]) for v in values}
    total = sum(weight(a, b) for a in values for b in values)
    chance = total / (q * (q - 1)) * sum(p * (1 - p) for p in share.values())
    return (observed - chance) / (1 - chance)


def slow_kappa(a, b, weights, q):
    def disagree(i, j):
        return {"identity": float(i != j), "linear": abs(i - j), "quadratic": (i - j) ** 2}[weights]

    observed = np.mean([disagree(i, j) for i, j in zip(a, b, strict=True)])
    return 1 - observed / np.mean([disagree(i, j) for i in a for j in b])


@pytest.mark.parametrize(
    ("metric", "four", "three"),
    [
        ("nominal", 0.743421052631579, 0.691358024691358),
        ("ordinal", 0.8153875037548814, 0.8067214199413153),
        ("interval", 0.8491071428571428, 0.8108448928121059),
        ("ratio", 0.7974027747116121, 0.8089436707842471),
    ],
)
def test_alpha_of_published_examples(metric, four, three):
    """Krippendorff 2011 prints 0.743, 0.815, 0.849, 0.797; digits by the package krippendorff."""
    for table, expected, n in ((FOUR, four, 11), (THREE, three, 12)):
        found = krippendorff_alpha(of_table(table), metric, rng=rng())
        assert isinstance(found, Interval)
        assert found.estimate == pytest.approx(expected, abs=1e-12)
        assert found.estimate == pytest.approx(slow_alpha(table, metric), abs=1e-12)
        assert found.n == n
        assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("identity", 0.775444068127), ("linear", 0.85873913643261), ("quadratic", 0.9140007235516)],
)
def test_gwet_of_the_published_example(weights, expected):
    """Gwet prints AC1 0.775 for the same table; digits by the package irrCAC."""
    found = gwet(of_table(FOUR, range(1, 6)), weights, rng=rng())
    assert found.estimate == pytest.approx(expected, abs=1e-12)
    assert found.n == 11


def test_fleiss_of_the_published_example():
    found = fleiss_kappa(of_counts(FOURTEEN), rng=rng())
    assert found.estimate == pytest.approx(0.20993070442195522, abs=1e-12)
    assert found.n == 10


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("identity", 0.49152542372881347),
        ("linear", 0.4736842105263158),
        ("quadratic", 0.4545454545454546),
    ],
)
def test_cohen_of_a_textbook_table(weights, expected):
    """200 items in a table of 3 by 3; digits by statsmodels."""
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    first, second = np.repeat(list(np.ndindex(3, 3)), table.ravel(), axis=0).T
    answers = of_table([first.tolist(), second.tolist()])
    found = cohen_kappa(answers, 0, 1, weights, rng=rng())
    assert found.estimate == pytest.approx(expected, abs=1e-12)
    assert found.n == 200


TABLES = st.integers(2, 4).flatmap(
    lambda raters: st.integers(2, 7).flatmap(
        lambda items: st.lists(
            st.lists(st.sampled_from([None, 1, 2, 3, 4]), min_size=items, max_size=items),
            min_size=raters,
            max_size=raters,
        )
    )
)


def pairable(table):
    units = [[v for v in unit if v is not None] for unit in zip(*table, strict=True)]
    return [v for unit in units if len(unit) > 1 for v in unit]


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_any_table_gives_what_the_definitions_give(table):
    options = {"num_resamples": 2}
    answers = of_table(table, (1, 2, 3, 4))
    for metric in METRICS:
        found = krippendorff_alpha(answers, metric, rng=rng(), **options)
        if len(set(pairable(table))) < 2:
            assert isinstance(found, Undefined)
        else:
            check(found, slow_alpha(table, metric))
    if pairable(table):
        for weights in WEIGHTS:
            check(
                gwet(answers, weights, rng=rng(), **options), slow_gwet(table, weights, range(1, 5))
            )
    for a, b in combinations(range(len(table)), 2):
        both = [(i, j) for i, j in zip(table[a], table[b], strict=True) if None not in (i, j)]
        if not both or a not in answers.raters or b not in answers.raters:
            continue
        for weights in WEIGHTS:
            found = cohen_kappa(answers, a, b, weights, rng=rng(), **options)
            if len({i for pair in both for i in pair}) < 2:
                assert isinstance(found, Undefined)
            else:
                check(found, slow_kappa(*zip(*both, strict=True), weights, 4))


def check(found, expected):
    """The estimate, also where so few items give it no interval."""
    if isinstance(found, Undefined):
        stated = float(found.reason.removeprefix("the estimate ").split()[0])
        assert stated == pytest.approx(expected, abs=6e-4)
    else:
        assert found.estimate == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=2, max_size=12), st.randoms())
def test_names_and_order_do_not_matter(units, random):
    table = [list(column) for column in zip(*units, strict=True)]
    order = list(range(len(units)))
    random.shuffle(order)
    moved = [[row[i] for i in order] for row in reversed(table)]
    swapped = [[2 - v for v in row] for row in table]

    def numbers(rows):
        answers = of_table(rows, (0, 1, 2))
        options = {"rng": rng(), "num_resamples": 2}
        return [
            *(krippendorff_alpha(answers, m, **options) for m in METRICS[:3]),
            fleiss_kappa(answers, **options),
            *(gwet(answers, w, **options) for w in WEIGHTS),
        ]

    for other in (moved, swapped):
        for one, two in zip(numbers(table), numbers(other), strict=True):
            assert type(one) is type(two) or Undefined in (type(one), type(two))
            if isinstance(one, Interval) and isinstance(two, Interval):
                assert one.estimate == pytest.approx(two.estimate, abs=1e-9)


def test_swapping_the_candidates_with_their_labels_changes_no_kappa():
    table = [[-1, 1, 1, 0, -1, 1], [-1, 1, 0, 0, 1, 1]]
    turned = [[-v for v in row] for row in table]
    for weights in WEIGHTS:
        one, two = (
            cohen_kappa(of_table(t, (-1, 0, 1)), 0, 1, weights, rng=rng()) for t in (table, turned)
        )
        assert one.estimate == pytest.approx(two.estimate)


def every(answers):
    options = {"rng": rng(), "num_resamples": 200}
    return [
        *(krippendorff_alpha(answers, m, **options) for m in METRICS),
        fleiss_kappa(answers, **options),
        *(gwet(answers, w, **options) for w in WEIGHTS),
        *(cohen_kappa(answers, 0, 1, w, **options) for w in WEIGHTS),
    ]


def test_perfect_agreement_is_one():
    column = [1, 2, 3, 1, 2, 3, 2, 2, 1, 3] * 3
    for found in every(of_table([column] * 3)):
        assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)


def test_answers_by_chance_agree_by_chance():
    draw = np.random.default_rng(3).integers(1, 4, (3, 4000)).tolist()
    for found in every(of_table(draw)):
        assert abs(found.estimate) < 0.04
        assert found.low < 0 < found.high or abs(found.estimate) < 0.02


def test_unanimous_answers_are_undefined_with_a_reason_and_gwet_is_not():
    answers = of_table([[1] * 20] * 3, (1, 2))
    found = every(answers)
    for name, value in zip(["alpha"] * 4 + ["fleiss"], found[:5], strict=True):
        assert isinstance(value, Undefined), name
        assert "every answer is the same" in value.reason
        assert value.n == 20
    assert [v.estimate for v in found[5:8]] == [1.0, 1.0, 1.0]
    assert all(isinstance(v, Undefined) for v in found[8:])
    assert str(found[0]).startswith("undefined, because every answer is the same")
    assert isinstance(gwet(of_table([[1] * 20] * 3), rng=rng()), Undefined)


def test_one_dominant_answer_is_where_gwet_is_steady():
    """One item of fifty differs: kappa is near 0, its interval has no value in a third of the
    resamples, and AC1 stays at what people see."""
    answers = of_table([[1] * 50, [2] + [1] * 49])
    found = krippendorff_alpha(answers, rng=rng())
    assert isinstance(found, Undefined)
    assert "has no interval" in found.reason
    steady = gwet(answers, rng=rng())
    assert 0.95 < steady.estimate < 1
    assert steady.low > 0.9


def test_what_cannot_be_computed_says_why():
    uneven = of_table(FOUR)
    assert "from 1 to 4 answers" in fleiss_kappa(uneven, rng=rng()).reason
    alone = of_table([[1, 2, 3]])
    for found in (krippendorff_alpha(alone, rng=rng()), fleiss_kappa(alone, rng=rng()),
                  gwet(alone, rng=rng())):  # fmt: skip
        assert "no item has two answers" in found.reason
    apart = of_table([[1, None], [None, 2]])
    assert "no item in common" in cohen_kappa(apart, 0, 1, rng=rng()).reason


def test_the_matrix_has_every_two_people():
    found = cohen_matrix(of_table(FOUR), rng=rng(), num_resamples=100)
    assert list(found) == list(combinations(range(4), 2))
    assert found[0, 3].n == 9


def coverage(statistic, num):
    """How often the interval holds the value in a large population of items."""
    draw = np.random.default_rng(11)

    def people(size):
        truth = draw.integers(0, 3, size)
        return [
            np.where(draw.random(size) < skill, truth, draw.integers(0, 3, size)).tolist()
            for skill in (0.9, 0.8, 0.6)
        ]

    big = statistic(of_table(people(200_000), (0, 1, 2)), rng=draw, num_resamples=1).estimate
    found = [
        statistic(of_table(people(100), (0, 1, 2)), rng=draw, num_resamples=500) for _ in range(num)
    ]
    return sum(i.low <= big <= i.high for i in found) / num


@pytest.mark.parametrize(
    "statistic",
    [
        agreement.krippendorff_alpha,
        agreement.fleiss_kappa,
        agreement.gwet,
        lambda answers, **options: cohen_kappa(answers, 0, 1, **options),
    ],
    ids=["alpha", "fleiss", "gwet", "cohen"],
)
def test_intervals_cover_the_value_of_the_population(statistic):
    """300 studies of 100 items: at least 93 % of the 95 % intervals hold it."""
    assert coverage(statistic, 300) >= 0.93


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="more than once"):
        collect(["a", "a"], ["x", "x"], [1, 2])
    with pytest.raises(DataError, match="NaN"):
        collect(["a"], ["x"], [float("nan")])
    with pytest.raises(DataError, match="expected one of each"):
        collect(["a"], ["x", "y"], [1, 2])
    with pytest.raises(DataError, match="among different values"):
        collect(["a"], ["x"], [3], values=(1, 2))
    with pytest.raises(DataError, match="no common order"):
        collect(["a", "b"], ["x", "x"], [1, "left"])
    words = of_table([["left", "right"], ["left", "left"]])
    with pytest.raises(DataError, match="needs numbers"):
        krippendorff_alpha(words, "interval", rng=rng())
    with pytest.raises(DataError, match="0 or above"):
        krippendorff_alpha(of_table([[-1, 1], [1, 1]]), "ratio", rng=rng())
    with pytest.raises(DataError, match="no answer by 'z'"):
        cohen_kappa(words, 0, "z", rng=rng())
    with pytest.raises(ConfigError, match="level"):
        krippendorff_alpha(words, rng=rng(), level=95)
