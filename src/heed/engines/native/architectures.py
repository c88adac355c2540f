"""Read a transformers module into the plan of the native loop, or say why it does not fit.

Only modules whose every step the native loop does are taken: the classes below, exactly, with
plain layers. Anything else is decoded through torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from heed.engines.forward import Forward
from heed.engines.native import library

# Kinds of rotary positions whose frequencies do not depend on the length of the text.
ROTARY = {"default", "linear", "llama3", "yarn"}
HARMLESS_HOOKS = {"make_inputs_require_grads"}
"""transformers' own, of gradient checkpointing: no number changes by it."""
SILU, GELU_TANH = {"silu", "swish"}, {"gelu_new", "gelu_pytorch_tanh"}


class UnfitError(Exception):
    """The module is not one that the native loop decodes; the text says why."""


@dataclass(frozen=True)
class Part:
    """Outputs `first` to `first + count` of a packed matrix, from one layer of the module."""

    layer: int
    name: int
    module: Any
    first: int
    count: int


@dataclass(frozen=True)
class Vector:
    """A norm's weight or bias."""

    layer: int
    name: int
    module: Any
    attribute: str = "weight"


@dataclass
class Plan:
    """Where each number of the native model comes from.

    Args:
        model: the whole module.
        shape: sizes, without `half`, which the weights' type decides each time.
        scales: of attention scores, by layer.
    """

    model: nn.Module
    shape: dict[str, Any]
    scales: list[float]
    embedding: Any
    positions: Any = None
    parts: list[Part] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)
    rotary: Any = None

    def modules(self) -> Iterator[nn.Module]:
        """Every layer whose weights are read."""
        yield self.embedding
        if self.positions is not None:
            yield self.positions
        for reads in (self.parts, self.vectors):
            yield from (read.module for read in reads)

    def rotations(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [positions, head size / 2], fp32."""
        assert self.rotary is not None
        half = self.shape["head_size"] // 2
        places = torch.arange(positions)[None]
        cosine, sine = self.rotary(torch.zeros(1), places)
        return cosine[0, :, :half].contiguous(), sine[0, :, :half].contiguous()


def read_plan(forward: Forward, positions: int | None, pad: Callable[[int], int]) -> Plan:
    """Read the module.

    Args:
        positions: most tokens of prompt and completion together; None where there is no limit.
        pad: rounds a number of outputs up to whole panels.

    Raises:
        UnfitError: the native loop does not decode it.
    """
    model = forward.model
    name = type(model).__name__
    if name not in _READERS or not type(model).__module__.startswith("transformers."):
        raise UnfitError(f"{name} is not among {', '.join(sorted(_READERS))}")
    if forward.window is not None and (positions is None or forward.window < positions):
        raise UnfitError(
            f"{name} attends to the last {forward.window} positions alone, of {positions}"
        )
    if forward.head is None:
        raise UnfitError(f"{name}'s logits are not one linear map of its hidden states")
    check_hooks(model)
    plan = _READERS[name](forward, pad)
    vocabulary = plan.shape["vocabulary"]
    plan.parts.append(Part(library.LAST, 0, forward.head, 0, vocabulary))
    for module in plan.modules():
        _check_plain(module)
    sizes = (plan.shape["width"], plan.shape["inner"], plan.shape["head_size"])
    if any(size % 2 for size in sizes):
        raise UnfitError(f"{name} has an odd size among {sizes} (width, inner, head)")
    return plan


def check_hooks(model: nn.Module) -> None:
    """Refuse a module in which a hook may change what a layer does.

    Raises:
        UnfitError: there is one.
    """
    for module in model.modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(getattr(hook, "__name__", "") not in HARMLESS_HOOKS for hook in hooks):
            raise UnfitError(f"a hook may change what a {type(module).__name__} does")


def _check_plain(module: nn.Module) -> None:
    kind = type(module)
    known = kind in (nn.Linear, nn.Embedding, nn.LayerNorm, Conv1D) or kind.__name__ in _NORMS
    if not known:
        raise UnfitError(f"it holds a {kind.__name__} where a plain layer is expected")
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        raise UnfitError("its embeddings are renormalised as they are read")


_NORMS = {f"{family}RMSNorm" for family in ("Llama", "Qwen2", "Qwen3", "Mistral")}


def _read_llama(forward: Forward, pad: Callable[[int], int]) -> Plan:
    """Llama, Qwen2, Qwen3, Mistral: RMSNorm, rotary positions, grouped heads, gated SiLU."""
    model: Any = forward.model
    config, base = model.config, model.model
    if config.hidden_act not in SILU:
        raise UnfitError(f"its activation is {config.hidden_act!r}, expected silu")
    kind = (config.rope_parameters or {}).get("rope_type", "default")
    if kind not in ROTARY:
        raise UnfitError(f"its rotary positions are of kind {kind!r}, expected {sorted(ROTARY)}")
    attention = base.layers[0].self_attn
    size, inner = attention.head_dim, config.intermediate_size
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_norm = hasattr(attention, "q_norm")
    plan = Plan(
        model=model,
        shape={
            "layers": len(base.layers),
            "width": config.hidden_size,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_size": size,
            "inner": inner,
            "vocabulary": forward.head.out_features if forward.head else 0,
            "gated": 1,
            "centred": 0,
            "rotary": 1,
            "head_norm": int(head_norm),
            "eps": config.rms_norm_eps,
        },
        scales=[layer.self_attn.scaling for layer in base.layers],
        embedding=base.embed_tokens,
        rotary=base.rotary_emb,
    )
    for i, layer in enumerate(base.layers):
        mine, mlp = layer.self_attn, layer.mlp
        plan.parts += [
            Part(i, library.QKV, mine.q_proj, 0, heads * size),
            Part(i, library.QKV, mine.k_proj, heads * size, kv_heads * size),
            Part(i, library.QKV, mine.v_proj, (heads + kv_heads) * size, kv_heads * size),
            Part(i, library.ATTENTION_OUT, mine.o_proj, 0, config.hidden_size),
            Part(i, library.UP, mlp.gate_proj, 0, inner),
            Part(i, library.UP, mlp.up_proj, pad(inner), inner),
            Part(i, library.DOWN, mlp.down_proj, 0, config.hidden_size),
        ]
        plan.vectors += [
            Vector(i, library.NORM_1, layer.input_layernorm),
            Vector(i, library.NORM_2, layer.post_attention_layernorm),
        ]
        if head_norm:
            plan.vectors += [
                Vector(i, library.QUERY_NORM, mine.q_norm),
                Vector(i, library.KEY_NORM, mine.k_norm),
            ]
    plan.vectors.append(Vector(library.LAST, 0, base.norm))
    return plan


def _read_gpt2(forward: Forward, pad: Callable[[int], int]) -> Plan:
    """GPT-2: LayerNorm with bias, learned positions, one key head a query head, tanh GELU."""
    model: Any = forward.model
    config, base = model.config, model.transformer
    if config.activation_function not in GELU_TANH:
        raise UnfitError(f"its activation is {config.activation_function!r}, expected gelu_new")
    if config.add_cross_attention:
        raise UnfitError("it attends to another model")
    width = config.hidden_size
    size, inner = width // config.num_attention_heads, base.h[0].mlp.c_fc.nf
    plan = Plan(
        model=model,
        shape={
            "layers": len(base.h),
            "width": width,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_attention_heads,
            "head_size": size,
            "inner": inner,
            "vocabulary": forward.head.out_features if forward.head else 0,
            "gated": 0,
            "centred": 1,
            "rotary": 0,
            "head_norm": 0,
            "eps": config.layer_norm_epsilon,
        },
        scales=[block.attn.scaling for block in base.h],
        embedding=base.wte,
        positions=base.wpe,
    )
    for i, block in enumerate(base.h):
        plan.parts += [
            Part(i, library.QKV, block.attn.c_attn, 0, 3 * width),
            Part(i, library.ATTENTION_OUT, block.attn.c_proj, 0, width),
            Part(i, library.UP, block.mlp.c_fc, 0, inner),
            Part(i, library.DOWN, block.mlp.c_proj, 0, width),
        ]
        for weight, bias, norm in (
            (library.NORM_1, library.NORM_1_BIAS, block.ln_1),
            (library.NORM_2, library.NORM_2_BIAS, block.ln_2),
        ):
            plan.vectors += [Vector(i, weight, norm), Vector(i, bias, norm, "bias")]
    plan.vectors += [
        Vector(library.LAST, 0, base.ln_f),
        Vector(library.LAST, 1, base.ln_f, "bias"),
    ]
    return plan


_READERS: dict[str, Callable[[Forward, Callable[[int], int]], Plan]] = {
    "LlamaForCausalLM": _read_llama,
    "Qwen2ForCausalLM": _read_llama,
    "Qwen3ForCausalLM": _read_llama,
    "MistralForCausalLM": _read_llama,
    "GPT2LMHeadModel": _read_gpt2,
}
