"""Rankings end to end: whole elements, ties as asked for, the same scores whatever the layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.labelled import rankings, reward_config, turns, write
from tests.tiny import Tiny, run_stage
from tests.unit.data.test_judgements import pair, said

from heed.algorithms import reward_groups, reward_ties
from heed.algorithms.reward_groups import group_loss
from heed.algorithms.reward_pairs import pair_batch, preference_loss, prepared
from heed.algorithms.reward_ties import TieParameter
from heed.cli.command import main
from heed.data.batch import Row
from heed.data.datasets import load_preferences
from heed.data.exchange import write_rows
from heed.data.groups import group_batch, groups_of
from heed.data.judgements import LabelledPair
from heed.errors import DataError
from heed.learners.base import Outputs
from heed.models.load import load_extra
from heed.records import Message, Prompt
from heed.runs.run import Run
from heed.settings import DataSettings


def finding(run: Run, name: str) -> Any:
    (found,) = [f for f in run.findings() if f.name == name]
    return found


@pytest.mark.parametrize("loss_type", ["k_wise", "plackett_luce"])
def test_rankings_of_a_world_are_learned_from_the_command_line(
    tiny: Tiny, tmp_path: Path, loss_type: str
) -> None:
    data = rankings(tiny.world, tmp_path / "rankings.jsonl")
    words = ["reward", "--run.folder", str(tmp_path / "run"), "--model.path", str(tiny.policy)]
    words += ["--data.path", str(data), "--loss_type", loss_type, "--batch_size", "6"]
    words += ["--optim.lr", "3e-3", "--num_train_epochs", "4", "--learner.device", "cpu"]
    assert main([*words, "--learner.precision", "fp32"]) == 0
    run = Run.open(tmp_path / "run")
    rows = run.metrics()
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.75
    assert finding(run, "reward model accuracy").n > 0
    assert finding(run, "best completion ranked first").estimate is not None
    assert run.manifest["facts"]["gain"] != 1.0
    assert load_extra(run.folder / "model")["loss_type"] == loss_type


def test_each_completion_runs_once_and_a_prompt_is_one_element(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K = 4: 4 rows for 6 pairs, whatever the budget of a micro-batch."""
    data = rankings(tiny.world, tmp_path / "rankings.jsonl")
    seen: list[tuple[int, int]] = []
    original = reward_groups.group_loss

    def watched(config: Any, ties: Any = None) -> Any:
        inner = original(config, ties)

        def loss(outputs: Outputs, batch: Any) -> Any:
            if torch.is_grad_enabled():
                seen.append((len(batch.rows), len(batch.edges)))
            return inner(outputs, batch)

        return loss

    monkeypatch.setattr("heed.algorithms.reward_sources.group_loss", watched)
    learner = {"precision": "fp32", "device": "cpu", "micro_batch_tokens": 1}
    run_stage(reward_config(tiny, tmp_path / "run", data, loss_type="k_wise", learner=learner))
    assert {pairs for rows, pairs in seen if rows == 4} == {6}
    assert all(pairs == rows * (rows - 1) // 2 for rows, pairs in seen)


def test_k_wise_is_the_mean_over_pairs_of_the_pair_loss() -> None:
    """Labels, margins, smoothing, centring and Davidson's ties alike."""
    config = reward_config_of(
        loss_type="k_wise", label_smoothing=0.1, center_rewards_coefficient=0.2
    )
    prompt = Prompt.make("Who?")
    texts = [(Message(role="assistant", text=text),) for text in "abcd"]
    labels = [(0, 1, 1.0, 0.3), (0, 2, 0.5, 0.0), (2, 3, 0.8, -0.2), (1, 3, 0.5, 0.0)]
    pairs = [
        LabelledPair(str(n), prompt, texts[i], texts[j], p, margin)
        for n, (i, j, p, margin) in enumerate(labels)
    ]
    (group,) = groups_of(pairs)
    rows = {text: Row(str(i), [1, 2 + i], [False, True]) for i, text in enumerate(texts)}
    scores = dict(zip(texts, torch.tensor([0.4, -1.0, 2.0, 0.1]).double(), strict=True))
    ordered = torch.stack([scores[reply] for reply in group.replies]).requires_grad_()
    batch = group_batch([(group, tuple(rows[reply] for reply in group.replies))])
    plain = pair_batch([(pair, rows[pair.chosen], rows[pair.rejected]) for pair in pairs])
    for ties in (None, TieParameter([-0.4])):
        found = group_loss(config, ties)(Outputs(scores=ordered), batch).values
        each = preference_loss(config, ties)(
            Outputs(scores=torch.stack([scores[pair.chosen] for pair in pairs])),
            Outputs(scores=torch.stack([scores[pair.rejected] for pair in pairs])),
            plain,
        ).values
        assert float(found.detach()) == pytest.approx(float(each.detach().mean()), abs=1e-9)


def reward_config_of(**changes: Any) -> Any:
    from heed.algorithms.reward import RewardConfig

    values = {"run": {"folder": "x"}, "model": {"path": "m"}, "data": {"path": "d"}}
    return RewardConfig.model_validate(values | changes)


def test_a_comparison_run_is_learned_prompt_by_prompt(tiny: Tiny, tmp_path: Path) -> None:
    """All pairs of a prompt's completions, as `heed compare` leaves them, are one element."""
    config = reward_config(tiny, tmp_path / "run", tiny.pairs, loss_type="k_wise", batch_size=6)
    run = run_stage(config)
    pairs, _ = load_preferences(DataSettings(path=str(tiny.pairs)))
    prompts = {pair.prompt.id for pair in pairs}
    assert len(prompts) < len(pairs)
    assert finding(run, "reward model accuracy").n > 0
    with pytest.raises(DataError, match="holds pairs"):
        run_stage(reward_config(tiny, tmp_path / "pl", tiny.pairs, loss_type="plackett_luce"))


@pytest.mark.parametrize("loss_type", ["k_wise", "plackett_luce"])
@pytest.mark.parametrize("ties", ["soft", "davidson", "drop"])
def test_ties_as_asked_for(tiny: Tiny, tmp_path: Path, loss_type: str, ties: str) -> None:
    data = rankings(tiny.world, tmp_path / "rankings.jsonl", step=1.5)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows[:3]:
        row["ranks"] = [1] * len(row["ranks"])
    write(data, rows)
    all_tied = sum(len(set(row["ranks"])) == 1 for row in rows)
    tied = sum(len(set(row["ranks"])) < len(row["ranks"]) for row in rows)
    assert 0 < all_tied < tied
    run = run_stage(reward_config(tiny, tmp_path / "run", data, loss_type=loss_type, ties=ties))
    (report,) = run.data_report()
    assert report["set_aside"] == (all_tied if ties == "drop" else 0)
    assert all(math.isfinite(row["loss"]) for row in run.metrics())
    named = [f for f in run.findings() if f.name.startswith("tie parameter")]
    assert bool(named) == (ties == "davidson")
    if ties == "davidson":
        log_nu = load_extra(run.folder / "model")["tie_log_nu"]
        assert len(log_nu) == (
            1
            if loss_type == "k_wise"
            else max(row["ranks"].count(rank) for row in rows for rank in row["ranks"]) - 1
        )
        assert run.metrics()[0]["tie_log_nu"] != run.metrics()[-1]["tie_log_nu"]


def test_a_fixed_tie_parameter_stays(tiny: Tiny, tmp_path: Path) -> None:
    data = rankings(tiny.world, tmp_path / "rankings.jsonl", step=1.5)
    config = reward_config(
        tiny, tmp_path / "run", data, loss_type="k_wise", ties="davidson", tie_log_nu=-0.7
    )
    assert {row["tie_log_nu"] for row in run_stage(config).metrics()} == {-0.7}


def test_the_tie_parameter_finds_the_share_of_ties() -> None:
    """At equal scores a share of 0.3 means nu / (2 + nu) = 0.3, from anywhere."""
    parameter, share = TieParameter([3.0]), 0.3
    for _ in range(60):
        expected = torch.exp(parameter.log_nu) / (2 + torch.exp(parameter.log_nu))
        loss = -(share * expected.log() + (1 - share) * ((1 - expected) / 2).log()).sum()
        loss.backward()
        parameter.step(1.0)
    nu = math.exp(parameter.values()[0])
    assert nu / (2 + nu) == pytest.approx(share, abs=1e-6)
    again = TieParameter([0.0])
    again.restore(parameter.values())
    assert again.values() == parameter.values()


def test_a_tie_parameter_starts_where_equals_would_tie_as_often() -> None:
    prompt, a, b = Prompt.make("Who?"), *((Message(role="assistant", text=t),) for t in "ab")
    pairs = [LabelledPair(str(i), prompt, a, b, 0.5 if i < 2 else 1.0) for i in range(8)]
    nu = math.exp(reward_ties.tie_parameter(pairs, None).values()[0])
    assert nu / (2 + nu) == pytest.approx(0.25)
    for few in (pairs[:2], pairs[2:]):
        with pytest.raises(DataError, match="no estimate"):
            reward_ties.tie_parameter(few, None)


def test_what_labellers_tie_on_is_a_share(tmp_path: Path) -> None:
    """Two of three say left and one a tie: p = 5/6 and tie = 1/3; both bad counts where asked."""
    outcomes = ["left", "left", "tie", "both_bad", "cannot_judge", "invalid"]
    preferences = [said("a", outcome, f"who-{i}") for i, outcome in enumerate(outcomes)]
    write_rows(tmp_path / "pairs.jsonl", [pair("a"), pair("b")])
    write_rows(tmp_path / "preferences.jsonl", [*preferences, said("b", "both_bad")])
    data = DataSettings(path=str(tmp_path))
    (found,), report = load_preferences(data)
    assert (found.p, found.tie) == (pytest.approx(5 / 6), pytest.approx(1 / 3))
    assert dict(report.reasons) == {"not judged: both_bad": 1}
    (one, two), report = load_preferences(data, both_bad="tie")
    assert (one.p, one.tie) == (pytest.approx(0.75), pytest.approx(0.5))
    assert (two.p, two.tie) == (0.5, 1.0)
    assert any("2 pairs are labelled both_bad" in note for note in report.notes)


def test_strengths_become_margins(tmp_path: Path) -> None:
    """Llama 2: a third of the strength; labellers who disagree weigh against each other."""
    preferences = [
        said("a", "right", "ann", strength=3.0),
        said("a", "right", "ben", strength=2.0),
        said("a", "left", "cleo", strength=1.0),
        said("b", "left", "ann", strength=2.0),
        said("c", "left", "ann"),
    ]
    write_rows(tmp_path / "pairs.jsonl", [pair(name) for name in "abc"])
    write_rows(tmp_path / "preferences.jsonl", preferences)
    found, report = load_preferences(DataSettings(path=str(tmp_path)))
    assert [p.strength for p in found] == [pytest.approx(4 / 3), 2.0, None]
    ready = prepared(found, reward_config_of(margin_per_strength=1 / 3), report)
    assert [p.margin for p in ready] == [pytest.approx(4 / 9), pytest.approx(2 / 3), None]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([[1, 1]] * 12, {}, "all .* pairs are ties"),
        ([[1, 1]] * 12, {"ties": "drop"}, "at least one row must remain"),
        ([[1, 2]] * 12, {"ties": "davidson"}, "tie"),
        ([[1]] * 12, {}, "fewer than two"),
    ],
)
def test_rankings_that_teach_nothing_are_refused(
    tiny: Tiny, tmp_path: Path, rows: list, changes: dict, message: str
) -> None:
    made = [
        {
            "prompt": turns(f"Question {i}?"),
            "completions": ["yes", "no"][: len(ranks)],
            "ranks": ranks,
        }
        for i, ranks in enumerate(rows)
    ]
    data = write(tmp_path / "rankings.jsonl", made)
    for loss_type in ("k_wise", "plackett_luce"):
        config = reward_config(tiny, tmp_path / loss_type, data, loss_type=loss_type, **changes)
        with pytest.raises(DataError, match=message):
            run_stage(config)


@pytest.mark.parametrize(
    ("ties", "num", "reason"),
    [("soft", 10, "share a rank"), ("davidson", 15, "too many for davidson"), ("soft", 15, "")],
)
def test_rankings_beyond_the_sums_are_counted(
    tiny: Tiny, tmp_path: Path, ties: str, num: int, reason: str
) -> None:
    rows = [
        {
            "prompt": turns(f"Question {i}?"),
            "completions": ["yes", "no", "maybe"],
            "ranks": [1, 2, 2],
        }
        for i in range(30)
    ]
    texts = [f"answer {k}" for k in range(num)]
    many = {"prompt": turns("Which?"), "completions": texts, "ranks": [2] * (num - 1) + [1]}
    if ties == "davidson" or not reason:
        many["ranks"] = list(range(num))
    data = write(tmp_path / "rankings.jsonl", [*rows, many])
    plain = reward_config(tiny, tmp_path / "run", data, loss_type="plackett_luce", ties=ties)
    rules = {"max_length": 140, "max_loss_frac": 0.1}
    config = plain.model_copy(update={"data": plain.data.model_copy(update=rules)})
    (report,) = run_stage(config).data_report()
    found = [name for name in report["reasons"] if reason and reason in name]
    assert len(found) == bool(reason)
    assert report["dropped"] == len(found)


def test_every_pair_of_a_prompt_that_does_not_fit_is_counted(tiny: Tiny, tmp_path: Path) -> None:
    """Three pairs of one long prompt are three rows lost, not one."""
    rows = []
    for i in range(12):
        long = "again " * (60 if i == 0 else 1)
        sides = [[{"role": "assistant", "content": text}] for text in ("yes", "no", "maybe")]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            prompt = turns(f"Question {i}? {long}")
            rows.append({"prompt": prompt, "chosen": sides[a], "rejected": sides[b]})
    data = write(tmp_path / "pairs.jsonl", rows)
    plain = reward_config(tiny, tmp_path / "run", data, loss_type="k_wise")
    rules = {"max_length": 60, "max_loss_frac": 0.2}
    config = plain.model_copy(update={"data": plain.data.model_copy(update=rules)})
    (report,) = run_stage(config).data_report()
    assert (report["read"], report["kept"], report["dropped"]) == (36, 33, 3)


def test_settings_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reward", "--run.folder", "x", "--model.path", "m", "--data.path", "d"]
    for more, message in (
        (["--loss_type", "k_wize"], "did you mean 'k_wise'?"),
        (["--loss_type", "plackett_luce", "--label_smoothing", "0.1"], "of comparisons"),
        (["--attributes", "facts"], "loss_type 'regression'"),
        (["--tie_log_nu", "0.1"], "davidson"),
        (["--loss_type", "regression", "--ties", "drop"], "regression has no ties"),
        (["--loss_type", "plackett_luce", "--both_bad", "tie"], "of judged pairs"),
        (["--loss_type", "regression", "--subset_column", "x"], "parts comparisons"),
        (["--loss_type", "regression", "--attributes", "a/b"], "hold a slash"),
        (["--loss_type", "regression", "--attribute_weights", "1,2"], "one for each"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_the_order_of_sides_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """Completions listed in another order: the same losses to rounding."""
    one = rankings(tiny.world, tmp_path / "one.jsonl", step=1.0, num_prompts=16)
    rows = [json.loads(line) for line in one.read_text().splitlines()]
    for row in rows:
        row["completions"], row["ranks"] = row["completions"][::-1], row["ranks"][::-1]
    other = write(tmp_path / "other.jsonl", rows)
    for loss_type in ("k_wise", "plackett_luce"):
        found = []
        for data in (one, other):
            folder = tmp_path / loss_type / data.stem
            config = reward_config(
                tiny, folder, data, loss_type=loss_type, ties="davidson", normalise="none"
            )
            found.append([row["loss"] for row in run_stage(config).metrics()])
        assert found[0] == pytest.approx(found[1], abs=2e-5)
