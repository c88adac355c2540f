"""Process reward models end to end: steps judged where they end, and scored as one number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.labelled import prm_config, steps, turns, write
from tests.small import renderer, small
from tests.tiny import Tiny, run_stage
from transformers import AutoModelForTokenClassification

from heed.algorithms.prm import StepRow, judge_steps, load_step_rows, step_batch, step_loss
from heed.cli.command import main
from heed.data.batch import Row, collate
from heed.data.labels import Steps
from heed.data.render import Renderer
from heed.errors import ConfigError, DataError
from heed.feedback.base import Item
from heed.feedback.process_reward import aggregates, open_process_reward_model
from heed.feedback.resolve import load_scorer
from heed.learners.local import LocalLearner
from heed.models.backbone import backbone_of
from heed.models.load import load_extra, load_tokenizer
from heed.models.step_head import StepHead
from heed.records import Completion, Prompt
from heed.report.page import write_report
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained by the command on the sentences of a world's answers."""
    folder = tmp_path_factory.mktemp("prm")
    data = steps(tiny.world, folder / "steps.jsonl")
    words = ["prm", "--run.folder", str(folder / "run"), "--model.path", str(tiny.policy)]
    words += ["--data.path", str(data), "--batch_size", "12", "--num_train_epochs", "4"]
    words += ["--optim.lr", "3e-3", "--aggregate", "product", "--learner.device", "cpu"]
    assert main([*words, "--learner.precision", "fp32"]) == 0
    return Run.open(folder / "run")


def item(text: str, error: str | None = None) -> Item:
    prompt = Prompt.make("Who owns the Swan?")
    completion = Completion(
        id="c", prompt_id=prompt.id, prompt_tokens=(1,), tokens=(2,), text=text,
        finish="error" if error else "stop", error=error,
    )  # fmt: skip
    return Item(prompt, completion)


def test_steps_of_a_world_are_learned(trained: Run) -> None:
    rows = trained.metrics()
    assert rows[-1]["loss"] < rows[0]["loss"]
    named = {f.name: f for f in trained.findings()}
    assert set(named) == {
        "steps judged as labelled",
        "always-the-commoner-label share",
        "first wrong step found",
        "sound completions passed",
    }
    assert named["steps judged as labelled"].n > 0
    assert "Steps judged as labelled" in write_report(trained.folder).read_text()
    extra = load_extra(trained.folder / "model")
    assert (extra["step_separator"], extra["aggregate"]) == ("\n", "product")


def test_a_score_is_made_of_the_steps(trained: Run) -> None:
    scorer = load_scorer(str(trained.folder), device="cpu")
    text = "Anna owns it.\n\nIt stands on Mill Street.\n"
    (score,), (judged,) = scorer.score([item(text)]), scorer.steps([item(text)])  # type: ignore
    assert [step for step, _ in judged] == ["Anna owns it.", "It stands on Mill Street."]
    chances = [p for _, p in judged]
    assert score.parts == {**aggregates(chances), "num_steps": 2.0}
    assert score.value == pytest.approx(math.prod(chances))
    other = open_process_reward_model(trained.folder, device="cpu", aggregate="last")
    assert other.score([item(text)])[0].value == pytest.approx(chances[-1])
    # What follows a step changes nothing about it.
    (first,) = scorer.steps([item("Anna owns it.")])  # type: ignore[attr-defined]
    assert first[0][1] == pytest.approx(chances[0], abs=1e-5)


def test_items_without_steps_have_an_error(trained: Run) -> None:
    scorer = open_process_reward_model(trained.folder, device="cpu", max_length=40)
    empty, failed, long, good = scorer.score(
        [item(" \n "), item("x", error="gone"), item("word " * 80), item("Anna.")]
    )
    assert "no step" in str(empty.error)
    assert "gone" in str(failed.error)
    assert "laid out" in str(long.error)
    assert good.value is not None
    assert scorer.steps([item(""), item("Anna.")])[0] is None
    assert scorer.score([]) == []
    with pytest.raises(ConfigError, match="min, product, last or mean"):
        open_process_reward_model(trained.folder, aggregate="median")  # type: ignore[arg-type]


def test_transformers_reads_the_saved_model(trained: Run, tiny: Tiny) -> None:
    """Its softmax over two labels is the sigmoid of the log-odds; a plain policy is no such."""
    model = AutoModelForTokenClassification.from_pretrained(trained.folder / "model")
    assert model.config.id2label == {0: "wrong", 1: "right"}
    row = Row("a", [5, 6, 7, 8], [False, True, False, True])
    head = StepHead.load(trained.folder)
    with torch.no_grad():
        values = head.outputs(collate([row]))["values"]
        logits = model(input_ids=torch.tensor([row.tokens])).logits
    assert values is not None
    found = values[0][[1, 3]].sigmoid()
    torch.testing.assert_close(found, logits[0, [1, 3]].softmax(-1)[:, 1], atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="no token classifier"):
        open_process_reward_model(tiny.policy)


def rows_of(num: int = 9) -> list[StepRow]:
    generator = torch.Generator().manual_seed(0)
    out = []
    for i in range(num):
        texts = ["The miller.", "The baker sells bread.", "No."][: 1 + i % 3]
        record = Steps(str(i), Prompt.make(f"Who {i}?"), tuple(texts), (1.0,) * len(texts))
        row = renderer().steps_row(record.prompt, record.steps, "\n")
        labels = torch.rand(len(texts), generator=generator).tolist()
        out.append(StepRow(record, row, tuple(labels)))
    return out


@pytest.mark.parametrize(
    "settings",
    [{"micro_batch_tokens": 1}, {"micro_batch_tokens": 70}, {"layout": "packed"}],
)
def test_split_and_layout_change_no_gradient(settings: dict[str, Any]) -> None:
    found: list[Any] = []
    for more in ({}, settings):
        head = StepHead(backbone_of(small()), seed=1).double()
        chosen = LearnerSettings.model_validate({"precision": "fp32", "device": "cpu", **more})
        learner = LocalLearner(head, OptimSettings(), 1, chosen)
        batch = step_batch(rows_of())
        terms = learner.backward(batch, step_loss, batch.num_learned)
        gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
        found.append((terms["loss"], gradients))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-9, rtol=1e-9)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_only_labelled_steps_are_learned(tiny: Tiny, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": turns(f"Question {i}?"),
            "completions": ["One.", "Two.", "Three."],
            "labels": [True, None, i % 2 == 0],
        }
        for i in range(20)
    ]
    data = write(tmp_path / "steps.jsonl", rows)
    for last_only, expected in ((False, 2), (True, 1)):
        config = prm_config(
            tiny, tmp_path / str(last_only), data, train_on_last_step_only=last_only
        )
        with Run.start(config.run, "prm", {}) as run:
            made = Renderer(load_tokenizer(config.model))
            train, held_out = load_step_rows(config, made, run)
        assert {sum(row.row.learn) for row in train} == {expected}
        assert {len(row.labels) for row in held_out} == {2}
        assert not {r.steps.prompt.id for r in train} & {r.steps.prompt.id for r in held_out}
        ends = [t for t, end in enumerate(train[0].row.learn) if end]
        assert ends[-1] == len(train[0].row.tokens) - 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [([True, True], "all training labels of steps are 1"), ([True], "not one label for each step")],
)
def test_steps_that_teach_nothing_are_refused(
    tiny: Tiny, tmp_path: Path, labels: list[bool], message: str
) -> None:
    rows = [
        {"prompt": turns(f"Question {i}?"), "completions": ["One.", "Two."], "labels": labels}
        for i in range(20)
    ]
    with pytest.raises(DataError, match=message):
        run_stage(prm_config(tiny, tmp_path / "run", write(tmp_path / "steps.jsonl", rows)))


def test_long_completions_are_cut_at_the_prompt_or_counted(tiny: Tiny, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": turns(f"Question {i}? " + "again " * (30 if i % 4 == 0 else 1)),
            "completions": ["One.", "Two."],
            "labels": [True, i % 2 == 0],
        }
        for i in range(20)
    ]
    data = write(tmp_path / "steps.jsonl", rows)
    for how, key in (("truncate", "cut"), ("drop", "dropped")):
        plain = prm_config(tiny, tmp_path / how, data)
        rules = {"max_length": 60, "on_overlong": how, "max_loss_frac": 1.0}
        config = plain.model_copy(update={"data": plain.data.model_copy(update=rules)})
        (report,) = run_stage(config).data_report()
        assert report[key] == 5


def test_measures_by_hand() -> None:
    """Right steps, the commoner label, and the first error of each completion."""

    def row(name: str, labels: tuple[float, ...]) -> StepRow:
        record = Steps(name, Prompt.make(name), ("x",) * len(labels), labels)
        return StepRow(record, Row(name, [1], [False]), labels)

    rows = [row("a", (1, 0, 0)), row("b", (1, 1)), row("c", (0, 1)), row("d", (1,))]
    values = [np.array(v) for v in ([1.0, -1, 1], [1.0, 1], [1.0, -1], [-1.0])]
    named = {f.name: f.estimate for f in judge_steps(rows, values)}
    assert named["steps judged as labelled"] == pytest.approx(4 / 8)
    assert named["always-the-commoner-label share"] == pytest.approx(5 / 8)
    assert named["first wrong step found"] == pytest.approx(1 / 2)
    assert named["sound completions passed"] == pytest.approx(1 / 2)
    (alone,) = [f for f in judge_steps(rows[:1], values[:1]) if f.name.startswith("sound")]
    assert alone.estimate is None
    assert json.dumps(alone.model_dump())
