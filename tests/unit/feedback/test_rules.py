"""Callables as scorers: what they are given, and what becomes of what they return."""

import asyncio
import math

import numpy as np
import pytest
import torch
from tests.contracts.feedback_samples import item

from heed.errors import ConfigError
from heed.feedback.resolve import load_scorer
from heed.feedback.rules import DOES_NOT_APPLY, CallableScorer, WeightedSum, load_callable

ITEMS = [
    item("Who?", "Anna", answer="Anna", level=1),
    item("Where?", "there", answer="here"),
]


def test_dialogues_are_message_lists_and_raw_texts_are_strings():
    seen = {}

    def record(prompts, completions, completion_ids, **columns):
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, columns=columns)
        return [0.0] * len(prompts)

    CallableScorer(record).score([ITEMS[0], item("Once", " upon", raw=True)])
    assert seen["prompts"] == [[{"role": "user", "content": "Who?"}], "Once"]
    assert seen["completions"] == [[{"role": "assistant", "content": "Anna"}], " upon"]
    assert seen["ids"] == [[ord(c) for c in "Anna"], [ord(c) for c in " upon"]]
    assert seen["columns"]["answer"] == ["Anna", None]


def test_columns_come_as_lists_with_none_where_a_row_has_none():
    def exact(completions, answer, level, **kwargs):
        assert level == [1, None]
        return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]

    assert [s.value for s in CallableScorer(exact).score(ITEMS)] == [1.0, 0.0]


def test_a_function_gets_only_what_it_can_take():
    def narrow(completions):
        return [1.0] * len(completions)

    def with_state(prompts, trainer_state):
        return [float(trainer_state)] * len(prompts)

    assert [s.value for s in CallableScorer(narrow).score(ITEMS)] == [1.0, 1.0]
    scorer = CallableScorer(with_state)
    scorer.trainer_state = 12
    assert [s.value for s in scorer.score(ITEMS)] == [12.0, 12.0]


def test_logs_are_collected_and_taken_once():
    def logging(completions, log_extra, log_metric, **kwargs):
        log_extra("letters", [len(c[0]["content"]) for c in completions])
        log_metric("seen", len(completions))
        return [0.0] * len(completions)

    scorer = CallableScorer(logging)
    scorer.score(ITEMS)
    scorer.score(ITEMS[:1])
    assert scorer.take_logs() == ({"seen": 1.5}, {"letters": [4, 5, 4]})
    assert scorer.take_logs() == ({}, {})


def test_a_column_that_no_row_has_is_an_error_that_names_it():
    def needs(completions, solution):
        return [0.0] * len(completions)

    with pytest.raises(ConfigError, match=r"solution.*answer"):
        CallableScorer(needs).score(ITEMS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, DOES_NOT_APPLY),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        ("1.0", "not a number"),
        ([1.0], "not a number"),
        (1j, "not a number"),
    ],
)
def test_a_bad_value_is_the_error_of_its_own_item(value, said):
    bad, good = CallableScorer(lambda completions: [value, 2.0], "rule").score(ITEMS)
    assert bad.value is None
    assert said in bad.error
    assert good.value == 2.0


@pytest.mark.parametrize("value", [1, True, np.float32(1.0), torch.tensor(1.0)])
def test_numbers_of_every_make_are_numbers(value):
    assert CallableScorer(lambda completions: [value] * 2, "rule").score(ITEMS)[0].value == 1.0


def test_a_tensor_of_values_is_a_list_of_values():
    scorer = CallableScorer(lambda completions: torch.tensor([1.0, 2.0]), "rule")
    assert [s.value for s in scorer.score(ITEMS)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda completions: [1.0], "1 values for 2"),
        (lambda completions: 1.0, "TypeError"),
        (lambda completions: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_bad_call_is_the_error_of_every_item(function, said):
    scores = CallableScorer(function, "rule").score(ITEMS)
    assert all(s.value is None and said in s.error for s in scores)


def test_an_interrupt_is_not_swallowed():
    def interrupted(completions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CallableScorer(interrupted).score(ITEMS)


def test_async_functions_run_inside_and_outside_of_a_running_loop():
    async def later(completions, **kwargs):
        await asyncio.sleep(0)
        return [float(i) for i in range(len(completions))]

    scorer = CallableScorer(later)

    async def in_a_notebook():
        return scorer.score(ITEMS)

    assert [s.value for s in scorer.score(ITEMS)] == [0.0, 1.0]
    assert [s.value for s in asyncio.run(in_a_notebook())] == [0.0, 1.0]


def test_failed_completions_are_not_shown_to_the_function():
    def count(completions):
        return [float(len(completions))] * len(completions)

    scores = CallableScorer(count).score([item("Who?", "", error="gone"), ITEMS[0]])
    assert scores[0].value is None
    assert scores[1].value == 1.0


def test_positional_only_parameters_are_refused():
    def positional(completions, /):
        return [0.0]

    with pytest.raises(ConfigError, match="positional"):
        CallableScorer(positional)


def rule(name, *values):
    return CallableScorer(lambda completions: list(values), name)


def test_a_sum_weighs_its_parts_and_records_them_before_weights():
    total = WeightedSum([rule("a", 1.0, 2.0), rule("b", 10.0, 20.0)], [2.0, -0.1]).score(ITEMS)
    assert [s.value for s in total] == pytest.approx([1.0, 2.0])
    assert [s.parts for s in total] == [{"a": 1.0, "b": 10.0}, {"a": 2.0, "b": 20.0}]


def test_a_part_that_does_not_apply_is_left_out_and_an_error_is_not():
    total = WeightedSum([rule("a", 1.0, 1.0), rule("b", None, math.nan)]).score(ITEMS)
    assert total[0].value == 1.0
    assert total[0].parts == {"a": 1.0, "b": None}
    assert total[1].value is None
    assert "b: returned nan" in total[1].error


def test_a_part_without_weight_is_recorded_only():
    total = WeightedSum([rule("a", 1.0, 1.0), rule("b", 5.0, math.nan)], [1.0, 0.0]).score(ITEMS)
    assert [s.value for s in total] == [1.0, 1.0]
    assert [s.parts["b"] for s in total] == [5.0, None]


def test_where_nothing_applies_there_is_no_score():
    total = WeightedSum([rule("a", None, None), rule("b", None, 1.0)]).score(ITEMS)
    assert (total[0].value, total[0].error) == (None, DOES_NOT_APPLY)
    assert total[1].value == 1.0


def test_sums_nest_and_keep_apart_what_does_not_apply():
    inner = WeightedSum([rule("a", None, 1.0)], name="inner")
    assert WeightedSum([inner, rule("b", 3.0, 3.0)]).score(ITEMS)[0].value == 3.0


@pytest.mark.parametrize(
    ("scorers", "weights"),
    [
        ([], None),
        ([rule("a", 1.0)], [1.0, 2.0]),
        ([rule("a", 1.0), rule("a", 1.0)], None),
        ([rule("a", 1.0)], [math.nan]),
    ],
)
def test_impossible_sums_are_refused(scorers, weights):
    with pytest.raises(ConfigError):
        WeightedSum(scorers, weights)


def test_callables_load_from_modules_and_files(tmp_path, monkeypatch):
    assert load_callable("math:sqrt") is math.sqrt
    assert load_callable("pathlib:Path.cwd")()
    (tmp_path / "mine.py").write_text("def score(completions):\n    return [7.0]\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("def score(completions):\n    return [8.0]\n")
    assert load_callable(f"{tmp_path}/mine.py:score")([]) == [7.0]
    assert load_callable(f"{tmp_path}/other/mine.py:score")([]) == [8.0]
    (tmp_path / "heed_test_rules_here.py").write_text("def score(completions):\n    return [9.0]\n")
    monkeypatch.chdir(tmp_path)
    assert load_callable("heed_test_rules_here:score")([]) == [9.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("math", "expected 'module:function'"),
        (":score", "expected 'module:function'"),
        ("math:squrt", "did you mean 'sqrt'"),
        ("math:pi", "expected something to call"),
        ("no_such_module_here:f", "no_such_module_here"),
        ("/nowhere/file.py:f", "no file"),
        ("BROKEN:f", "SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_is_explained(name, said, tmp_path):
    if name.startswith("BROKEN"):
        (tmp_path / "broken.py").write_text("def f(:\n")
        name = name.replace("BROKEN", f"{tmp_path}/broken.py")
    with pytest.raises(ConfigError, match=said):
        load_callable(name)


def test_a_file_without_a_function_is_asked_for_one() -> None:
    with pytest.raises(ConfigError, match=r"write rules\.py:FUNCTION"):
        load_scorer("rules.py")
