"""Reward functions of other libraries: called as those call them, and their failures counted."""

import asyncio

import pytest
import torch
from tests.contracts.feedback_samples import item

from heed.errors import ConfigError
from heed.feedback.base import Item
from heed.feedback.foreign import SIGNATURES, Columns, ForeignScorer
from heed.feedback.resolve import load_scorer
from heed.records import Prompt

ITEMS = [
    item("1 + 1?", "2", answer="2", data_source="sums", extra_info={"level": 1}),
    item("1 + 2?", "4", answer="3", data_source="sums"),
    item("Once", " upon", raw=True, answer="x"),
    item("1 + 3?", "gone", answer="4", error="the engine stopped"),
]
WHOLE = ITEMS[:3]


def verl(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth) + 10 * (extra_info or {}).get("level", 0)


def verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    return [
        verl(*row)
        for row in zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    ]


def openrlhf(queries, prompts, labels):
    outputs = [query[len(prompt) :] for query, prompt in zip(queries, prompts, strict=True)]
    return torch.tensor([float(o == a) for o, a in zip(outputs, labels, strict=True)])


async def slime(args, sample):
    await asyncio.sleep(0)
    return float(sample.response == sample.label) + sample.metadata.get("level", 0)


async def slime_batch(args, samples, **kwargs):
    return [await slime(args, sample) for sample in samples]


def areal(prompt, completions, prompt_ids, completion_ids, answer=None, **kwargs):
    assert len(completion_ids) == len(completions)
    return float(completions == answer)


def trlx(samples, prompts, outputs, answer, **kwargs):
    assert [p + o for p, o in zip(prompts, outputs, strict=True)] == samples
    return [float(o == a) for o, a in zip(outputs, answer, strict=True)]


FUNCTIONS = {
    "verl": (verl, [11.0, 0.0, 0.0]),
    "verl_batch": (verl_batch, [11.0, 0.0, 0.0]),
    "openrlhf": (openrlhf, [1.0, 0.0, 0.0]),
    "slime": (slime, [2.0, 0.0, 0.0]),
    "slime_batch": (slime_batch, [2.0, 0.0, 0.0]),
    "areal": (areal, [1.0, 0.0, 0.0]),
    "trlx": (trlx, [1.0, 0.0, 0.0]),
}


def asynchronous(function):
    async def later(*args, **kwargs):
        await asyncio.sleep(0)
        result = function(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) else result

    return later


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("later", [False, True])
def test_each_signature_is_called_as_its_library_calls_it(name, later):
    function, values = FUNCTIONS[name]
    scorer = ForeignScorer(asynchronous(function) if later else function, name)
    scores = scorer.score(ITEMS)
    assert [score.value for score in scores] == [*values, None]
    assert [score.item_id for score in scores] == [i.completion.id for i in ITEMS]
    assert "the engine stopped" in scores[3].error
    assert scorer.score([]) == []


def test_it_works_where_a_loop_runs_already():
    async def inside():
        return ForeignScorer(slime, "slime").score(WHOLE)

    assert [score.value for score in asyncio.run(inside())] == [2.0, 0.0, 0.0]


def test_other_numbers_of_a_dict_become_parts():
    def graded(data_source, solution_str, ground_truth, extra_info):
        return {"score": 0.5, "acc": solution_str == ground_truth, "pred": solution_str}

    [score, *_] = ForeignScorer(graded, "verl").score(WHOLE)
    assert (score.value, score.parts) == (0.5, {"acc": 1.0})
    [score, *_] = ForeignScorer(graded, "verl", Columns(key="acc")).score(WHOLE)
    assert (score.value, score.parts) == (1.0, {"score": 0.5})


def test_dicts_of_openrlhf_hold_tensors_of_the_batch():
    def graded(queries, prompts, labels):
        num = len(queries)
        return {
            "rewards": torch.arange(num).float(),
            "scores": torch.ones(num),
            "extra_logs": {"length": torch.tensor([len(q) for q in queries])},
        }

    scores = ForeignScorer(graded, "openrlhf").score(WHOLE)
    assert [score.value for score in scores] == [0.0, 1.0, 2.0]
    assert scores[0].parts == {"scores": 1.0, "length": 7.0}


@pytest.mark.parametrize(
    ("result", "values"),
    [
        ([1, 2, 3], [1.0, 2.0, 3.0]),
        ((1, 2, 3), [1.0, 2.0, 3.0]),
        (torch.tensor([[1.0], [2.0], [3.0]]), [1.0, 2.0, 3.0]),
        ([torch.tensor(1.0), torch.tensor([2.0]), 3], [1.0, 2.0, 3.0]),
        ([1, None, 3], [1.0, None, 3.0]),
        ([1, float("nan"), float("inf")], [1.0, None, None]),
        (["1", True, 3], [None, 1.0, 3.0]),
        ([1, 2], [None] * 3),
        ([1, 2, 3, 4], [None] * 3),
        (torch.ones(3, 2), [None] * 3),
        (5.0, [None] * 3),
        (None, [None] * 3),
        ("abc", [None] * 3),
        ({"other": [1, 2, 3]}, [None] * 3),
        ({"rewards": [1, 2]}, [None] * 3),
        ([[1, 2], [3, 4], [5, 6]], [None] * 3),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_a_batch_returns(result, values):
    scores = ForeignScorer(lambda queries, prompts, labels: result, "openrlhf").score(WHOLE)
    assert [score.value for score in scores] == values
    assert all((score.value is None) == (score.error is not None) for score in scores)


def test_what_raises_fails_alone_where_items_are_called_alone():
    def some(data_source, solution_str, ground_truth, extra_info):
        if solution_str == "4":
            raise KeyError("no such answer")
        return 1.0

    for function in (some, asynchronous(some)):
        scores = ForeignScorer(function, "verl").score(WHOLE)
        assert [score.value for score in scores] == [1.0, None, 1.0]
        assert "KeyError" in scores[1].error
    scores = ForeignScorer(lambda *args: 1 / 0, "openrlhf").score(WHOLE)
    assert ["ZeroDivisionError" in score.error for score in scores] == [True] * 3


def test_verls_own_column_holds_the_ground_truth():
    meta = {"reward_model": {"style": "rule", "ground_truth": "2"}}
    one = ITEMS[0]
    changed = Item(Prompt.make("1 + 1?", meta=meta), one.completion)
    assert ForeignScorer(verl, "verl").score([changed])[0].value == 1.0


def test_a_function_need_not_take_every_column():
    def strict(prompt, completions, prompt_ids, completion_ids, answer):
        return float(completions == answer)

    assert ForeignScorer(strict, "areal").score(WHOLE[:1])[0].value == 1.0


def test_the_library_is_named_in_front_and_never_guessed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return float(solution_str == ground_truth)\n"
        "def trl(completions, **columns):\n    return [1.0 for _ in completions]\n"
    )
    word = "verl:mine.py:compute_score"
    assert [s.value for s in load_scorer(word).score(WHOLE)] == [1.0, 0.0, 0.0]
    assert load_scorer("trl:mine.py:trl").score(WHOLE[:1])[0].value == 1.0
    named = load_scorer(word + ":answer=truth:name=exact")
    assert named.name == "exact"
    assert named.score(WHOLE[:1])[0].value == 0.0
    with pytest.raises(ConfigError, match="the nearest is 'answer'"):
        load_scorer(word + ":answr=truth")
    with pytest.raises(
        ConfigError, match="needs \\['data_source', 'ground_truth', 'solution_str'\\]"
    ):
        load_scorer("mine.py:compute_score").score([item("a", "b")])
