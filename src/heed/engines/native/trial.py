"""Open the native path for a module, and try it: a tiny ragged decode against the module itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heed.engines.forward import Forward
from heed.engines.native.architectures import UnfitError, read_plan
from heed.engines.native.decoder import NativeDecoder
from heed.engines.native.library import load_library
from heed.engines.native.weights import NativeModel
from heed.records import Sampling

NUM_TOKENS = 3
STARTS = (1, 3, 4)
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Of a logit, in units of the logits' spread."""


def open_native(forward: Forward, positions: int | None) -> NativeModel:
    """Read, build, pack and try.

    Args:
        positions: most tokens of prompt and completion together; None where there is no limit.

    Raises:
        UnfitError: the module is not one that the native loop decodes.
        BuildError: the native loop cannot be built here.
    """
    if forward.device.type != "cpu":
        raise UnfitError(f"the model is on {forward.device}, and the native loop runs on the CPU")
    if hasattr(forward.causal, "peft_config"):
        raise UnfitError("the model has adapters, which change with its layers' inputs")
    # What does not fit is told before anything is built; sizes are padded where the plan is used.
    read_plan(forward, positions, pad=lambda size: size)
    loaded = load_library()
    model = NativeModel(read_plan(forward, positions, loaded.heed_padded), loaded)
    with torch.inference_mode():
        worst = decode_error(model, forward)
    if not worst < TOLERANCE[forward.model.dtype]:
        raise UnfitError(
            f"decoding it natively differs from its forward pass by {worst:.2g} of the spread"
        )
    return model


def decode_error(model: NativeModel, forward: Forward) -> float:
    """Largest difference of a logit, in units of the logits' spread, over a tiny greedy decode."""
    vocabulary = model.plan.embedding.num_embeddings
    prompts = [[(7 * i + 3 * j + 1) % vocabulary for j in range(n)] for i, n in enumerate(STARTS)]
    model.refresh(max(STARTS) + NUM_TOKENS)
    sampling = Sampling(temperature=0, max_tokens=NUM_TOKENS)
    decoder = NativeDecoder(model, prompts, _no_numbers, sampling, 2, (), None, trace=True)
    found = decoder.run()
    assert decoder.trace is not None
    traces = dict(zip(decoder.order, decoder.trace, strict=True))
    training = forward.model.training
    forward.model.eval()
    worst = 0.0
    try:
        for i, prompt in enumerate(prompts):
            tokens = torch.tensor([[*prompt, *found[i][0].tokens]])
            whole = forward.model(input_ids=tokens, use_cache=False).logits[0].float()
            expected = whole[len(prompt) - 1 : -1]
            worst = max(worst, _error(torch.from_numpy(traces[i]), expected, forward.model.dtype))
    finally:
        forward.model.train(training)
    return worst


def _error(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    if not bool(found.isfinite().all()):
        return float("inf")
    # The module rounds its own logits to its type, which one large logit makes visible.
    rounding = torch.finfo(dtype).eps * expected.abs()
    gap = ((found[: len(expected)] - expected).abs() - rounding).clamp(min=0).max()
    return float(gap / expected.std().clamp(min=1e-6))


def _no_numbers(prompt: int, sample: int) -> np.ndarray | None:
    return None
