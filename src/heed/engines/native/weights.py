"""The native model: a module's weights, packed anew before each call.

Matrices are copied into the layout that the kernels read; embeddings are read where they are.
Nothing remembers whether the module changed, because a learner changes it in place: packing takes
about half a millisecond a million weights.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from heed.engines.native import library
from heed.engines.native.architectures import Plan, UnfitError, check_hooks

TYPES = (torch.float32, torch.bfloat16)


class NativeModel:
    """A model in the native library's memory.

    Args:
        plan: where its numbers come from.
        loaded: the library.
    """

    def __init__(self, plan: Plan, loaded: Any) -> None:
        self.plan, self.library = plan, loaded
        self.handle = loaded.heed_model_new()
        if not self.handle:
            raise MemoryError
        self._kept: list[Tensor] = []
        self._shaped: torch.dtype | None = None
        self._positions, self._frequencies = 0, torch.zeros(0)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.heed_model_free(self.handle)
            self.handle = None

    def refresh(self, positions: int) -> None:
        """Pack the module's weights as they are now.

        Args:
            positions: most tokens of prompt and completion together that follow.

        Raises:
            UnfitError: they are not all fp32 or all bf16 on the CPU, or a hook changes a layer.
        """
        dtype = self._check()
        self._kept = []
        if dtype != self._shaped:
            self._shape(dtype)
        self._rotate(positions)
        for part in self.plan.parts:
            weight, transposed = part.module.weight, not isinstance(part.module, nn.Linear)
            bias = getattr(part.module, "bias", None)
            self.library.heed_model_matrix(
                self.handle, part.layer, part.name, self._pointer(weight),
                None if bias is None else self._pointer(bias),
                part.first, part.count, transposed,
            )  # fmt: skip
        for vector in self.plan.vectors:
            found = getattr(vector.module, vector.attribute, None)
            if found is not None:
                _check_memory(
                    self.library.heed_model_vector(
                        self.handle, vector.layer, vector.name, self._pointer(found), found.numel()
                    )
                )
        learned = self.plan.positions
        self.library.heed_model_embeddings(
            self.handle,
            self._pointer(self.plan.embedding.weight),
            None if learned is None else self._pointer(learned.weight),
        )

    def _check(self) -> torch.dtype:
        found = {p.dtype for module in self.plan.modules() for p in module.parameters()}
        if len(found) > 1 or not found <= set(TYPES):
            raise UnfitError(f"its weights are {sorted(map(str, found))}, expected fp32 or bf16")
        for module in self.plan.modules():
            if any(not p.is_cpu for p in module.parameters()):
                raise UnfitError("its weights are not all on the CPU")
        check_hooks(self.plan.model)
        return found.pop()

    def _shape(self, dtype: torch.dtype) -> None:
        shape = library.Shape(**self.plan.shape, half=int(dtype == torch.bfloat16))
        _check_memory(self.library.heed_model_shape(self.handle, ctypes.byref(shape)))
        for i, scale in enumerate(self.plan.scales):
            self.library.heed_model_scale(self.handle, i, scale)
        self._shaped = dtype

    def _rotate(self, positions: int) -> None:
        """Compute the angles anew for more positions, or where their frequencies have changed."""
        if self.plan.rotary is None:
            return
        frequencies: Any = self.plan.rotary.inv_freq
        if positions <= self._positions and torch.equal(frequencies, self._frequencies):
            return
        num = 1 << (positions - 1).bit_length()
        cosine, sine = self.plan.rotations(num)
        pointers = cosine.data_ptr(), sine.data_ptr()
        _check_memory(self.library.heed_model_rotary(self.handle, *pointers, num))
        self._positions, self._frequencies = num, frequencies.clone()

    def _pointer(self, tensor: Tensor) -> int:
        """Address of its numbers in order; a copy, if it takes one, lives to the next refresh."""
        whole = tensor.detach().contiguous()
        self._kept.append(whole)
        return whole.data_ptr()


def _check_memory(status: int) -> None:
    if status:
        raise MemoryError("no memory for the native copy of the weights")
