"""Loading and saving: what is written comes back, and what cannot be loaded says why."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.small import small, tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from heed.errors import ConfigError, StoreError
from heed.models.heads import RewardHead
from heed.models.load import load_causal, load_extra, load_tokenizer, resolve_path, save_model
from heed.settings import ModelSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "net", small(), tokenizer(), {"note": 7})


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(3, 15)[None]).logits


def test_what_is_saved_is_loaded(folder: Path) -> None:
    loaded = load_causal(folder)
    assert torch.equal(logits(loaded), logits(small()))
    assert load_tokenizer(folder)("The baker sells.") == tokenizer()("The baker sells.")
    assert load_extra(folder) == {"note": 7}
    assert not loaded.training


def test_saving_again_leaves_nothing_of_a_writing_that_was_killed(folder: Path) -> None:
    def files() -> set[str]:
        return {path.name for path in folder.parent.rglob("*")}

    whole = files()
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir()
    (partial / ".tmpX").touch()
    (folder / "notes.txt").write_text("of the user")
    save_model(folder, small(), tokenizer(), {"note": 8})
    assert files() == whole | {"notes.txt"}
    assert load_extra(folder) == {"note": 8}


def test_settings_name_the_model_and_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "words"
    tokenizer().save_pretrained(other)
    settings = ModelSettings(path=str(folder), tokenizer=str(other))
    assert torch.equal(logits(load_causal(settings)), logits(small()))
    assert load_tokenizer(settings).get_vocab() == tokenizer().get_vocab()


def test_a_run_folder_gives_its_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="made no model or did not finish"):
        resolve_path(run)
    folder.rename(run / "model")
    assert resolve_path(run) == str(run / "model")
    assert torch.equal(logits(load_causal(run)), logits(small()))


def test_half_precision_weights(folder: Path) -> None:
    assert load_causal(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_model_without_a_tokenizer_asks_for_one(tmp_path: Path) -> None:
    save_model(tmp_path, small(), None)
    with pytest.raises(ConfigError, match=r"holds a tokenizer, or name one.*model\.tokenizer"):
        load_tokenizer(tmp_path)


def test_a_missing_folder_names_its_neighbour(folder: Path) -> None:
    with pytest.raises(StoreError, match="beside it there is net"):
        load_causal(folder.parent / "nett")


def test_a_folder_without_a_model_shows_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(StoreError, match=r"notes\.txt.*config\.json"):
        load_causal(tmp_path)


def test_an_absent_hub_model_without_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (load_causal, load_tokenizer):
        with pytest.raises(StoreError, match=r"local cache.*give the folder"):
            load("nobody/has-this-model")


@pytest.mark.parametrize(
    ("cause", "error", "text"),
    [
        ("RepositoryNotFoundError", ConfigError, "check the spelling"),
        ("RevisionNotFoundError", ConfigError, "not that revision"),
        ("GatedRepoError", StoreError, "accept it on the model's page"),
    ],
)
def test_answers_of_the_hub_are_explained(
    monkeypatch: pytest.MonkeyPatch, cause: str, error: type[Exception], text: str
) -> None:
    kind = getattr(huggingface_hub.errors, cause)

    def refuse(*args: object, **kwargs: object) -> None:
        try:
            raise kind.__new__(kind)
        except Exception as inner:
            raise OSError("a long story") from inner

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(error, match=text):
        load_causal("some/model")


def test_cut_off_weights_are_damaged_not_unknown(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(StoreError, match="cannot be read"):
        load_causal(folder)


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StoreError, match=r"lacks 1 weights.*up_proj"):
        load_causal(folder)


@pytest.mark.parametrize("tied", [False, True])
def test_a_reward_model_is_not_a_policy(tmp_path: Path, tied: bool) -> None:
    """With tied embeddings no weight is missing, so the kind of the model has to tell."""
    RewardHead(small(tie_embeddings=tied).base_model).save(tmp_path / "reward", tokenizer())
    with pytest.raises(StoreError, match="is a reward model and has no output layer"):
        load_causal(tmp_path / "reward")


def test_an_unknown_architecture_is_a_setting(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nosuchnet"}))
    with pytest.raises(ConfigError, match="transformers cannot load"):
        load_causal(folder)


def test_broken_extra_facts_are_reported(folder: Path) -> None:
    (folder / "heed.json").write_text("{")
    with pytest.raises(StoreError, match="not readable JSON"):
        load_extra(folder)


def test_dropout_is_off_even_in_training_mode(tmp_path: Path) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 64}
    config = AutoConfig.for_model("gpt2", **sizes)
    assert config.resid_pdrop > 0
    noisy = AutoModelForCausalLM.from_config(config).train()
    noisy.save_pretrained(tmp_path)
    assert not torch.equal(logits(noisy), logits(noisy))
    quiet = load_causal(tmp_path).train()
    assert torch.equal(logits(quiet), logits(quiet))
    assert not any(m.p for m in quiet.modules() if isinstance(m, torch.nn.Dropout))
