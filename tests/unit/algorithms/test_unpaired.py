"""Learning from single replies: every loss by command, baselines of whole batches, data, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import Tiny, run_stage

from heed.algorithms.references import Fixed, row_key
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.algorithms.unpaired_rows import Baseline, lay_out, mismatched, unpaired_loss
from heed.cli.command import main
from heed.data.batch import Row
from heed.data.datasets import load_unpaired
from heed.data.judgements import LabelledReply
from heed.errors import DataError
from heed.learners.local import LocalLearner
from heed.models.fresh import make_model
from heed.models.heads import PolicyHead
from heed.records import Message, Prompt
from heed.runs.run import Run
from heed.settings import DataSettings, LearnerSettings, OptimSettings

ORIGINS = {"kto": 0.5, "apo_zero_unpaired": 0.5, "bco": math.log(2)}


@pytest.mark.parametrize("name", ORIGINS)
def test_every_loss_from_the_command_line(tiny: Tiny, tmp_path: Path, name: str) -> None:
    words = ["unpaired", "--model.path", str(tiny.policy), "--data.path", str(tiny.pairs)]
    words += ["--loss_type", name, "--data.limit", "60", "--batch_size", "24", "--eval_every", "9"]
    words += ["--learner.precision", "fp32", "--learner.device", "cpu", "--optim.lr", "1e-3"]
    assert main([*words, "--run.folder", str(tmp_path / "run")]) == 0
    run = Run.open(tmp_path / "run")
    first, last = run.metrics()[0], run.metrics()[-1]
    assert first["loss"] == pytest.approx(ORIGINS[name], abs=1e-4)
    assert 0 <= last["eval/rewards/auc"] <= 1
    assert last["rewards/margins"] != 0
    assert not [w for w in run.warnings() if w["name"] != "logps/chosen_change"]
    assert ("kl" in last, "delta" in last) == (name == "kto", name == "bco")


def test_kto_learns_labels(tiny: Tiny, tmp_path: Path) -> None:
    path = _write(
        tmp_path / "replies.jsonl",
        *[
            {"prompt": f"Who is {i}?", "completion": f" {text}", "label": label}
            for i in range(16)
            for text, label in ((f"The miller {i}.", True), ("Nobody.", False))
        ],
    )
    config = tiny.unpaired_config(
        tmp_path / "run", data={"path": path}, batch_size=16, num_train_epochs=8, eval_frac=0.25
    )
    found = run_stage(config).metrics()
    assert found[-1]["eval/rewards/auc"] == 1.0
    assert found[-1]["rewards/chosen"] > 0 > found[-1]["rewards/rejected"]


# -- the baseline is of the whole batch -----------------------------------------------------------


def _policy(seed: int, **how: Any) -> LocalLearner:
    sizes: dict[str, Any] = {"vocab_size": 31, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
    model = make_model("llama", **sizes, max_positions=32, seed=seed).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0 if weight.dim() > 1 else 1.0)
    settings = LearnerSettings(**{"precision": "fp32", "device": "cpu", **how})
    return LocalLearner(PolicyHead(model), OptimSettings(max_grad_norm=0.0), 1, settings)


def _replies() -> list[tuple[LabelledReply, Row]]:
    generator = torch.Generator().manual_seed(3)
    prompt, text = Prompt.make("x", raw=True), (Message(role="text", text="x"),)
    out = []
    for i, (before, n, p) in enumerate(
        ((2, 3, 1.0), (1, 5, 0.0), (4, 1, 0.7), (3, 2, 0.0), (2, 6, 1.0), (1, 2, 0.2))
    ):
        tokens = torch.randint(1, 31, (before + n,), generator=generator).tolist()
        row = Row(str(i), tokens, [False] * before + [True] * n)
        out.append((LabelledReply(str(i), prompt, text, p, 0.5 if i == 2 else None), row))
    return out


def _config(loss_type: str) -> UnpairedConfig:
    values = {"run": {"folder": "x"}, "model": {"path": "x"}, "data": {"path": "x"}}
    changes = {"loss_type": loss_type, "desirable_weight": 1.2}
    return UnpairedConfig.model_validate(values | changes)


def _references(rows: list[Row]) -> Fixed:
    from heed.data.batch import collate

    batch = collate(rows)
    found = _policy(1).forward(batch).logprobs
    assert found is not None
    return Fixed({row_key(row): found[i][batch.learn[i]] for i, row in enumerate(rows)})


def _evaluated(loss_type: str, replies: list, **how: Any) -> tuple[float, Any, Any]:
    rows = [row for _, row in replies]
    config, learner = _config(loss_type), _policy(6, **how)  # a policy with z0 above 0
    references = _references([*rows, *mismatched(rows)])
    batch = lay_out(references, replies)
    _, value = Baseline(config).measure(learner, references, batch, rows)
    batch = batch.with_row_values(baseline=torch.full((len(batch),), value))
    values = learner.backward(batch, unpaired_loss(config), len(batch))["loss"]
    named = learner.head.named_parameters()
    return value, values, {n: w.grad.clone() for n, w in named if w.grad is not None}


@pytest.mark.parametrize("loss_type", ORIGINS)
@pytest.mark.parametrize(
    "how", [{"micro_batch_tokens": 1}, {"micro_batch_tokens": 16}, {"layout": "packed"}]
)
def test_micro_batches_and_layout_change_nothing(loss_type: str, how: dict) -> None:
    replies = _replies()
    one, other = _evaluated(loss_type, replies), _evaluated(loss_type, replies, **how)
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    if loss_type == "kto":
        assert one[0] > 0
    torch.testing.assert_close(one[1], other[1], rtol=1e-6, atol=1e-8)
    for name, gradient in one[2].items():
        torch.testing.assert_close(other[2][name], gradient, rtol=1e-5, atol=1e-8)
    fewer = _evaluated(loss_type, replies[:5])
    if loss_type == "apo_zero_unpaired":  # without a baseline a reply's loss is its own
        torch.testing.assert_close(fewer[1], one[1][:5])
        return
    with pytest.raises(AssertionError):
        torch.testing.assert_close(fewer[1], one[1][:5], rtol=1e-6, atol=1e-8)


def test_each_prompt_meets_the_reply_before_it() -> None:
    a = Row("a", [1, 2, 3, 4], [False, False, True, True])
    b = Row("b", [5, 6, 7], [False, True, True])
    c = Row("c", [8, 9], [False, True])
    found = mismatched([a, b, c])
    assert [list(row.tokens) for row in found] == [[1, 2, 9], [5, 3, 4], [8, 6, 7]]
    assert list(found[0].learn) == [False, False, True]
    long = mismatched([a, Row("d", [1, 2, 3, 4], [False, True, True, True])], max_length=4)
    assert list(long[0].tokens) == [1, 2, 2, 3]  # the end of the reply is cut


def test_bcos_baseline_is_the_mean_of_all_batches_and_goes_into_a_checkpoint() -> None:
    replies, config = _replies(), _config("bco")
    rows = [row for _, row in replies]
    references, learner = _references(rows), _policy(0)
    baseline, found = Baseline(config), []
    for part in (replies[:4], replies[4:]):
        some = [row for _, row in part]
        _, value = baseline.measure(learner, references, lay_out(references, part), some)
        found.append(value)
    whole = Baseline(config).measure(learner, references, lay_out(references, replies), rows)[1]
    assert found[1] == pytest.approx(whole)
    assert found[0] != pytest.approx(whole)
    again = Baseline(config, baseline.state())
    assert again.state() == {"mean": found[1], "count": 6.0}


# -- data -----------------------------------------------------------------------------------------


def _write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_labels_are_true_false_or_a_probability(tmp_path: Path) -> None:
    dialogue = [{"role": "user", "content": "Who?"}]
    path = _write(
        tmp_path / "r.jsonl",
        {"prompt": "Who?", "completion": " I.", "label": True},
        {"prompt": "Who?", "completion": " You.", "label": 0},
        {"prompt": dialogue, "completion": [{"role": "assistant", "content": "He."}], "label": 0.3},
        {"prompt": "Who?", "completion": " They.", "label": "good"},
        {"prompt": "Who?", "completion": " They.", "label": 7},
        {"prompt": "Who?", "completion": " They."},
    )
    replies, report = load_unpaired(DataSettings(path=path))
    assert [reply.p for reply in replies] == [1.0, 0.0, 0.3]
    assert replies[2].reply[0].role == "assistant"
    assert report.num_dropped == 3
    assert set(report.reasons) == {
        "label is not a finite number",
        "label is outside its range",
        "label is missing",
    }


def test_a_pair_is_a_good_and_a_bad_reply(tmp_path: Path) -> None:
    pair = {"prompt": "Who?", "chosen": " I.", "rejected": " You.", "p": 0.8, "weight": 2.0}
    replies, report = load_unpaired(DataSettings(path=_write(tmp_path / "p.jsonl", pair)))
    assert [(r.reply[0].text, round(r.p, 9), r.weight) for r in replies] == [
        (" I.", 0.8, 2.0),
        (" You.", 0.2, 2.0),
    ]
    assert report.kept == 2


def test_what_cannot_be_learned_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    path = _write(
        tmp_path / "good.jsonl",
        *[{"prompt": f"Who {i}?", "completion": " I.", "label": True} for i in range(8)],
    )
    with pytest.raises(DataError, match="8 are good and 0 bad"):
        run_stage(tiny.unpaired_config(tmp_path / "one", data={"path": path}, eval_frac=0.0))
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        tiny.unpaired_config(tmp_path / "two", batch_size=1)
    with pytest.raises(DataError, match="prompt \\+ completion \\+ label"):
        load_unpaired(DataSettings(path=_write(tmp_path / "x.jsonl", {"question": "Who?"})))


def test_unequal_numbers_of_good_and_bad_are_told(tiny: Tiny, tmp_path: Path) -> None:
    path = _write(
        tmp_path / "r.jsonl",
        *[{"prompt": f"Who {i}?", "completion": " I.", "label": i < 2} for i in range(8)],
    )
    config = tiny.unpaired_config(
        tmp_path / "run", data={"path": path}, eval_frac=0.0, batch_size=8
    )
    (warning,) = [w for w in run_stage(config).warnings() if w["name"] == "desirable_weight"]
    assert "set desirable_weight to 3" in warning["message"]
