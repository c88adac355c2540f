"""What must not matter to a loss of pairs: micro-batches, layout, padding, batch mates, order.

Through the real learner and a small llama in fp64: the loss of a batch and the gradient of every
weight are the same however the batch is cut up, laid out and padded. For losses that sort the batch
or take a mean over it, too.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.preference_loss import lay_out, preference_loss, with_whole_batch
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.references import Fixed, row_key
from heed.algorithms.reward import PairRows
from heed.data.batch import PairBatch, Row, TokenBatch, collate
from heed.data.judgements import LabelledPair
from heed.learners.local import LocalLearner
from heed.models.fresh import make_model
from heed.models.heads import PolicyHead
from heed.records import Message, Prompt
from heed.settings import LearnerSettings, OptimSettings

CASES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name} for name in ROWS if name != "dpo"},
    "wpo": {"loss_type": "sigmoid", "use_weighting": True},
    "ld": {"loss_type": "sigmoid", "ld_alpha": 0.4},
    "forward_kl": {"loss_type": "sigmoid", "f_divergence_type": "forward_kl"},
    "reference_free": {"loss_type": "sigmoid", "reference_free": True},
    "mpo": {"loss_type": ("sigmoid", "bco_pair", "sft"), "loss_weights": (0.8, 0.2, 1.0)},
}
NEEDED = {"label_smoothing": 0.1, "rdpo_alpha": 0.05, "alphapo_alpha": 0.25}


@cache
def base(seed: int) -> torch.nn.Module:
    sizes = {"vocab_size": 31, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
    model = make_model("llama", **sizes, max_positions=32, seed=seed).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0 if weight.dim() > 1 else 1.0)
    return model


def config_of(case: str) -> PreferenceConfig:
    values = {"run": {"folder": "x"}, "model": {"path": "x"}, "data": {"path": "x"}}
    return PreferenceConfig.model_validate(values | NEEDED | CASES[case])


def learner_of(**how: Any) -> LocalLearner:
    how = {"precision": "fp32", "device": "cpu", **how}
    head = PolicyHead(copy.deepcopy(base(0)))
    return LocalLearner(head, OptimSettings(max_grad_norm=0.0), 1, LearnerSettings(**how))


def pairs_of(lengths: list[tuple[int, int]], seed: int, soft: bool) -> list[PairRows]:
    generator = torch.Generator().manual_seed(seed)
    prompt, text = Prompt.make("x", raw=True), (Message(role="text", text="x"),)
    out: list[PairRows] = []
    for i, sizes in enumerate(lengths):
        rows = []
        for n in sizes:
            tokens = torch.randint(1, 31, (n + 2,), generator=generator).tolist()
            rows.append(Row(f"{i}", tokens, [False, False, *[True] * n]))
        p = float(torch.rand((), generator=generator)) if soft else 1.0
        out.append((LabelledPair(str(i), prompt, text, text, p), *rows))
    return out


@cache
def reference() -> LocalLearner:
    settings = LearnerSettings(precision="fp32", device="cpu")
    return LocalLearner.frozen(PolicyHead(copy.deepcopy(base(1))), settings)


def references(pairs: list[PairRows]) -> Fixed:
    rows = [row for _, *both in pairs for row in both]
    batch = collate(rows)
    found = reference().forward(batch).logprobs
    assert found is not None
    return Fixed({row_key(row): found[i][batch.learn[i]] for i, row in enumerate(rows)})


def moved(batch: TokenBatch, side: str, extra: int) -> TokenBatch:
    """The same rows with more padding, on one side."""
    width = batch.tokens.shape[1] + extra

    def lay(values: Tensor, fill: float) -> Tensor:
        out = values.new_full((len(batch), width), fill)
        for i, n in enumerate(batch.lengths.tolist()):
            at = slice(0, n) if side == "right" else slice(width - n, width)
            out[i, at] = values[i, :n]
        return out

    streams = {name: lay(values, 7.0) for name, values in batch.streams.items()}
    for name in ("mean_tokens", "reference_at_rank", "rejected_at_rank", "chosen_at_rank"):
        if name in streams:  # one value a row, on padding too
            streams[name] = batch.streams[name][:, :1].expand(len(batch), width)
    return TokenBatch(
        lay(batch.tokens, 3),
        lay(batch.attend, 0),
        lay(batch.learn, 0),
        lay(batch.positions, 0),
        batch.rows,
        streams,
    )


def evaluated(
    case: str, pairs: list[PairRows], *, side: str | None = None, **how: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair and the gradient of every weight."""
    config, learner = config_of(case), learner_of(**how)
    batch = with_whole_batch(config, learner, lay_out(config, references(pairs), pairs))
    if side is not None:
        sides = moved(batch.chosen, side, 3), moved(batch.rejected, side, 1)
        batch = PairBatch(*sides, batch.p)
    loss = preference_loss(config, reference())
    values = learner.backward(batch, loss, len(batch), also=config.also)["loss"]
    named = learner.head.named_parameters()
    return values, {name: w.grad.clone() for name, w in named if w.grad is not None}


def assert_same(left: Any, right: Any) -> None:
    torch.testing.assert_close(left[0], right[0], atol=1e-6, rtol=1e-6)
    scale = max(float(g.abs().max()) for g in left[1].values())
    for name, gradient in left[1].items():
        torch.testing.assert_close(right[1][name], gradient, atol=1e-6 * scale, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
@given(
    # One draw of shapes a loss: there are more than thirty losses.
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=3, max_size=5),
    st.integers(0, 999),
    st.randoms(use_true_random=False),
)
@settings(
    deadline=None,
    max_examples=1,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_how_a_batch_is_computed_changes_nothing(case, lengths, seed, random):
    soft = all(row.soft for row in config_of(case).rows.values())
    pairs = pairs_of(lengths, seed, soft)
    whole = evaluated(case, pairs)
    assert_same(whole, evaluated(case, pairs, micro_batch_tokens=1))
    assert_same(whole, evaluated(case, pairs, layout="packed", micro_batch_tokens=40))
    assert_same(whole, evaluated(case, pairs, side="left", micro_batch_tokens=30))
    assert_same(whole, evaluated(case, pairs, side="right"))
    order = list(range(len(pairs)))
    random.shuffle(order)
    values, gradients = evaluated(case, [pairs[i] for i in order])
    back = torch.empty_like(values)
    back[order] = values
    assert_same(whole, (back, gradients))


ALONE = [c for c in CASES if not any(r.whole_batch for r in config_of(c).rows.values())]


@pytest.mark.parametrize("case", ALONE)
def test_batch_mates_change_no_loss(case: str) -> None:
    """Each pair's loss is its own; but for the sorted ones, and likelihood by the token."""
    pairs = pairs_of([(3, 5), (1, 2), (6, 4)], 5, soft=True)
    values, _ = evaluated(case, pairs)
    if {"sft", "cpo"} & set(config_of(case).rows):
        return
    for i, one in enumerate(pairs):
        torch.testing.assert_close(evaluated(case, [one])[0], values[i : i + 1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", [case for case in ALONE if case != "sppo_hard"])
def test_turning_pairs_round_with_their_labels_changes_nothing(case: str) -> None:
    pairs = pairs_of([(3, 5), (1, 2), (6, 4)], 7, soft=True)
    turned: list[PairRows] = []
    for labelled, chosen, rejected in pairs:
        one = LabelledPair(labelled.id, labelled.prompt, *[labelled.chosen] * 2, 1 - labelled.p)
        turned.append((one, rejected, chosen))
    assert_same(evaluated(case, pairs), evaluated(case, turned))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_not_that_of_another_batch(case: str) -> None:
    """The comparisons above can fail."""
    soft = all(row.soft for row in config_of(case).rows.values())
    one, other = (pairs_of([(3, 5), (2, 2), (6, 4)], seed, soft) for seed in (1, 2))
    with pytest.raises(AssertionError):
        assert_same(evaluated(case, one), evaluated(case, other))
