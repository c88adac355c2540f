"""A setting that does nothing beside the others is never ignored in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from heed.cli.command import main
from heed.config import load_config
from heed.pipelines.quickstart import QuickstartConfig
from heed.pipelines.verbs import VERBS
from heed.runs.run import Run
from heed.settings import DataSettings

LEAST = {
    "init": "--data.path texts.jsonl",
    "sft": "--model.path m --data.path d.jsonl",
    "reward": "--model.path m --data.path d.jsonl",
    "ppo": "--model.path m --data.path d.jsonl --reward_funcs r --kl_coef 0.1",
    "generate": "--model.path m --data.path d.jsonl",
    "compare": "--data.path d --scorers w",
    "evaluate": "--model.path m --baseline.path b --data.path d.jsonl --judges.true w",
}


def _ignored(verb: str, words: str = "") -> list[str]:
    flags = f"{LEAST[verb]} --run.folder r {words}".split()
    return load_config(VERBS[verb].config_class(), [], flags).ignored()  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", LEAST)
def test_defaults_are_not_ignored(verb: str) -> None:
    assert _ignored(verb) == []


CASES = [
    ("ppo", "--sampling.n 4", ["sampling.n"]),
    ("ppo", "--sampling.seed 1", ["sampling.seed"]),
    ("ppo", "--reference.path x --reference.lora", ["reference.lora"]),
    ("ppo", "--kl_coef 0 --kl_estimator k3", ["kl_estimator"]),
    ("ppo", "--kl_estimator k3", []),
    ("ppo", "--kl_horizon 10000", ["kl_horizon"]),
    ("ppo", "--kl_gain 0.1", ["kl_gain"]),
    ("ppo", "--kl_target 6 --kl_gain 0.1", []),
    ("ppo", "--truncate_min_tokens 16", ["truncate_min_tokens"]),
    ("ppo", "--truncate_min_tokens 16 --truncate_after .", []),
    ("ppo", "--value_init shared --value_optim.lr 1e-3", ["value_optim"]),
    ("ppo", "--value_init policy --value_optim.lr 1e-3", []),
    ("ppo", "--ptx_coef 2 --ptx_batch_size 3", ["ptx_coef", "ptx_batch_size"]),
    ("ppo", "--ptx_coef 2 --ptx_batch_size 3 --ptx_data.path t", []),
    ("ppo", "--ptx_data.path t --ptx_data.on_overlong error", ["ptx_data.on_overlong"]),
    ("ppo", "--data.on_overlong truncate", ["data.on_overlong"]),
    ("ppo", "--data.on_overlong error", []),
    (
        "ppo",
        "--eval_prompts.path e --eval_prompts.on_overlong truncate",
        ["eval_prompts.on_overlong"],
    ),
    ("sft", "--eval_data.path e --eval_frac 0.5", ["eval_frac"]),
    ("sft", "--eval_frac 0 --eval_every 3", ["eval_every"]),
    ("reward", "--eval_data.path e --eval_frac 0.5", ["eval_frac"]),
    ("reward", "--normalise none --num_normalise 9", ["num_normalise"]),
    (
        "reward",
        "--normalise none --normalise_before --normalise_data.path n",
        ["normalise_before", "normalise_data"],
    ),
    ("reward", "--normalise bias --num_normalise 9 --normalise_before", []),
    ("generate", "--model.lora --learner.layout packed", ["model.lora", "learner.layout"]),
    ("generate", "--data.on_overlong truncate", ["data.on_overlong"]),
    ("evaluate", "--sampling.seed 3 --baseline.lora", ["sampling.seed", "baseline.lora"]),
    ("evaluate", "--data.on_overlong truncate", ["data.on_overlong"]),
    (
        "compare",
        "--labeller scorer --overlap 2 --skill 0.5 --tie_width 1 --biases.flattery 1",
        ["overlap", "skill", "tie_width", "biases"],
    ),
    ("compare", "--overlap 2 --skill 0.5", []),
    ("compare", "--data.max_length 9", ["data.max_length"]),
    ("init", "--tokenizer t --vocab_size 999", ["data", "vocab_size"]),
    ("init", "--data.on_overlong error", ["data.on_overlong"]),
]


@pytest.mark.parametrize(("verb", "words", "names"), CASES, ids=lambda it: str(it)[:40])
def test_what_has_no_effect_is_named_with_the_reason(
    verb: str, words: str, names: list[str]
) -> None:
    found = _ignored(verb, words)
    assert [text.split()[0] for text in found] == names
    for text in found:
        _, _, why = text.partition(" is set and ignored: ")
        assert why


def test_a_split_belongs_to_hub_data_sets(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").touch()
    local = DataSettings(path=str(tmp_path / "d.jsonl"), split="test")
    assert [text.split()[0] for text in local.ignored()] == ["split"]
    assert DataSettings(path="owner/name", split="test").ignored() == []


def test_the_quickstart_ignores_nothing(tmp_path: Path) -> None:
    from importlib import resources

    from heed.pipelines.chain import plan_stages
    from heed.pipelines.recipe import read_pipeline

    with resources.as_file(resources.files("heed.pipelines") / "quickstart.toml") as path:
        pipeline = read_pipeline(path)
    settings = QuickstartConfig().run.model_copy(update={"folder": str(tmp_path)})
    for quick in (False, True):
        for planned in plan_stages(pipeline.given(quick=quick), settings, VERBS):
            assert planned.config.ignored() == []  # type: ignore[attr-defined]


def test_the_run_and_the_terminal_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "Ann sells bread."}\n' * 9)
    folder = tmp_path / "run"
    words = ["init", "--data.path", str(tmp_path / "texts.jsonl"), "--run.folder", str(folder)]
    words += ["--hidden_size", "8", "--num_layers", "1", "--num_heads", "1"]
    assert main([*words, "--data.split", "test"]) == 0
    said = "data.split is set and ignored: a local file or folder has no splits"
    assert said in capsys.readouterr().out
    kept = [(w["name"], w["message"]) for w in Run.open(folder).warnings()]
    assert kept == [("settings", said)]
