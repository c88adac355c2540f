"""heed's offline losses are TRL's, value and gradient, and differ where this page says so.

`benchmarks/record_preferences.py` made the recording from TRL's unmodified trainers. heed runs its
own road on the same texts and weights: rows, reference, whole-batch numbers, loss, learner.

Differences on purpose, each with both values below:

- KTO in several micro-batches: TRL pairs prompts with replies, averages and cuts at 0 inside each
  micro-batch, so that its baseline depends on how a batch is cut up. heed's is of the whole batch.
- WPO: TRL does not clamp the weights; the authors' code, and heed's default, keep them at most 1.
- ORPO: TRL takes the likelihood of prompt and reply, by the token; heed that of the reply, by the
  reply, as the paper writes it.
- SimPO with label smoothing: TRL keeps the margin on the side of chosen for a flipped label; heed
  turns it with the label, and reads smoothing as a soft label there.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.preference_loss import lay_out, preference_loss, with_whole_batch
from heed.algorithms.references import Fixed, row_key
from heed.algorithms.reward import PairRows
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.algorithms.unpaired_rows import Baseline, mismatched, unpaired_loss
from heed.algorithms.unpaired_rows import lay_out as lay_replies_out
from heed.data.batch import Row, collate
from heed.data.judgements import LabelledPair, LabelledReply
from heed.data.render import Renderer
from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead
from heed.models.load import load_causal, load_tokenizer
from heed.records import Message, Prompt
from heed.settings import LearnerSettings, OptimSettings

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = json.loads((FIXTURES / "trl_preferences.json").read_text())
MODELS = FIXTURES / "trl"

SAME: dict[str, dict[str, Any]] = {
    **{name: {} for name in RECORDED["dpo"]["cases"]},
    "wpo": {"clamp_weighting": False},
    "cpo": {"loss_type": "cpo"},
    "cpo smoothed": {"loss_type": "cpo"},
    "simpo": {"loss_type": "simpo", "cpo_alpha": 1.0},
    "alphapo": {"loss_type": "alphapo", "cpo_alpha": 1.0, "alphapo_alpha": 0.1},
}
"""What heed is told beside TRL's own options."""


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        **RECORDED["dpo"]["cases"],
        **RECORDED["cpo"]["cases"],
        **RECORDED["kto"]["cases"],
        **RECORDED["bco"]["cases"],
    }[name]
    return found


@cache
def renderer() -> Renderer:
    return Renderer(load_tokenizer(MODELS / "tokenizer"))


def learner_of(name: str) -> LocalLearner:
    settings = LearnerSettings(precision="fp32", device="cpu")
    optim = OptimSettings(max_grad_norm=0.0)
    return LocalLearner(PolicyHead(load_causal(MODELS / name)), optim, 1, settings)


@cache
def pairs() -> list[PairRows]:
    out: list[PairRows] = []
    for i, row in enumerate(RECORDED["pairs"]):
        prompt = Prompt.make(row["prompt"], raw=True)
        sides = [(Message(role="text", text=row[side]),) for side in ("chosen", "rejected")]
        rows = [renderer().item_row(prompt, side) for side in sides]
        out.append((LabelledPair(str(i), prompt, *sides), *rows))
    return out


@cache
def replies() -> list[tuple[LabelledReply, Row]]:
    out = []
    for i, row in enumerate(RECORDED["replies"]):
        prompt = Prompt.make(row["prompt"], raw=True)
        text = (Message(role="text", text=row["completion"]),)
        labelled = LabelledReply(str(i), prompt, text, float(row["label"]))
        out.append((labelled, renderer().item_row(prompt, text)))
    return out


def references(rows: list[Row]) -> Fixed:
    batch = collate(rows)
    found = learner_of("reference").forward(batch).logprobs
    assert found is not None
    return Fixed({row_key(row): found[i][batch.learn[i]] for i, row in enumerate(rows)})


def reached(config: PreferenceConfig) -> tuple[float, LocalLearner]:
    """heed's loss of the recorded pairs, and the learner with its gradient."""
    learner = learner_of("policy")
    known = references([row for _, *both in pairs() for row in both])  # type: ignore[misc]
    batch = with_whole_batch(config, learner, lay_out(config, known, pairs()))
    terms = learner.backward(batch, preference_loss(config), len(batch), also=config.also)
    return float(terms["loss"].mean()), learner


def config_of(options: dict[str, Any]) -> PreferenceConfig:
    values = {"run": {"folder": "x"}, "model": {"path": "x"}, "data": {"path": "x"}}
    known = PreferenceConfig.model_fields
    return PreferenceConfig.model_validate(
        values | {name: value for name, value in options.items() if name in known}
    )


def agree(found: float, learner: LocalLearner, expected: dict[str, Any]) -> None:
    assert found == pytest.approx(expected["losses"][0], rel=2e-6, abs=1e-6)
    weights = dict(learner.head.named_parameters())
    (gradient,) = [w.grad for name, w in weights.items() if name.endswith("model.norm.weight")]
    scale = max(abs(x) for x in expected["gradient"])
    torch.testing.assert_close(
        gradient, torch.tensor(expected["gradient"]), atol=3e-6 * scale, rtol=1e-4
    )
    assert learner.step() == pytest.approx(expected["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("name", SAME)
def test_loss_and_gradient_are_trls(name: str) -> None:
    case = recorded(name)
    # Where TRL has no default of ours, ours is TRL's.
    options = {"beta": 0.1, **case["options"], **SAME[name]}
    agree(*reached(config_of(options)), case)


def test_the_recording_is_not_of_one_loss() -> None:
    """The comparison above can fail: no two of the cases are alike."""
    norms = [recorded(name)["grad_norm"] for name in SAME if name != "aot smoothed"]
    assert len({round(norm, 6) for norm in norms}) == len(norms)


def test_wpos_weights_are_clamped_by_default() -> None:
    """No pair here is likelier than a sample, so both agree; `test_losses_preference` has one."""
    options = {"beta": 0.1, "loss_type": "sigmoid", "use_weighting": True}
    clamped, _ = reached(config_of(options))
    assert clamped <= recorded("wpo")["losses"][0] * (1 + 1e-6)


def test_orpo_differs_in_its_likelihood_alone() -> None:
    case = recorded("orpo")
    found, _ = reached(config_of({"loss_type": "orpo", "beta": 0.1}))
    odds = -0.1 * case["log_odds_ratio"]
    assert case["losses"][0] == pytest.approx(case["nll_loss"] + odds, rel=1e-6)
    batch = collate([chosen for _, chosen, _ in pairs()])
    logprobs = learner_of("policy").forward(batch).logprobs
    assert logprobs is not None
    ours = -(logprobs.sum(1) / batch.learn.sum(1)).mean()
    assert found == pytest.approx(float(ours) + odds, rel=1e-6)
    assert float(ours) != pytest.approx(case["nll_loss"], rel=1e-3)


def test_simpo_turns_its_margin_with_the_label() -> None:
    case = recorded("simpo smoothed")
    soft = [(LabelledPair(p.id, p.prompt, p.chosen, p.rejected, 0.9), *r) for p, *r in pairs()]
    config = config_of({"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0})
    learner = learner_of("policy")
    batch = lay_out(config, references([r for _, *rows in soft for r in rows]), soft)  # type: ignore[misc, arg-type]
    found = float(learner.backward(batch, preference_loss(config), len(soft))["loss"].mean())
    z = []
    for side in (batch.chosen, batch.rejected):
        logprobs = learner.forward(side).logprobs
        assert logprobs is not None
        z.append(logprobs.sum(1) / side.learn.sum(1))
    z_ = 2.0 * (z[0] - z[1])
    log = torch.nn.functional.logsigmoid
    theirs = (-0.9 * log(z_ - 1.0) - 0.1 * log(-(z_ - 1.0))).mean()
    ours = (-0.9 * log(z_ - 1.0) - 0.1 * log(-z_ - 1.0)).mean()
    assert case["losses"][0] == pytest.approx(float(theirs), rel=1e-5)
    assert found == pytest.approx(float(ours), rel=1e-5)


# -- single replies -------------------------------------------------------------------------------


def reached_unpaired(loss_type: str) -> tuple[float, LocalLearner, float]:
    values = {"run": {"folder": "x"}, "model": {"path": "x"}, "data": {"path": "x"}}
    weight = {} if loss_type == "bco" else {"desirable_weight": 1.2}
    config = UnpairedConfig.model_validate(values | {"loss_type": loss_type, **weight})
    rows = [row for _, row in replies()]
    known, learner = references([*rows, *mismatched(rows)]), learner_of("policy")
    batch = lay_replies_out(known, replies())
    _, baseline = Baseline(config).measure(learner, known, batch, rows)
    batch = batch.with_row_values(baseline=torch.full((len(batch),), baseline))
    terms = learner.backward(batch, unpaired_loss(config), len(batch))
    return float(terms["loss"].mean()), learner, baseline


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired", "bco"])
def test_unpaired_losses_are_trls_where_a_micro_batch_is_the_batch(name: str) -> None:
    found, learner, baseline = reached_unpaired(name)
    case = recorded(name)
    agree(found, learner, case)
    theirs = case["delta"] if name == "bco" else case["kl"][0]
    assert baseline == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_trls_kto_depends_on_micro_batches_and_heeds_does_not() -> None:
    """The same six replies: TRL whole, TRL in two micro-batches, and heed in either."""
    whole, halves = recorded("kto"), recorded("kto halves")
    found, _, baseline = reached_unpaired("kto")
    in_halves = sum(halves["losses"]) / 2
    assert baseline == pytest.approx(whole["kl"][0], rel=1e-5, abs=1e-6)
    assert found == pytest.approx(whole["losses"][0], rel=1e-5)
    assert [round(x, 4) for x in halves["kl"]] != [round(baseline, 4)] * 2
    # The figures of docs/methods/unpaired.md.
    assert baseline == pytest.approx(0.2213, abs=5e-5)
    assert halves["kl"] == pytest.approx([0.0, 0.8558], abs=5e-5)
    assert (in_halves, found) == pytest.approx((0.5408, 0.5441), abs=5e-5)
