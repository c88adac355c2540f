"""Numbers by attribute end to end: what is missing teaches nothing, and the score is their sum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.labelled import ATTRIBUTES, ratings, reward_config, turns, write
from tests.small import small
from tests.tiny import Tiny, run_stage

from heed.algorithms.reward_ratings import judge_ratings, predicted, rating_batch, rating_loss
from heed.cli.command import main
from heed.data.batch import Row, collate
from heed.data.labels import Rating
from heed.errors import ConfigError, DataError
from heed.feedback.base import Item
from heed.feedback.reward_model import open_reward_model
from heed.learners.local import LocalLearner
from heed.models.backbone import backbone_of
from heed.models.heads import RewardHead, ValueHead
from heed.models.load import load_extra
from heed.records import Completion, Message, Prompt
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings


def items(num: int = 4) -> list[Item]:
    out = []
    for i in range(num):
        prompt = Prompt.make("Who owns the Swan?")
        text = "Anna owns it. " * (i + 1)
        completion = Completion(
            id=f"c{i}", prompt_id=prompt.id, prompt_tokens=(1,), tokens=(2,), text=text,
            finish="stop",
        )  # fmt: skip
        out.append(Item(prompt, completion))
    return out


@pytest.fixture(scope="module")
def rated(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reward model of three attributes, trained by the command."""
    folder = tmp_path_factory.mktemp("rated")
    data = ratings(tiny.world, folder / "ratings.jsonl")
    words = ["reward", "--run.folder", str(folder / "run"), "--model.path", str(tiny.policy)]
    words += ["--data.path", str(data), "--loss_type", "regression", "--optim.lr", "3e-3"]
    words += ["--attributes", ",".join(ATTRIBUTES), "--attribute_weights", "1.5,0.5,1"]
    words += ["--batch_size", "16", "--num_train_epochs", "4", "--learner.device", "cpu"]
    assert main([*words, "--learner.precision", "fp32"]) == 0
    return Run.open(folder / "run")


def test_the_parts_of_gold_are_learned(rated: Run) -> None:
    rows = rated.metrics()
    assert rows[-1]["loss"] < rows[0]["loss"]
    known = {f.name: f for f in rated.findings()}
    for name in ATTRIBUTES:
        assert known[f"correlation of {name}"].n > 0
    assert known["correlation of courtesy"].estimate > 0.3
    assert (
        known["explained variance of courtesy"].low
        < known["explained variance of courtesy"].estimate
    )
    extra = load_extra(rated.folder / "model")
    assert extra["attributes"] == list(ATTRIBUTES)
    assert extra["weights"] == [1.5, 0.5, 1.0]


def test_a_score_is_the_weighted_sum_of_its_parts(rated: Run) -> None:
    scorer = open_reward_model(rated.folder, device="cpu")
    extra = load_extra(rated.folder / "model")
    for score in scorer.score(items()):
        assert list(score.parts) == list(ATTRIBUTES)
        total = sum(w * score.parts[n] for n, w in zip(ATTRIBUTES, extra["weights"], strict=True))
        assert score.value == pytest.approx(extra["gain"] * total + extra["bias"], abs=1e-4)


def test_weights_can_be_set_when_it_is_opened(rated: Run) -> None:
    one = open_reward_model(rated.folder, device="cpu", attribute_weights={"courtesy": 1.0})
    for score in one.score(items()):
        assert score.value == pytest.approx(score.parts["courtesy"], abs=1e-5)
    with pytest.raises(ConfigError, match="kindness"):
        open_reward_model(rated.folder, attribute_weights={"kindness": 1.0})


def test_a_value_model_starts_on_the_score(rated: Run) -> None:
    """The summed map of the attributes, with gain and bias, is what the value head reads."""
    head = RewardHead.load(rated.folder)
    value = ValueHead.from_reward(head)
    row = Row("a", [5, 6, 7, 8], [False, True, True, True])
    with torch.no_grad():
        score = head.outputs(collate([Row("b", [5, 6, 7], [False, True, True])]))["scores"]
        values = value.outputs(collate([row]))["values"]
    assert score is not None
    assert values is not None
    assert float(values[0, 3]) == pytest.approx(float(score[0]), abs=1e-5)


def test_loaded_again_it_scores_the_same(rated: Run, tmp_path: Path) -> None:
    head = RewardHead.load(rated.folder)
    head.save(tmp_path / "again", None)
    batch = collate([Row("a", [5, 6, 7, 8], [False, True, True, True])])
    with torch.no_grad():
        one, other = head.outputs(batch), RewardHead.load(tmp_path / "again").outputs(batch)
    for name in ("scores", "attributes"):
        assert torch.equal(one[name], other[name])  # type: ignore[arg-type]
    (tmp_path / "again" / "heed.json").unlink()
    with pytest.raises(ConfigError, match=r"\[3\] outputs, expected one with 1 output"):
        RewardHead.load(tmp_path / "again")
    with pytest.raises(ConfigError, match="name its attributes"):
        RewardHead.load(rated.folder, attributes=("other",))


def test_a_missing_label_changes_nothing_that_it_does_not_name(tiny: Tiny, tmp_path: Path) -> None:
    """Two runs whose data differ in a column that is all the time missing end alike."""
    data = ratings(tiny.world, tmp_path / "a.jsonl", missing=False, num_prompts=12)
    one = run_stage(
        reward_config(tiny, tmp_path / "one", data, loss_type="regression", attributes=["facts"])
    )
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        row["courtesy"], row["other"] = 3.0, None
    again = write(tmp_path / "b.jsonl", rows)
    other = run_stage(
        reward_config(tiny, tmp_path / "two", again, loss_type="regression", attributes=["facts"])
    )
    assert [r["loss"] for r in one.metrics()] == [r["loss"] for r in other.metrics()]


def test_one_score_is_the_default(tiny: Tiny, tmp_path: Path) -> None:
    data = ratings(tiny.world, tmp_path / "a.jsonl", num_prompts=12)
    run = run_stage(reward_config(tiny, tmp_path / "run", data, loss_type="regression"))
    assert load_extra(run.folder / "model")["attributes"] == ["score"]
    scores = open_reward_model(run.folder, device="cpu").score(items(2))
    assert all(set(score.parts) == {"score"} for score in scores)


@pytest.mark.parametrize(
    "settings", [{"micro_batch_tokens": 1}, {"micro_batch_tokens": 40}, {"layout": "packed"}]
)
def test_split_and_layout_change_no_gradient(settings: dict[str, Any]) -> None:
    """Five attributes on rows of fewer tokens than that, some labels missing."""
    names = tuple("abcde")
    prompt, reply = Prompt.make("Who?"), (Message(role="assistant", text="x"),)
    rows = []
    for i in range(7):
        numbers = tuple(None if (i + k) % 3 == 0 else float(i - k) for k in range(5))
        tokens = list(range(4, 6 + i % 3))
        row = Row(str(i), tokens, [False] * (len(tokens) - 1) + [True])
        rows.append((Rating(str(i), prompt, reply, numbers), row))
    found: list[Any] = []
    for more in ({}, settings):
        head = RewardHead(backbone_of(small()), seed=1, attributes=names).double()
        chosen = LearnerSettings.model_validate({"precision": "fp32", "device": "cpu", **more})
        learner = LocalLearner(head, OptimSettings(), 1, chosen)
        batch = rating_batch(rows)
        terms = learner.backward(batch, rating_loss, len(batch))
        gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
        found.append((terms["loss"], gradients, torch.tensor(predicted(learner, rows))))
    assert found[0][2].shape == (7, 5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)
    for place in (0, 2):
        torch.testing.assert_close(found[0][place], found[1][place], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"facts": 2.0}, "all .* training labels of 'facts' are 2"),
        ({"other": 1.0}, "no row of .* has a number for facts"),
        ({"facts": float("nan")}, "facts is not a finite number"),
    ],
)
def test_numbers_that_teach_nothing_are_refused(
    tiny: Tiny, tmp_path: Path, column: dict[str, Any], message: str
) -> None:
    rows = [
        {
            "prompt": turns(f"Question {i}?"),
            "completion": f"yes {i}",
            "courtesy": float(i),
            **column,
        }
        for i in range(20)
    ]
    config = reward_config(
        tiny, tmp_path / "run", write(tmp_path / "a.jsonl", rows), loss_type="regression",
        attributes=["facts", "courtesy"],
    )  # fmt: skip
    with pytest.raises(DataError, match=message):
        run_stage(config)


def test_measures_by_hand() -> None:
    labels = np.array([[0.0, np.nan], [1.0, 2.0], [2.0, 2.0], [3.0, np.nan]])
    found = labels + np.array([[0.5, 0.0]])
    names = {f.name: f for f in judge_ratings(found, labels, list("abcd"), ("x", "y"))[0]}
    assert names["correlation of x"].estimate == pytest.approx(1.0)
    assert names["explained variance of x"].estimate == pytest.approx(1 - 0.25 / 1.25)
    assert names["correlation of y"].estimate is None
    assert names["explained variance of y"].reason
