"""Load and save models and tokenizers in the Hugging Face layout.

A model is named by a local folder in `save_pretrained` layout, by a heed run folder (its `model/`
is taken), or by a hub id. Dropout is set to 0 at load, so that two forward passes agree and a
log-probability means the same in sampling and in training.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from heed.errors import ConfigError, HeedError, StoreError
from heed.models.fresh import make_model, train_tokenizer, without_dropout
from heed.settings import ModelSettings

__all__ = [
    "EXTRA_FILE",
    "load_causal",
    "load_extra",
    "load_tokenizer",
    "make_model",
    "resolve_path",
    "same_tokens",
    "save_model",
    "train_tokenizer",
]

EXTRA_FILE = "heed.json"
"""What heed knows of a model beyond the Hugging Face layout, such as a reward's gain and bias."""

_REMEDY = {
    "model": "check that it is a causal language model that the installed transformers knows "
    "(trust_remote_code runs code that comes with a model)",
    "tokenizer": "check that the folder holds a tokenizer, or name one that fits the model "
    "(model.tokenizer)",
}


def resolve_path(path: str | Path) -> str:
    """Turn what a user wrote into a model folder or a hub id; a run folder gives its `model/`.

    Raises:
        StoreError: it is a local path that does not exist, or a folder without a model.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        if (local / "manifest.json").is_file():
            if (local / "model" / "config.json").is_file():
                return str(local / "model")
            raise StoreError(
                f"{local} is a run folder without model/config.json; the run made no model or did "
                "not finish (see its manifest.json); finish it with `heed resume`, or name another"
            )
        if (local / "config.json").is_file() or (local / "tokenizer.json").is_file():
            return str(local)
        found = sorted(p.name for p in local.iterdir())[:6]
        raise StoreError(
            f"{local} holds {found or 'nothing'}, and a model folder holds config.json; "
            "give a folder written by save_pretrained, or a heed run folder"
        )
    if _looks_local(str(path)):
        near = difflib.get_close_matches(
            local.name, [p.name for p in local.parent.iterdir()] if local.parent.is_dir() else []
        )
        raise StoreError(
            f"there is no folder {local}"
            + (f"; beside it there is {', '.join(near)}" if near else "")
            + "; give an existing model folder, a run folder, or a hub id such as org/name"
        )
    return str(path)


def load_tokenizer(
    model: ModelSettings | str | Path,
    *,
    tokenizer: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to a model, or the one named by `tokenizer`.

    Args:
        model: settings (whose own fields then hold), a folder, a run folder or a hub id.

    Raises:
        StoreError, ConfigError: as `load_causal`.
    """
    if isinstance(model, ModelSettings):
        tokenizer, revision = model.tokenizer, model.revision
        trust_remote_code, model = model.trust_remote_code, model.path
    path = resolve_path(tokenizer or model)
    with _explained(path, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            path, revision=None if tokenizer else revision, trust_remote_code=trust_remote_code
        )


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Tell whether two tokenizers give every id the same meaning."""
    return bool(one.get_vocab() == other.get_vocab())


def load_causal(
    model: ModelSettings | str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Load a causal language model with every dropout at 0, in evaluation mode.

    Args:
        model: settings (whose own fields then hold), a folder, a run folder or a hub id.
        dtype: type of the weights.

    Raises:
        StoreError: nothing is there, the weights are damaged or incomplete, or the hub is out of
            reach and the model is not in the local cache.
        ConfigError: the hub knows no such model, or transformers knows no such architecture.
    """
    if isinstance(model, ModelSettings):
        revision, trust_remote_code = model.revision, model.trust_remote_code
        model = model.path
    return load_with(
        AutoModelForCausalLM.from_pretrained,
        resolve_path(model),
        revision=revision,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
        causal=True,
    )


def is_classifier(config: PretrainedConfig) -> bool:
    """Whether a configuration is that of a sequence classifier, such as a reward model."""
    named = getattr(config, "architectures", None) or []
    return any("SequenceClassification" in name for name in named)


def load_with(
    from_pretrained: Callable[..., Any],
    path: str,
    *,
    revision: str | None,
    trust_remote_code: bool,
    dtype: torch.dtype,
    causal: bool = False,
    **overrides: Any,
) -> PreTrainedModel:
    """Load a model through one of transformers' loaders; refuse weights that are missing."""
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _explained(path, "model"), _quiet():
        config = AutoConfig.from_pretrained(path, **where, **overrides)
        if causal and is_classifier(config):
            # With tied embeddings no weight is missing, and it would babble instead of failing.
            raise StoreError(
                f"{path} holds a {config.architectures[0]}, which is a reward model and has no "
                "output layer for tokens; give the folder of a causal language model"
            )
        without_dropout(config)
        model, found = from_pretrained(
            path, config=config, dtype=dtype, output_loading_info=True, **where
        )
    missing = sorted(found["missing_keys"]) + sorted(found.get("mismatched_keys", ()))
    if missing:
        raise StoreError(
            f"{path} lacks {len(missing)} weights of a {type(model).__name__}, such as "
            f"{missing[:3]}; it may be damaged, or another kind of model (a reward model has no "
            "output layer for tokens); give the folder of the right kind"
        )
    model.eval()
    return model


def save_model(
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write weights, configuration and tokenizer, and `extra` as heed.json.

    They are written beside the folder and then moved into it, so that what a kill leaves of a
    library's own writing never stands in it.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _quiet():
            model.save_pretrained(partial)
            if tokenizer is not None:
                tokenizer.save_pretrained(partial)
        if extra is not None:
            (partial / EXTRA_FILE).write_text(json.dumps(extra, indent=2) + "\n")
        folder.mkdir(exist_ok=True)
        for made in partial.iterdir():
            target = folder / made.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(made, target)
        partial.rmdir()
    except OSError as error:
        raise StoreError(
            f"the model could not be written to {folder}: {error}; "
            "free some space or choose another folder"
        ) from error
    return folder


def load_extra(path: str | Path) -> dict[str, Any]:
    """Read a model folder's heed.json; empty where there is none (a hub id has none).

    Raises:
        StoreError: the file is not JSON.
    """
    file = Path(path) / EXTRA_FILE
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except ValueError as error:
        raise StoreError(
            f"{file} is not readable JSON ({error}); restore the file or save the model again"
        ) from error


def _looks_local(path: str) -> bool:
    # A hub id is `name` or `org/name`; everything else, and what lies beside us, is a path.
    parts = path.split("/")
    return (
        path.startswith((".", "/", "~"))
        or len(parts) > 2
        or "\\" in path
        or (len(parts) == 2 and Path(parts[0]).is_dir())
        or parts[-1] == ""
    )


@contextmanager
def _quiet() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _explained(path: str, kind: str) -> Iterator[None]:
    try:
        yield
    except HeedError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        local = Path(path).is_dir()
        if any(isinstance(c, hub.GatedRepoError) for c in causes):
            raise StoreError(
                f"the hub keeps {path!r} behind a licence; accept it on the model's page, "
                "then log in with `hf auth login`"
            ) from error
        if any(isinstance(c, hub.RevisionNotFoundError) for c in causes):
            raise ConfigError(
                f"the hub knows {path!r}, but not that revision; "
                "give an existing branch, tag or commit"
            ) from error
        if any(isinstance(c, hub.RepositoryNotFoundError | hub.HFValidationError) for c in causes):
            raise ConfigError(
                f"neither a local folder nor the hub holds a model {path!r}; check the spelling, "
                "give a path that starts with ./ or /, or log in (`hf auth login`) if it is private"
            ) from error
        if not local and any(isinstance(c, OSError) for c in causes):
            raise StoreError(
                f"{path!r} is not a local folder, and as a hub id it is neither in the local cache "
                f"nor within reach ({_first_line(error)}); check the spelling and the network, or "
                "download it elsewhere and give the folder"
            ) from error
        if isinstance(error, ValueError | ImportError) and not _damaged(causes):
            raise ConfigError(
                f"transformers cannot load the {kind} {path!r}: {_first_line(error)}; "
                f"{_REMEDY[kind]}"
            ) from error
        raise StoreError(
            f"the {kind} in {path!r} cannot be read: {_first_line(error)}; "
            "the files may be incomplete or damaged, so copy or save them again"
        ) from error


def _damaged(causes: list[BaseException]) -> bool:
    return any("safetensor" in type(c).__name__.lower() for c in causes) or any(
        isinstance(c, json.JSONDecodeError) for c in causes
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
