"""The parts of a causal language model, and how a batch is laid out before it.

Rows are laid out so that the model's own causal mask is the only one needed: real tokens move to
the left (padding side then changes nothing, and padding is never seen), or all rows are joined end
to end, prompts that rows share once (`heed.models.packing`). Where a model cannot attend by rows,
joined rows stand behind a block-causal mask.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs

from heed import logprobs
from heed.data.batch import TokenBatch
from heed.errors import ConfigError
from heed.models import attention, packing

Layout = Literal["auto", "padded", "packed"]


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
    """A batch as the model reads it, [b, t] with b t tokens.

    Args:
        tokens, positions: [b, t] int64.
        sources: [N] int64, place in the flattened [b t] that predicts each learned token of the
            batch, in the batch's order.
        learned: [N] int64, place of each learned token itself.
        last: [B] int64, place of each row's last real token.
        segments: [b, t] int64, the row each token belongs to, where a mask keeps rows apart.
        pieces: where attention finds rows, where it keeps them apart by itself.
    """

    tokens: Tensor
    positions: Tensor
    sources: Tensor
    learned: Tensor
    last: Tensor
    segments: Tensor | None = None
    pieces: packing.Pieces | None = None


def lay_out(batch: TokenBatch, layout: Layout, model: PreTrainedModel) -> Laid:
    """Move real tokens to the left of each row, or join all rows end to end.

    Args:
        batch: rows; an empty row is an error of whoever built it.
        layout: auto joins where the model attends by rows.
        model: what will read the batch.
    """
    if layout not in ("auto", "padded", "packed"):
        raise ConfigError(f"layout is {layout!r}, expected 'auto', 'padded' or 'packed'")
    if layout != "padded" and attends_by_rows(model):
        return _joined(batch)
    if layout == "packed":
        return _masked(batch)
    return _padded(batch)


def _joined(batch: TokenBatch) -> Laid:
    line = packing.join(batch)
    return Laid(
        batch.tokens.flatten()[line.index][None],
        batch.positions.flatten()[line.index][None],
        *_places(batch, line.place),
        pieces=line.pieces,
    )


def _masked(batch: TokenBatch) -> Laid:
    """Rows joined, and the row of each token, from which a mask is made."""
    real = batch.attend.flatten().nonzero().flatten()
    place = torch.zeros_like(batch.tokens).flatten()
    place[real] = torch.arange(len(real), device=real.device)
    segments = real // batch.tokens.shape[1]
    return Laid(
        batch.tokens.flatten()[real][None],
        batch.positions.flatten()[real][None],
        *_places(batch, place),
        segments=segments[None],
    )


def _padded(batch: TokenBatch) -> Laid:
    lengths = batch.lengths
    longest = int(lengths.max())
    # The first columns hold each row's real tokens, in order; padding follows.
    order = torch.argsort((~batch.attend).int(), dim=1, stable=True)
    first = torch.arange(len(batch), device=order.device)[:, None] * longest
    place = (order.argsort(1) + first).flatten()
    steps = torch.arange(longest, device=order.device).expand(len(batch), -1)
    # Padding takes id 0: any id may stand there, even one outside the vocabulary.
    tokens = batch.tokens.gather(1, order)[:, :longest].masked_fill(steps >= lengths[:, None], 0)
    return Laid(tokens, steps, *_places(batch, place))


def _places(batch: TokenBatch, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sources [N], learned tokens [N] and last tokens [B] of a batch, at their new places."""
    before = logprobs.sources(batch.learn)
    return place[before], place[before + 1], place[_last(batch)]


def _last(batch: TokenBatch) -> Tensor:
    """Place of each row's last real token in the flattened batch: [B]."""
    width = batch.tokens.shape[1]
    column = torch.arange(width, device=batch.attend.device).expand_as(batch.attend)
    last = column.masked_fill(~batch.attend, 0).amax(1)
    return last + torch.arange(len(batch), device=last.device) * width


def joins_rows(module: nn.Module, layout: Layout) -> bool:
    """Whether the models inside a module read batches joined end to end."""
    models = [m for m in module.modules() if isinstance(m, PreTrainedModel)]
    if layout == "auto":
        return bool(models) and attends_by_rows(models[-1])
    return layout == "packed"


_BY_ROWS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def attends_by_rows(model: PreTrainedModel) -> bool:
    """Whether rows that are joined end to end get what they would get alone; tried once a model.

    It takes `heed.models.attention`, full attention in every layer, and a model that takes
    positions and hands its arguments on to its attention.
    """
    if model.config._attn_implementation != attention.NAME:
        return False
    if model not in _BY_ROWS:
        plain = takes_positions(model) and set(layer_types(model)) <= {"full_attention"}
        _BY_ROWS[model] = plain and _joins_exactly(model)
    return _BY_ROWS[model]


@torch.no_grad()
def _joins_exactly(model: PreTrainedModel) -> bool:
    """Compare two rows of one prompt, joined, with the same rows side by side."""
    device = next(model.parameters()).device
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 2, 3], [1, 2, 3, 4, 5, 1, 4, 0]], device=device)
    attend = torch.ones_like(tokens, dtype=torch.bool)
    attend[1, -1] = False
    learn = attend.clone()
    learn[:, :5] = False
    steps = torch.arange(tokens.shape[1], device=device).expand_as(tokens)
    batch = TokenBatch(tokens, attend, learn, steps, ("one", "two"))
    training = model.training
    model.eval()
    try:
        states = []
        for laid in (_joined(batch), _padded(batch)):
            found = _plain_output(model, laid).float().flatten(0, 1)
            states.append(found[torch.cat([laid.sources, laid.last])])
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # the model does not know the argument, or not this kind of input
    finally:
        model.train(training)
    one, two = states
    close = 0.05 if next(model.parameters()).dtype == torch.bfloat16 else 1e-3
    return bool((one - two).norm() <= close * two.norm())


def _plain_output(model: PreTrainedModel, laid: Laid) -> Tensor:
    output = model(**model_arguments(model, laid))
    found: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
    return found


def model_arguments(model: PreTrainedModel, laid: Laid) -> dict[str, Any]:
    """Build the keyword arguments of a forward pass over a laid-out batch.

    Raises:
        ConfigError: rows are joined and the model takes no positions.
    """
    arguments: dict[str, Any] = {"input_ids": laid.tokens, "use_cache": False}
    positioned = takes_positions(model)
    if positioned:
        arguments["position_ids"] = laid.positions
    if laid.pieces is not None:
        # A mask of four dimensions is taken as it is, so that none is made; nobody reads it.
        arguments["attention_mask"] = torch.zeros(1, 1, 1, 1, device=laid.tokens.device)
        arguments[attention.PIECES] = laid.pieces
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


def hidden_states(
    backbone: PreTrainedModel, batch: TokenBatch, layout: Layout
) -> tuple[Tensor, Laid]:
    """Run the backbone over a batch: its states [b t, D], and where the batch's tokens are."""
    laid = lay_out(batch, layout, backbone)
    output: Tensor = backbone(**model_arguments(backbone, laid)).last_hidden_state
    return output.flatten(0, 1), laid


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
