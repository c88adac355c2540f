"""The parts of a causal language model, and how a batch is laid out before it.

Rows are laid out so that the model's own causal mask is the only one needed: real tokens move to
the left (padding side then changes nothing, and padding is never seen), or all rows are joined end
to end behind a block-causal mask. Learned tokens keep their row-by-row order in either layout, so
what is computed for them goes straight back to the batch.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs

from heed.data.batch import TokenBatch
from heed.errors import ConfigError

Layout = Literal["padded", "packed"]


def unwrap(causal: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside adapters; adapters stay active in its layers."""
    wrapped: Any = causal
    inner = wrapped.get_base_model() if hasattr(wrapped, "peft_config") else wrapped
    if not isinstance(inner, PreTrainedModel):
        raise ConfigError(
            f"found a {type(inner).__name__}, expected a transformers model; "
            "load it with heed.models.load.load_causal"
        )
    return inner


def backbone_of(causal: nn.Module) -> PreTrainedModel:
    """Return the model that ends in hidden states, without its output layer."""
    inner = unwrap(causal)
    base: Any = inner.base_model
    if base is inner:
        raise ConfigError(
            f"{type(inner).__name__} does not name its base model, so its hidden states cannot be "
            "read; use a causal language model of transformers"
        )
    return cast(PreTrainedModel, base)


def hidden_size(backbone: PreTrainedModel) -> int:
    """Width D of the last hidden state."""
    return int(backbone.config.get_text_config().hidden_size)


def plain_head(causal: nn.Module) -> nn.Linear | None:
    """Return the output layer if logits are this one linear map of the hidden states, else None.

    Checked with numbers: the hidden states are replaced by random ones of growing size, so that a
    cap or scale on the logits shows even where the model's own logits are still small.
    """
    inner = unwrap(causal)
    head = inner.get_output_embeddings()
    if type(head) is not nn.Linear or inner.base_model is inner:
        return None
    weight = head.weight
    generator = torch.Generator().manual_seed(0)
    size = torch.randn(1, 4, head.in_features, generator=generator)
    scale = torch.tensor([0.1, 1.0, 10.0, 1000.0]).view(1, 4, 1)
    hidden = (size * scale / weight.detach().float().std().clamp(min=1e-6).cpu()).to(weight)

    def replace(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = hidden
        return output

    handle = inner.base_model.register_forward_hook(replace)
    training = inner.training
    inner.eval()
    try:
        with torch.no_grad():
            tokens = torch.zeros(1, 4, dtype=torch.long, device=weight.device)
            logits = inner(input_ids=tokens, use_cache=False).logits
            expected = head(hidden)
    finally:
        handle.remove()
        inner.train(training)
    if logits.shape != expected.shape:
        return None
    error = (logits.float() - expected.float()).abs().amax(-1)
    return head if bool((error <= 1e-4 * expected.float().abs().amax(-1)).all()) else None


@dataclass(frozen=True)
class Laid:
    """A batch as the model reads it, [b, t] with b t >= the batch's real tokens.

    Args:
        tokens, positions: [b, t] int64.
        learn: [b, t] bool; its true entries come in the order of the batch's.
        segments: [b, t] int64, the row each token belongs to; None where each row stands alone.
        last: [B] int64, place of each row's last real token in the flattened [b t].
    """

    tokens: Tensor
    positions: Tensor
    learn: Tensor
    segments: Tensor | None
    last: Tensor


def lay_out(batch: TokenBatch, layout: Layout = "padded") -> Laid:
    """Move real tokens to the left of each row, or join all rows end to end."""
    lengths = batch.attend.sum(1)
    if layout == "packed":
        real = batch.attend
        ends = lengths.cumsum(0)
        segments = torch.arange(len(batch), device=real.device).repeat_interleave(lengths)
        starts = (ends - lengths).repeat_interleave(lengths)
        positions = torch.arange(len(segments), device=real.device) - starts
        return Laid(
            batch.tokens[real][None],
            positions[None],
            batch.learn[real][None],
            segments[None],
            ends - 1,
        )
    if layout != "padded":
        raise ConfigError(f"layout is {layout!r}, expected 'padded' or 'packed'")
    num_rows = len(batch)
    tokens, learn = batch.tokens, batch.learn
    longest = int(lengths.max())
    right_padded = bool(batch.attend[:, 0].all()) and bool(
        (batch.attend.int().diff(dim=1) <= 0).all()
    )
    if not right_padded:
        order = torch.argsort((~batch.attend).int(), dim=1, stable=True)
        tokens, learn = tokens.gather(1, order), learn.gather(1, order)
    tokens, learn = tokens[:, :longest], learn[:, :longest]
    places = torch.arange(longest, device=tokens.device)
    # Padding takes id 0: any id may stand there, even one outside the vocabulary.
    tokens = tokens.masked_fill(places >= lengths[:, None], 0)
    first = torch.arange(num_rows, device=tokens.device) * longest
    return Laid(tokens, places.expand(num_rows, -1), learn, None, first + lengths - 1)


def model_arguments(model: PreTrainedModel, laid: Laid) -> dict[str, Any]:
    """Build the keyword arguments of a forward pass over a laid-out batch.

    Raises:
        ConfigError: rows are packed and the model takes no positions.
    """
    arguments: dict[str, Any] = {"input_ids": laid.tokens, "use_cache": False}
    positioned = takes_positions(model)
    if positioned:
        arguments["position_ids"] = laid.positions
    if laid.segments is None:
        return arguments
    if not positioned:
        raise ConfigError(
            f"{type(model).__name__} takes no positions, so rows cannot be packed; "
            "use layout='padded'"
        )
    if set(layer_types(model)) <= {"full_attention"}:
        same = laid.segments[:, :, None] == laid.segments[:, None, :]
        arguments["attention_mask"] = additive(same.tril()[:, None], model)
    # With windows the model makes its own masks, one a kind of layer, from the restarts of
    # the positions.
    return arguments


def hidden_states(backbone: PreTrainedModel, laid: Laid) -> Tensor:
    """Run the backbone: [b, t, D]."""
    output: Tensor = backbone(**model_arguments(backbone, laid)).last_hidden_state
    return output


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether the forward pass takes `position_ids`."""
    return "position_ids" in inspect.signature(model.forward).parameters


def cache_argument(model: PreTrainedModel) -> str:
    """Name of the argument that takes the cache; it changes in the course of transformers 5."""
    new = "cache" in inspect.signature(model.forward).parameters
    return "cache" if new else "past_key_values"


def layer_types(model: PreTrainedModel) -> list[str]:
    """Kind of attention of each layer, in transformers' words."""
    return list(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0])


def additive(allowed: Tensor, model: PreTrainedModel) -> Tensor:
    """Turn a mask of what may be attended to into one that is added to attention scores."""
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device).masked_fill_(
        ~allowed, lowest
    )
