"""The configuration loader: order of sources, what may be written, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from heed.config import dump_toml, flags_of, load_config, make_config
from heed.errors import ConfigError
from heed.flags import _IN_TRL, slots_of, unknown
from heed.pipelines.verbs import VERBS
from heed.settings import DataSettings, ModelSettings, OptimSettings, RunSettings, Settings


class Inner(Settings):
    """A section."""

    low: float = 0.0
    """Lower end."""
    high: float = 1.0
    """Upper end."""


class Example(Settings):
    """A configuration with every kind of setting."""

    run: RunSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings = OptimSettings(lr=3e-5, weight_decay=0.1)
    num_steps: int = Field(default=10, ge=1)
    """Steps."""
    kl_coef: float | None = Field(default=0.05, ge=0.0)
    """KL coefficient."""
    kind: Literal["one", "two"] = "one"
    stop: tuple[str, ...] = ()
    weights: dict[str, float] = {}
    span: Inner | None = None
    verbose: bool = True

    @model_validator(mode="after")
    def _check(self) -> Example:
        if self.kind == "two" and self.kl_coef is None:
            raise ValueError("kind 'two' needs kl_coef; set --kl_coef 0.05")
        return self


NEEDED = ["--run.folder", "runs/a", "--model.path", "m", "--data.path", "d.jsonl"]


def load(*flags: str, files: tuple[Path, ...] = ()) -> Example:
    return load_config(Example, files, [*NEEDED, *flags])


def test_later_files_override_earlier_ones_and_flags_override_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text('num_steps = 3\nkind = "two"\n[optim]\nlr = 1e-3\nwarmup_frac = 0.5\n')
    second.write_text("num_steps = 4\n[optim]\nlr = 2e-3\n")
    config = load("--optim.lr", "4e-3", files=(first, second))
    assert config.optim.lr == 4e-3
    assert config.optim.warmup_frac == 0.5
    assert config.num_steps == 4
    assert config.kind == "two"


def test_a_section_set_in_part_keeps_the_defaults_of_the_outer_class(tmp_path: Path) -> None:
    config = load("--optim.warmup_frac=0.1")
    assert config.optim == OptimSettings(lr=3e-5, weight_decay=0.1, warmup_frac=0.1)
    made = make_config(
        Example,
        {
            "run": RunSettings(folder="r"),
            "model": {"path": "m"},
            "data": {"path": "d"},
            "optim": {"warmup_frac": 0.1},
        },
    )
    assert made.optim == config.optim


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--no-verbose"], "verbose", False),
        (["--verbose"], "verbose", True),
        (["--verbose", "false"], "verbose", False),
        (["--verbose=false", "--verbose"], "verbose", True),
        (["--kl-coef", "none"], "kl_coef", None),
        (["--kl_coef=0"], "kl_coef", 0.0),
        (["--stop", "a", "--stop", "b"], "stop", ("a", "b")),
        (["--stop", "a,b"], "stop", ("a", "b")),
        (["--stop", '[",", "\\n"]'], "stop", (",", "\n")),
        (["--stop", "[]"], "stop", ()),
        (["--weights.length", "-0.5", "--weights.a=1"], "weights", {"length": -0.5, "a": 1.0}),
        (["--weights", "{a = 2}"], "weights", {"a": 2.0}),
        (["--span"], "span", Inner()),
        (["--span.low", "0.25"], "span", Inner(low=0.25)),
        (["--span.low", "0.25", "--no-span"], "span", Inner(low=0.25)),
    ],
)
def test_what_may_be_typed(flags: list[str], name: str, value: object) -> None:
    assert getattr(load(*flags), name) == value


def test_text_or_list_takes_one_or_many() -> None:
    assert load("--data.path", "x.jsonl").data.path == ("d.jsonl", "x.jsonl")
    assert load_config(Example, (), NEEDED).data.path == "d.jsonl"


def test_optional_sections_inside_sections_are_made_on_demand() -> None:
    config = load("--model.lora.r", "4")
    assert config.model.lora is not None
    assert config.model.lora.r == 4
    assert config.model.lora.alpha == 32.0
    assert load("--model.lora").model.lora is not None
    assert load().model.lora is None


def problem(*flags: str, files: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*flags, files=files)
    return str(caught.value)


def test_an_unknown_flag_names_the_nearest_with_what_it_takes() -> None:
    text = problem("--optim.lrr", "1")
    assert "--optim.lrr" in text
    assert "nearest is optim.lr (number above 0)" in text
    assert "optim.lr" in problem("--lr", "1")
    assert "optim.schedule (one of constant, linear, cosine)" in problem("--optim.shedule", "x")
    assert "there are" in problem("--zzzzzz", "1")


def test_an_unknown_key_of_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "typo.toml"
    file.write_text("[model]\npth = 'x'\n[modle]\npath = 'x'\n[model.lora]\nrank = 2\n")
    text = problem(files=(file,))
    assert f"{file}: model.pth: no such setting; the nearest is model.path" in text
    assert f"{file}: modle: no such setting; the nearest is" in text
    assert f"{file}: model.lora.rank" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num_steps", "0"], '--num_steps: found "0", expected integer at least 1'),
        (["--num_steps", "many"], '--num_steps: found "many", expected integer at least 1'),
        (["--kind", "three"], '--kind: found "three", expected one of one, two'),
        (["--kl_coef", "-1"], "expected number at least 0, or none"),
        (["--optim.betas", "0.9"], "--optim.betas: found"),
        (["--optim.lr"], "--optim.lr needs a value: number above 0"),
        (["--optim.lr", "--verbose"], "--optim.lr needs a value"),
        (["stray.jsonl"], "'stray.jsonl' is not a flag"),
        (["--kind", "two", "--kl_coef", "none"], "kind 'two' needs kl_coef; set --kl_coef 0.05"),
        (["--weights", "{a = }"], "is not a TOML value"),
        (["--weights.a", "heavy"], '--weights.a: found "heavy"'),
        (["--model", "m"], "--model: found"),
    ],
)
def test_an_error_says_what_was_found_and_expected(flags: list[str], said: str) -> None:
    assert said in problem(*flags)


def test_a_truth_value_is_not_a_number(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("num_steps = true\n")
    assert "found true, expected integer at least 1" in problem(files=(file,))


def test_all_problems_come_at_once_and_all_missing_settings_too() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Example, (), ["--num_steps", "0", "--nothing", "1", "--run.seed", "x"])
    text = str(caught.value)
    assert "--num_steps: found" in text
    assert "--nothing: no such setting" in text
    assert "--run.seed: found" in text
    for name in ("--run.folder", "--model.path", "--data.path"):
        assert name in text
    assert "Folder of the run; made if absent" in text


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "near.toml").write_text("")
    assert "no such file" in problem(files=(tmp_path / "absent.toml",))
    assert "near.toml" in problem(files=(tmp_path / "absent.toml",))
    broken = tmp_path / "broken.toml"
    broken.write_text("a = \n")
    assert "broken.toml is not TOML" in problem(files=(broken,))
    assert "line 1" in problem(files=(broken,))


def test_flags_carry_type_default_and_docstring() -> None:
    flags = {flag.name: flag for flag in flags_of(Example)}
    assert flags["run.folder"].default == "required"
    assert flags["run.folder"].help == "Folder of the run; made if absent."
    assert flags["optim.lr"].default == "3e-05"
    assert flags["optim.weight_decay"].default == "0.1"
    assert flags["optim.weight_decay"].type == "number at least 0"
    assert flags["model.lora"].type == "switch"
    assert flags["model.lora.r"].default == "16"
    assert flags["stop"].default == "[]"
    assert "optim" not in flags


def test_the_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load("--model.lora.r", "2", "--stop", '["a\\"b", "\\u007f"]', "--weights.x y", "1")
    file = tmp_path / "resolved.toml"
    file.write_text(dump_toml(config), encoding="utf-8")
    assert load_config(Example, (file,)) == config
    unset = load("--kl_coef", "none")
    file.write_text(dump_toml(unset), encoding="utf-8")
    assert load_config(Example, (file,)) == unset


@given(
    st.text(),
    st.floats(min_value=0.0, exclude_min=True, allow_infinity=False),
    st.lists(st.text()),
    st.dictionaries(st.text(min_size=1).filter(lambda key: "." not in key), st.floats(-1e9, 1e9)),
)
def test_any_value_survives_writing_and_reading(
    text: str, lr: float, stop: list[str], weights: dict[str, float]
) -> None:
    import tomllib

    config = make_config(
        Example,
        {
            "run": {"folder": text or "x"},
            "model": {"path": "m"},
            "data": {"path": "d"},
            "optim": {"lr": lr},
            "stop": stop,
            "weights": weights,
        },
    )
    read = tomllib.loads(dump_toml(config))
    if config.run.folder.lower() != "none":
        assert make_config(Example, read) == config


def test_a_key_of_a_table_is_a_number_where_it_is_written_like_one() -> None:
    class WithOptions(Settings):
        options: dict[str, bool | int | float | str] = {}

    flags = ["--options.rows", "20", "--options.share", "0.5", "--options.all", "true"]
    flags += ["--options.name", "20 books"]
    options = load_config(WithOptions, flags=flags).options
    assert options == {"rows": 20, "share": 0.5, "all": True, "name": "20 books"}
    assert [type(value) for value in options.values()] == [int, float, bool, str]
    assert load("--weights.a", "1").weights == {"a": 1.0}


def test_a_section_says_what_is_set_inside() -> None:
    text = problem("--model", "gpt2")
    assert '--model: found "gpt2", expected a section: set model.path' in text


def test_names_of_trl_lead_to_ours() -> None:
    for name, ours in _IN_TRL.items():
        found = [verb for verb in VERBS.values() if ours in slots_of(verb.config_class())]
        assert found, f"{ours} is a setting of no stage"
        text = unknown(f"--{name}", name, slots_of(found[0].config_class()))
        assert text.startswith(f"--{name}: no such setting; what TRL calls so is {ours} (")


def test_a_word_that_is_no_file_is_explained() -> None:
    text = problem(files=(Path("runs/reward"),))
    assert "'runs/reward' is neither a setting nor a TOML file" in text
    assert "several values --name first --name second" in text


def test_a_table_says_how_its_keys_are_given() -> None:
    cls = VERBS["evaluate"].config_class()
    words = ["--run.folder", "r", "--model.path", "m", "--baseline.path", "b", "--data.path", "d"]
    with pytest.raises(ConfigError, match=r"--judges\.NAME \(table of text\)"):
        load_config(cls, (), words)
    with pytest.raises(ConfigError, match=r"expected table of text: set judges\.NAME"):
        load_config(cls, (), [*words, "--judges", "w"])
