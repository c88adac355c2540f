"""Calibration by hand and by simulation; baselines that find a planted cue and nothing else."""

from itertools import pairwise

import numpy as np
import pytest

from heed.errors import ConfigError, DataError
from heed.stats import calibration


def test_calibration_error_by_hand():
    """Bins [0, .5) and [.5, 1]: |.2 - 1/2| and |.8 - 2/3|, weighted 2/5 and 3/5."""
    p, y = [0.1, 0.3, 0.7, 0.8, 0.9], [0, 1, 1, 0, 1]
    error = calibration.expected_calibration_error(p, y, num_bins=2)
    assert error == pytest.approx(2 / 5 * 0.3 + 3 / 5 * abs(0.8 - 2 / 3))
    first, second = calibration.reliability(p, y, num_bins=2)
    assert (first.low, first.high, first.predicted, first.observed.n) == (0, 0.5, 0.2, 2)
    assert second.observed.estimate == pytest.approx(2 / 3)
    assert second.observed.low < 2 / 3 < second.observed.high


def test_the_edges_belong_to_a_bin_and_empty_bins_are_left_out():
    bins = calibration.reliability([0.0, 1.0, 1.0], [0, 1, 0.5], num_bins=10)
    assert [(b.low, b.high, b.observed.n) for b in bins] == [(0, 0.1, 1), (0.9, 1, 2)]


def _judged(num: int, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn at sigmoid(gap), while the scores claim stretch * gap."""
    rng = np.random.default_rng(0)
    gap = rng.normal(0, 1.5, num)
    outcome = (rng.random(num) < 1 / (1 + np.exp(-gap))).astype(float)
    return stretch * gap, outcome


@pytest.mark.parametrize(
    ("stretch", "low", "high"), [(1, 0, 0.015), (3, 0.1, 0.3), (0.3, 0.1, 0.3)]
)
def test_calibration_error_finds_scores_that_claim_too_much_or_too_little(stretch, low, high):
    confidence, correct = calibration.fold(*_judged(20_000, stretch))
    error = calibration.expected_calibration_error(confidence, correct)
    assert low <= error <= high
    over = (confidence - correct).mean()
    assert abs(over) < 0.015 if stretch == 1 else np.sign(over) == np.sign(stretch - 1)


def test_folding_makes_the_order_of_a_pair_irrelevant():
    gap, outcome = np.array([2.0, -1.0, 0.0, 3.0]), np.array([1.0, 1.0, 0.0, 0.5])
    confidence, correct = calibration.fold(gap, outcome)
    assert correct.tolist() == [1, 0, 0.5, 0.5]
    assert confidence[2] == 0.5
    swapped = calibration.fold(-gap, 1 - outcome)
    np.testing.assert_array_equal(swapped, [confidence, correct])


def test_accuracy_rises_with_the_gap():
    bins = calibration.accuracy_by_gap(*_judged(20_000, 1.0))
    accuracy = [b.observed.estimate for b in bins]
    assert [b.observed.n for b in bins] == [4000] * 5
    assert np.all(np.diff(accuracy) > 0)
    for b in bins:
        assert abs(b.predicted - b.observed.estimate) < 0.03
    assert all(a.high == b.low for a, b in pairwise(bins))


def test_equal_gaps_share_one_bin():
    (only,) = calibration.accuracy_by_gap([1.0, 1.0, -1.0], [1, 1, 1])
    assert (only.low, only.high, only.observed.n) == (1, 1, 3)
    assert only.observed.estimate == pytest.approx(2 / 3)


def test_length_baseline_counts_equal_lengths_half():
    found = calibration.length_baseline([5, 3, 9, 4], [2, 8, 1, 4])
    assert found.estimate == pytest.approx(2.5 / 4)


def _texts(cue: bool, num_prompts: int = 120) -> tuple[list[str], list[str], list[int]]:
    """Two pairs a prompt of random words; with `cue`, nine in ten chosen texts say thanks."""
    rng = np.random.default_rng(3)
    words = [f"word{i}" for i in range(60)]
    chosen, rejected, prompts = [], [], []
    for prompt in range(num_prompts):
        for _ in range(2):
            first, second = (" ".join(rng.choice(words, 12)) for _ in range(2))
            if cue and rng.random() < 0.9:
                first += " Thanks!"
            chosen.append(first)
            rejected.append(second)
            prompts.append(prompt)
    return chosen, rejected, prompts


def test_words_find_a_planted_cue():
    found = calibration.bag_of_words_baseline(*_texts(cue=True), rng=np.random.default_rng(0))
    assert found.accuracy.low > 0.8
    assert found.accuracy.n == 120
    assert {word for word, _ in found.words[:2]} == {"thanks", "!"}
    assert all(weight > 0 for _, weight in found.words[:2])


def test_words_find_nothing_where_there_is_nothing():
    """Noise predicts unseen prompts at 0.5; predicting its own training pairs it would not."""
    found = calibration.bag_of_words_baseline(*_texts(cue=False), rng=np.random.default_rng(0))
    assert found.accuracy.low < 0.5 < found.accuracy.high


def test_pairs_of_one_prompt_never_train_its_prediction():
    """Each prompt repeats one private word in all its chosen texts. A split by pairs would learn
    the words and be right; a split by prompts has never seen them and must be at chance."""
    chosen = [f"private{prompt}" for prompt in range(30) for _ in range(4)]
    rejected = ["common"] * 120
    rejected[::2] = ["other"] * 60
    chosen = [f"{text} {other}" for text, other in zip(chosen, rejected, strict=True)]
    prompts = [prompt for prompt in range(30) for _ in range(4)]
    found = calibration.bag_of_words_baseline(
        chosen, rejected, prompts, rng=np.random.default_rng(0)
    )
    assert found.num_features == 32
    assert found.accuracy.estimate == 0.5


def test_words_fitted_to_training_pairs_are_read_on_held_out_ones():
    chosen, rejected, prompts = _texts(cue=True)
    pairs = list(zip(chosen, rejected, strict=True))
    found = calibration.bag_of_words_held_out(pairs[:90], pairs[90:], prompts[90:])
    assert found.accuracy.n == 75
    assert found.accuracy.low > 0.6
    # A word that only the held-out pairs have is no feature, and tells nothing.
    strange = [("private", "public")] * 4
    found = calibration.bag_of_words_held_out(pairs[:90], strange, range(4))
    assert found.accuracy.estimate == 0.5
    swapped = [(b, a) for a, b in pairs]
    wrong = calibration.bag_of_words_held_out(swapped[:90], pairs[90:], prompts[90:])
    assert wrong.accuracy.high < 0.4
    ties = calibration.bag_of_words_held_out(
        pairs[:90], pairs[90:], prompts[90:], outcomes=[0.5] * 150
    )
    assert ties.accuracy.estimate == 0.5
    with pytest.raises(DataError, match="0 training pairs"):
        calibration.bag_of_words_held_out([], pairs, prompts)


def test_texts_without_words_are_at_chance():
    found = calibration.bag_of_words_baseline(
        ["", ""], ["", ""], [0, 1], rng=np.random.default_rng(0), num_folds=2
    )
    assert found.accuracy.estimate == 0.5
    assert found.num_features == 0


def test_inputs_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="expected as many"):
        calibration.reliability([0.1], [1, 0])
    with pytest.raises(DataError, match="expected as many"):
        calibration.reliability([1.1], [1])
    with pytest.raises(ConfigError, match="num_bins"):
        calibration.reliability([0.1], [1], num_bins=0)
    with pytest.raises(ConfigError, match="num_folds is 5 for 2 prompts"):
        calibration.bag_of_words_baseline(["a", "b"], ["c", "d"], [0, 1], rng=rng)
    with pytest.raises(DataError, match="expected one of each"):
        calibration.bag_of_words_baseline(["a"], ["c", "d"], [0, 1], rng=rng)
    with pytest.raises(DataError, match="gaps"):
        calibration.fold([1.0], [1, 0])
