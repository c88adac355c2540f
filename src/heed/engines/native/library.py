"""The compiled library through ctypes: its structures, and the types of its functions."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_void_p
from functools import cache
from typing import Any

from heed.engines.native.build import BuildError, library_path

# In the order of the enumerations in source/model.h.
QKV, ATTENTION_OUT, UP, DOWN = range(4)
NORM_1, NORM_1_BIAS, NORM_2, NORM_2_BIAS, QUERY_NORM, KEY_NORM = range(6)
LAST = -1
"""In place of a layer's number: the output layer and the norm before it."""


class Shape(ctypes.Structure):
    """A model's sizes and kind; see `Shape` in source/model.h."""

    _fields_ = [
        *(
            (name, c_int32)
            for name in (
                "layers", "width", "heads", "kv_heads", "head_size", "inner", "vocabulary",
                "gated", "centred", "rotary", "head_norm", "half",
            )
        ),
        ("eps", c_float),
    ]  # fmt: skip


class NativeSampling(ctypes.Structure):
    """How a token is drawn; see `Sampling` in source/draw.h."""

    _fields_ = [("temperature", c_float), ("top_p", c_float), ("top_k", c_int32)]


class Work(ctypes.Structure):
    """One call's prompts and results; see `Work` in source/decode.h."""

    _fields_ = [
        *(
            (name, c_int32)
            for name in ("prompts", "samples", "max_tokens", "rows", "num_end_ids", "truncates")
        ),
        ("sampling", NativeSampling),
        *(
            (name, c_void_p)
            for name in (
                "tokens", "offsets", "numbers", "end_ids", "stopped",
                "drawn", "logprobs", "counts", "finishes", "trace",
            )
        ),
    ]  # fmt: skip


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "heed_lanes": (c_int, []),
    "heed_padded": (c_int, [c_int]),
    "heed_model_new": (c_void_p, []),
    "heed_model_free": (None, [c_void_p]),
    "heed_model_shape": (c_int, [c_void_p, POINTER(Shape)]),
    "heed_model_matrix": (None, [c_void_p, c_int, c_int, c_void_p, c_void_p, c_int, c_int, c_int]),
    "heed_model_vector": (c_int, [c_void_p, c_int, c_int, c_void_p, c_int]),
    "heed_model_scale": (None, [c_void_p, c_int, c_float]),
    "heed_model_embeddings": (None, [c_void_p, c_void_p, c_void_p]),
    "heed_model_rotary": (c_int, [c_void_p, c_void_p, c_void_p, c_int]),
    "heed_session_new": (c_void_p, [c_void_p, POINTER(Work), c_int]),
    "heed_session_free": (None, [c_void_p]),
    "heed_session_advance": (c_int, [c_void_p, c_int]),
    "heed_session_kept": (
        None,
        [c_void_p, c_int, POINTER(POINTER(c_int32)), POINTER(POINTER(c_int32))],
    ),
    "heed_draw": (
        None,
        [c_void_p, c_int, POINTER(NativeSampling), c_float, *[c_void_p] * 4],
    ),
}


@cache
def _load() -> ctypes.CDLL | BuildError:
    try:
        library = ctypes.CDLL(str(library_path()))
    except BuildError as error:
        return error
    except OSError as error:
        return BuildError(f"the native loop was built and does not load: {error}")
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def load_library() -> Any:
    """The library, built at first use; what came of it is remembered by the process.

    Raises:
        BuildError: it cannot be built or loaded here.
    """
    found = _load()
    if isinstance(found, BuildError):
        raise found
    return found


def forget() -> None:
    """Try anew at the next call, such as after a compiler was installed."""
    _load.cache_clear()
