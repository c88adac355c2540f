"""One call through the native loop: prompts and random numbers in, what was drawn out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from heed.engines.decode import Drawn
from heed.engines.native import library
from heed.engines.native.weights import NativeModel
from heed.errors import EngineError
from heed.records import Finish, Sampling

PASSES = 64
"""Passes of one native call; between two of them Ctrl-C is heard."""
_FINISHES: dict[int, Finish] = {1: "stop", 2: "length", 3: "error"}


class NativeDecoder:
    """One call's decoding: every sample of every prompt.

    The arguments are those of `heed.engines.decode.Decoder`, and so is the result.

    Args:
        trace: also keep the logits of every token drawn, for comparison.
    """

    def __init__(
        self,
        model: NativeModel,
        prompts: Sequence[Sequence[int]],
        numbers: Callable[[int, int], np.ndarray | None],
        sampling: Sampling,
        max_rows: int,
        end_ids: Sequence[int],
        stops: Callable[[list[int]], bool] | None,
        trace: bool = False,
    ) -> None:
        self.model, self.sampling, self.stops = model, sampling, stops
        # Long prompts first, as on the other path; samples are numbered in this order.
        self.order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        num, longest = len(prompts) * sampling.n, sampling.max_tokens
        lengths = [len(prompts[i]) for i in self.order]
        self.tokens = np.concatenate([np.asarray(prompts[i], np.int32) for i in self.order])
        self._check_ids()
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        self.numbers: np.ndarray | None = None
        if sampling.temperature > 0:
            self.numbers = np.empty((num, longest), np.float32)
            for at, (prompt, sample) in enumerate(self._samples()):
                self.numbers[at] = numbers(prompt, sample)
        self.end_ids = np.asarray(list(end_ids), np.int32)
        self.stopped = np.zeros(num, np.uint8)
        self.drawn = np.zeros((num, longest), np.int32)
        self.logprobs = np.zeros((num, longest), np.float32)
        self.counts = np.zeros(num, np.int32)
        self._seen = np.zeros(num, np.int32)
        self.finishes = np.zeros(num, np.uint8)
        vocabulary = model.plan.shape["vocabulary"]
        cuts = sampling.top_p < 1 or 0 < sampling.top_k < vocabulary
        self.truncates = sampling.truncates and cuts
        self.trace = np.zeros((num, longest, vocabulary), np.float32) if trace else None
        self.rows = min(max_rows, num)

    def run(self) -> list[list[Drawn]]:
        """Decode everything; returns what was drawn per prompt and sample.

        Raises:
            EngineError: there is not enough memory for the keys and values of the active rows.
        """
        out: list[list[Drawn]] = [[] for _ in self.order]
        if not self.order:
            return out
        loaded, work = self.model.library, self._work()
        threads = torch.get_num_threads()
        session = loaded.heed_session_new(self.model.handle, ctypes.byref(work), threads)
        try:
            left = 1 if session else -1
            while left > 0:
                left = loaded.heed_session_advance(session, PASSES if self.stops is None else 1)
                self._mark_stopped()
            if left < 0:
                raise EngineError(
                    f"no memory to decode {self.rows} rows; lower engine.max_rows or max_tokens"
                )
            for number, (prompt, _) in enumerate(self._samples()):
                out[prompt].append(self._result(number, session))
        finally:
            loaded.heed_session_free(session)
        return out

    def _samples(self) -> list[tuple[int, int]]:
        return [(p, i) for p in self.order for i in range(self.sampling.n)]

    def _check_ids(self) -> None:
        vocabulary = self.model.plan.embedding.num_embeddings
        if len(self.tokens) and not 0 <= self.tokens.min() <= self.tokens.max() < vocabulary:
            raise EngineError(
                f"a prompt has token ids {self.tokens.min()} to {self.tokens.max()}, and the model "
                f"knows 0 to {vocabulary - 1}; use the tokenizer that belongs to the model"
            )

    def _work(self) -> library.Work:
        sampling = self.sampling
        arrays = {
            name: None if (array := getattr(self, name)) is None else array.ctypes.data
            for name in (
                "tokens", "offsets", "numbers", "end_ids", "stopped",
                "drawn", "logprobs", "counts", "finishes", "trace",
            )
        }  # fmt: skip
        return library.Work(
            prompts=len(self.order),
            samples=sampling.n,
            max_tokens=sampling.max_tokens,
            rows=self.rows,
            num_end_ids=len(self.end_ids),
            truncates=int(self.truncates),
            sampling=library.NativeSampling(sampling.temperature, sampling.top_p, sampling.top_k),
            **arrays,
        )

    def _mark_stopped(self) -> None:
        """Look for stop texts in what was just drawn; the loop ends those rows."""
        if self.stops is None:
            return
        new = np.flatnonzero((self.counts > self._seen) & (self.finishes != 3))
        for number in new:
            if self.stops(self.drawn[number, : self.counts[number]].tolist()):
                self.stopped[number] = 1
                if self.finishes[number] == 2:
                    self.finishes[number] = 1
        np.copyto(self._seen, self.counts)

    def _result(self, number: int, session: int) -> Drawn:
        count, finish = int(self.counts[number]), _FINISHES[int(self.finishes[number])]
        kept = None
        if self.truncates:
            kept = self._kept(number, count, session)
        failed = finish == "error"
        return Drawn(
            self.drawn[number, :count].tolist(),
            self.logprobs[number, :count].tolist(),
            kept,
            finish,
            "the model's logits are not finite; look for diverged weights" if failed else None,
        )

    def _kept(self, number: int, count: int, session: int) -> list[tuple[int, ...]]:
        ids, ends = (ctypes.POINTER(ctypes.c_int32)() for _ in range(2))
        self.model.library.heed_session_kept(session, number, ctypes.byref(ids), ctypes.byref(ends))
        marks = [0, *ends[:count]]
        return [tuple(ids[a:b]) for a, b in pairwise(marks)]
