"""A reward model as a scorer: its own tokens, small batches, nothing left changed."""

import pytest
import torch
from tests.contracts.feedback_samples import LetterHead, LetterRenderer, item

from heed.errors import ConfigError
from heed.feedback.reward_model import RewardModelScorer, open_reward_model
from heed.models.fresh import make_model, train_tokenizer
from heed.models.heads import RewardHead
from heed.models.load import save_model
from heed.worlds.town import Town

ITEMS = [item("Who?", "a" * n) for n in (3, 30, 1, 12, 29, 7)]


def test_batches_hold_like_lengths_within_the_budget():
    head = LetterHead()
    RewardModelScorer(head, LetterRenderer(), batch_tokens=70).score(ITEMS)
    assert sum(rows for rows, _ in head.sizes) == len(ITEMS)
    assert all(rows * width <= 70 for rows, width in head.sizes)
    assert len(head.sizes) < len(ITEMS)
    assert [width for _, width in head.sizes] == sorted((w for _, w in head.sizes), reverse=True)


def test_the_batch_budget_changes_no_score():
    def values(budget):
        scores = RewardModelScorer(LetterHead(), LetterRenderer(), batch_tokens=budget).score(ITEMS)
        return [s.value for s in scores]

    assert values(1) == pytest.approx(values(10_000), abs=1e-6)


def test_the_text_is_tokenised_again_and_the_policys_ids_are_not_read():
    scorer = RewardModelScorer(LetterHead(), LetterRenderer())
    one = item("Who?", "Anna")
    other_ids = one.completion.model_copy(update={"tokens": (5, 6), "prompt_tokens": (9,)})
    again = type(one)(one.prompt, other_ids)
    assert scorer.score([one])[0].value == scorer.score([again])[0].value


def test_the_head_keeps_its_mode_and_gets_no_gradient():
    head = LetterHead().train()
    scorer = RewardModelScorer(head, LetterRenderer())
    first = scorer.score(ITEMS)
    assert head.training
    assert scorer.score(ITEMS) == first  # dropout is off while it scores
    assert head.embedding.weight.grad is None
    assert head.embedding.weight.requires_grad


def test_a_row_that_cannot_be_laid_out_is_an_error_of_its_own():
    scores = RewardModelScorer(LetterHead(), LetterRenderer(), max_length=20).score(ITEMS)
    assert [s.value is None for s in scores] == [False, True, False, False, True, False]
    assert "34 tokens do not fit in 20" in scores[1].error


def test_a_score_that_is_not_finite_is_an_error():
    head = LetterHead()
    with torch.no_grad():
        head.embedding.weight[ord("z")] = float("nan")
    bad, good = RewardModelScorer(head, LetterRenderer()).score(
        [item("Who?", "z"), item("Who?", "a")]
    )
    assert "not finite" in bad.error
    assert good.value is not None


def test_an_impossible_budget_is_refused():
    with pytest.raises(ConfigError, match="batch_tokens"):
        RewardModelScorer(LetterHead(), LetterRenderer(), batch_tokens=0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(list(Town(0).pretraining_texts(300)), 400)


@pytest.fixture(scope="module")
def causal(tokenizer):
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    return make_model(
        "llama",
        vocab_size=len(tokenizer),
        intermediate_size=64,
        max_positions=128,
        seed=0,
        **sizes,
    )


def test_a_saved_reward_model_opens_with_its_tokenizer_and_scores_as_before(
    tmp_path, causal, tokenizer
):
    head = RewardHead(causal.base_model, seed=1)
    head.set_scale(2.0, -0.5)
    head.save(tmp_path / "rm", tokenizer)
    scorer = open_reward_model(tmp_path / "rm", device="cpu")
    assert scorer.name == "rm"
    items = [item("Who owns the Swan?", text) for text in ("Anna owns the Swan.", "No.", "")]
    fresh = RewardModelScorer(head, scorer.renderer)
    found = [s.value for s in scorer.score(items)]
    assert found == pytest.approx([s.value for s in fresh.score(items)], abs=1e-6)
    assert len(set(found)) == 3
    assert not any(p.requires_grad for p in scorer.head.parameters())


def test_a_model_without_a_reward_head_is_no_scorer(tmp_path, causal, tokenizer):
    save_model(tmp_path / "policy", causal, tokenizer)
    with pytest.raises(ConfigError, match="without a reward head"):
        open_reward_model(tmp_path / "policy", device="cpu")


def test_a_device_that_is_not_there_is_explained(tmp_path, causal, tokenizer):
    RewardHead(causal.base_model, seed=1).save(tmp_path / "rm", tokenizer)
    with pytest.raises(ConfigError, match="cuda:99"):
        open_reward_model(tmp_path / "rm", device="cuda:99")
