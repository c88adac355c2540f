"""What people get wrong, through the command line: what was found, what was expected, what to do.

Every case ends with status 2, one message, no traceback, and a run that says that it failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import Tiny
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from heed.cli.command import WRONG, main
from heed.runs.run import Run

SMALL = ["--learner.precision", "fp32", "--learner.device", "cpu"]


def _write(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _sft(tiny: Tiny, tmp_path: Path, data: str, *more: str) -> list[str]:
    return ["sft", "--model.path", str(tiny.fresh), "--data.path", data, *more]


def _reward(tiny: Tiny, tmp_path: Path, data: str, *more: str) -> list[str]:
    return ["reward", "--model.path", str(tiny.policy), "--data.path", data, *more]


def _ppo(tiny: Tiny, tmp_path: Path, data: str, *more: str) -> list[str]:
    words = ["ppo", "--model.path", str(tiny.policy), "--data.path", data, "--kl_coef", "0.1"]
    sizes = ["--total_episodes", "8", "--batch_size", "8", "--sampling.max_tokens", "6"]
    return [*words, "--reward_funcs", str(tiny.reward), *sizes, *more]


def _generate(tiny: Tiny, tmp_path: Path, data: str, *more: str) -> list[str]:
    return ["generate", "--model.path", str(tiny.policy), "--data.path", data, *more]


STAGES: dict[str, Callable[..., list[str]]] = {
    "sft": _sft,
    "reward": _reward,
    "ppo": _ppo,
    "generate": _generate,
}

GOOD: dict[str, dict[str, str]] = {
    "sft": {"prompt": "Who?", "completion": "The miller."},
    "reward": {"prompt": "Who?", "chosen": "The miller.", "rejected": "Nobody."},
    "ppo": {"prompt": "Who?"},
    "generate": {"prompt": "Who?"},
}


def _good(stage: str, num: int) -> list[dict[str, str]]:
    rows = []
    for i in range(num):
        rows.append({name: f"{i} {text}" for name, text in GOOD[stage].items()})
    return rows


def _refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line and return its message; it must be one that helps."""
    capsys.readouterr()
    folder = tmp_path / "run"
    status = main([*words, "--run.folder", str(folder), *SMALL])
    said = capsys.readouterr()
    assert status == WRONG, said
    assert "Traceback" not in said.out + said.err
    assert said.err.startswith("error: ")
    assert len(said.err.strip().splitlines()) == 1, "one message, in one line"
    run = Run.open(folder)
    assert run.status == "failed"
    assert run.manifest["error"]
    assert not (folder / "model").exists()
    return said.err


@pytest.fixture(params=list(STAGES))
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_that_is_not_there(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "data.jsonl", _good(stage, 4))
    words = STAGES[stage](tiny, tmp_path, str(tmp_path / "date.jsonl"))
    said = _refused(words, tmp_path, capsys)
    assert "date.jsonl does not exist" in said
    assert "data.jsonl" in said.split("does not exist")[1], "what is near is offered"


def test_an_empty_file(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", [])
    said = _refused(STAGES[stage](tiny, tmp_path, data), tmp_path, capsys)
    assert "data.jsonl has no rows; expected at least one" in said


def test_broken_json_at_a_line(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    _write(data, _good(stage, 4))
    lines = data.read_text().splitlines()
    lines[2] = lines[2][:-3]
    data.write_text("\n".join(lines))
    said = _refused(STAGES[stage](tiny, tmp_path, str(data)), tmp_path, capsys)
    assert "line 3 is not JSON" in said
    assert lines[2][:20] in said
    assert "Fix the line or remove it" in said


def test_missing_columns(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", [{"frage": "Wer?", "antwort": "Der Bäcker."}] * 3)
    said = _refused(STAGES[stage](tiny, tmp_path, data), tmp_path, capsys)
    assert "frage, antwort" in said
    assert "prompt" in said
    assert "Rename the columns" in said


def test_one_row_that_lacks_a_column_is_counted_and_may_be_allowed(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, str]] = _good(stage, 20)
    del rows[7][list(rows[7])[-1]]
    data = _write(tmp_path / "data.jsonl", rows)
    said = _refused(STAGES[stage](tiny, tmp_path, data), tmp_path, capsys)
    assert "of 20 rows 1 (5.00%) are lost" in said
    assert "data.jsonl:8" in said
    assert "data.max_loss_frac" in said
    words = STAGES[stage](tiny, tmp_path, data, "--data.max_loss_frac", "0.06")
    folder = tmp_path / "allowed"
    assert main([*words, "--run.folder", str(folder), *SMALL]) == 0, capsys.readouterr().err
    assert Run.open(folder).data_report()[0]["dropped"] == 1


def test_chosen_equal_to_rejected(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _good("reward", 30)
    for row in rows[10:13]:
        row["rejected"] = row["chosen"]
    data = _write(tmp_path / "data.jsonl", rows)
    said = _refused(_reward(tiny, tmp_path, data), tmp_path, capsys)
    assert "of 30 rows 3 (10.00%) are lost" in said
    assert "chosen" in said
    assert "same" in said or "equal" in said


def test_prompts_of_a_pair_that_do_not_match(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def turns(question: str, answer: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]

    rows = [{"chosen": turns(f"{i}?", "Yes."), "rejected": turns(f"{i}?", "No.")} for i in range(9)]
    rows[4]["rejected"] = turns("Another question?", "No.")
    data = _write(tmp_path / "data.jsonl", rows)
    said = _refused(_reward(tiny, tmp_path, data), tmp_path, capsys)
    assert "of 9 rows 1 (11.11%) are lost" in said
    assert "prompt" in said.split("Main reasons")[1]


def test_rows_that_are_too_long(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _good(stage, 10)
    rows[3] = {name: text * 20 for name, text in rows[3].items()}
    data = _write(tmp_path / "data.jsonl", rows)
    words = STAGES[stage](tiny, tmp_path, data, "--data.max_length", "50")
    said = _refused(words, tmp_path, capsys)
    assert "of 10 rows 1 (10.00%) are lost" in said
    assert "max_length" in said
    said = _refused([*words, "--data.on_overlong", "error"], _fresh(tmp_path), capsys)
    assert "50" in said
    assert "data.max_length" in said


def _fresh(tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir()
    return tmp_path / "second"


def test_prompts_that_leave_no_room_in_the_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _good("ppo", 10)
    rows[3]["prompt"] = "Who? " * 90
    data = _write(tmp_path / "data.jsonl", rows)
    for i, make in enumerate((_ppo, _generate)):
        folder = tmp_path / str(i)
        folder.mkdir()
        said = _refused(make(tiny, tmp_path, data), folder, capsys)
        assert "of 10 rows 1 (10.00%) are lost" in said
        words = make(tiny, tmp_path, data, "--sampling.max_tokens", "160")
        said = _refused(words, _fresh(folder), capsys)
        assert "leaves no room for a prompt; set it below 160" in said


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_tokenizer_without_an_end_token(
    tiny: Tiny, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _with_tokenizer(tiny, tmp_path, eos_token=None, bos_token=None, pad_token=None)
    data = _write(tmp_path / "data.jsonl", _good(name, 10))
    words = STAGES[name](tiny, tmp_path, data, "--model.tokenizer", str(folder))
    said = _refused(words, tmp_path, capsys)
    assert "end token" in said


def _with_tokenizer(tiny: Tiny, tmp_path: Path, **special: str | None) -> Path:
    """The tiny tokenizer with other special tokens, and no template that would add some."""
    backend = AutoTokenizer.from_pretrained(tiny.fresh / "model").backend_tokenizer
    given = {name: token for name, token in special.items() if token is not None}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **given)
    made.chat_template = None
    made.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize("pad", [None, "eos"])
def test_a_tokenizer_without_pad_or_with_pad_as_end_still_teaches_to_end(
    tiny: Tiny, tmp_path: Path, pad: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classic trap: with labels made from pad ids the policy would never learn to stop."""
    from heed.algorithms import sft
    from heed.data.render import Renderer
    from heed.models.load import load_tokenizer

    original = AutoTokenizer.from_pretrained(tiny.fresh / "model")
    special: dict[str, str | None] = {"eos_token": original.eos_token}
    special["pad_token"] = original.eos_token if pad else None
    folder = _with_tokenizer(tiny, tmp_path, **special)
    data = _write(tmp_path / "data.jsonl", _good("sft", 40))
    words = _sft(tiny, tmp_path, data, "--model.tokenizer", str(folder))
    run_folder = tmp_path / "run"
    assert main([*words, "--run.folder", str(run_folder), *SMALL]) == 0, capsys.readouterr().err
    run = Run.open(run_folder)
    notes = " ".join(run.data_report()[0]["notes"])
    assert ("pad token is an end token" if pad else "no pad token") in notes
    config = sft.SFTConfig.model_validate(run.manifest["config"])
    renderer = Renderer(load_tokenizer(config.model))
    with Run.start(config.run.model_copy(update={"folder": str(tmp_path / "b")}), "sft", {}) as b:
        train, _ = sft.load_rows(config, renderer, b)
    for row in train:
        assert row.tokens[-1] in renderer.end_ids
        assert row.learn[-1], "the end token is learned"


def test_a_model_that_is_no_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", _good("sft", 10))
    words = ["sft", "--model.path", str(tmp_path / "nothing"), "--data.path", data]
    said = _refused(words, tmp_path, capsys)
    assert "nothing" in said


def test_a_policy_as_the_reward_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", _good("ppo", 10))
    words = _ppo(tiny, tmp_path, data)
    words[words.index(str(tiny.reward))] = str(tiny.policy)
    said = _refused(words, tmp_path, capsys)
    assert "without a reward head" in said
    assert "heed reward" in said


def test_a_loss_that_is_not_finite(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", _good("sft", 40))
    words = _sft(tiny, tmp_path, data, "--optim.lr", "1e30", "--optim.max_grad_norm", "0")
    words += ["--num_train_epochs", "4", "--batch_size", "8"]
    capsys.readouterr()
    status = main([*words, "--run.folder", str(tmp_path / "run"), *SMALL])
    said = capsys.readouterr()
    assert status == WRONG
    assert "Traceback" not in said.err + said.out
    assert "optim.lr" in said.err
    assert list((tmp_path / "run" / "bad").glob("*.pt"))
    assert "saved in" in said.err


def test_a_folder_that_is_taken(
    tiny: Tiny, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "data.jsonl", _good(stage, 20))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("four years of work")
    words = STAGES[stage](tiny, tmp_path, data)
    assert main([*words, "--run.folder", str(tmp_path / "run"), "--run.overwrite", *SMALL]) == WRONG
    assert "neither resumes nor overwrites" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "four years of work"


def test_an_adaptive_coefficient_that_starts_at_zero(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stay there; that is said before anything is loaded."""
    words = _ppo(tiny, tmp_path, "absent.jsonl")
    words[words.index("--kl_coef") + 1] = "0"
    words += ["--kl_target", "6", "--kl_gain", "0.1", "--run.folder", str(tmp_path / "run")]
    capsys.readouterr()
    assert main(words) == WRONG
    said = capsys.readouterr().err
    assert "the KL coefficient is 0, from where an adaptive one (kl_target) never leaves" in said
    assert not (tmp_path / "run").exists()


def test_prompts_in_place_of_completions(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--data.path", str(tiny.world / "prompts.jsonl"), "--scorers", "w"]
    capsys.readouterr()
    assert main([*words, "--run.folder", str(tmp_path / "run")]) == WRONG
    said = capsys.readouterr().err
    assert "row 1 has the columns prompt" in said
    assert "as `heed generate` writes them" in said
