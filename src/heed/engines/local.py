"""The engine in this process: samples from the very module that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from heed.data.render import Renderer
from heed.engines.captured import CapturedSteps, EagerSteps
from heed.engines.decode import Decoder, Drawn
from heed.engines.forward import Forward
from heed.engines.native.architectures import UnfitError
from heed.engines.native.build import BuildError
from heed.engines.native.decoder import NativeDecoder
from heed.engines.native.trial import open_native
from heed.engines.native.weights import NativeModel
from heed.engines.sampling import uniform_numbers
from heed.errors import EngineError
from heed.ids import content_hash
from heed.models.backbone import unwrap
from heed.records import Completion, PolicyRef, Prompt, Sampling

Path = Literal["auto", "native", "torch"]


class LocalEngine:
    """Decode many rows side by side with a static cache, each row at its own position.

    A prompt is run once whatever the number of its samples; a row that ends makes room for the
    next sample. A sample's tokens depend on the weights, its prompt and its own random stream; the
    rows beside it, their order and `max_rows` change at most the last bits of its logits.

    Args:
        model: a causal language model as `load_causal` gives it, with or without adapters; shared,
            not copied.
        renderer: turns prompts into tokens and tokens into text.
        policy: the weights' name, stamped on every completion.
        max_rows: most rows decoded side by side.
        max_length: most tokens of prompt and completion together; the model's own limit caps it.
        path: native decodes in one compiled loop, which takes plain models on a CPU; torch decodes
            any model through its own modules; auto takes the native loop where it can.
        cuda_graphs: on a CUDA device, capture decoding steps and replay them; the slots then stay
            allocated between calls.

    Raises:
        EngineError: the architecture cannot be decoded here, or not on the path asked for; the
            message says why.
    """

    def __init__(
        self,
        model: nn.Module,
        renderer: Renderer,
        *,
        policy: PolicyRef,
        max_rows: int = 128,
        max_length: int | None = None,
        path: Path = "auto",
        cuda_graphs: bool = True,
    ) -> None:
        if max_rows < 1:
            raise EngineError(f"max_rows is {max_rows}, expected at least 1")
        self.model, self.renderer, self.max_rows = model, renderer, max_rows
        self._policy = policy
        self._forward = Forward(model)
        self._graphs, self._captured = cuda_graphs, CapturedSteps(self._forward)
        config = unwrap(model).config.get_text_config(decoder=True)
        limits = [max_length, getattr(config, "max_position_embeddings", None)]
        self.max_length: int | None = min((n for n in limits if n), default=None)
        self.num_errors = 0
        """Completions with finish `error` since the engine was made."""
        self.why_torch = ""
        """Why the native loop is not used; empty where it is."""
        self.build_failed = False
        """Whether it would be used, had it been built."""
        self._fitting = self._open(path)
        self._native = self._fitting

    @property
    def path(self) -> Literal["native", "torch"]:
        """How completions are decoded now."""
        return "torch" if self._native is None else "native"

    @property
    def policy(self) -> PolicyRef:
        """The weights that sample now."""
        return self._policy

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Sample from these weights from now on; None where the module itself was trained.

        Raises:
            EngineError: names or shapes do not fit the model.
        """
        if weights is not None:
            try:
                self.model.load_state_dict(dict(weights))
            except (RuntimeError, KeyError) as error:
                raise EngineError(
                    f"the weights do not fit the engine's model: {str(error).splitlines()[0]}; "
                    "load weights of the same architecture and size"
                ) from error
        self._policy = policy

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Draw `sampling.n` completions for each prompt, in the order of the prompts.

        A prompt given twice gives the same completions twice, because a sample's randomness is
        named by the prompt's id and the sample's index.

        A prompt that leaves no room for `sampling.max_tokens`, and a sample whose logits are not
        finite, give completions with finish `error`.

        Raises:
            EngineError: no prompt leaves room for `sampling.max_tokens`.
        """
        if not prompts:
            return []
        rendered = [self.renderer.prompt_tokens(prompt) for prompt in prompts]
        errors = [self._refusal(tokens, sampling.max_tokens) for tokens in rendered]
        fitting = [i for i, error in enumerate(errors) if error is None]
        if not fitting:
            raise EngineError(
                f"no prompt can be completed; the first of {len(prompts)}: {errors[0]}"
            )
        drawn = self._decode(
            [prompts[i] for i in fitting], [rendered[i] for i in fitting], sampling
        )
        by_prompt = dict(zip(fitting, drawn, strict=True))
        refused = [Drawn([], [], None, "error", None)] * sampling.n
        out = []
        for i, (prompt, tokens) in enumerate(zip(prompts, rendered, strict=True)):
            out.append(
                [
                    self._completion(prompt, tokens, index, found, errors[i], sampling)
                    for index, found in enumerate(by_prompt.get(i, refused))
                ]
            )
        self.num_errors += sum(c.finish == "error" for group in out for c in group)
        return out

    def _refusal(self, tokens: Sequence[int], max_tokens: int) -> str | None:
        if not tokens:
            return "the prompt has no token; begin it with a start token or some text"
        limit = self.max_length
        if limit is None or len(tokens) + max_tokens <= limit:
            return None
        return (
            f"the prompt has {len(tokens)} tokens and may be continued by {max_tokens} "
            f"(max_tokens), and the limit is {limit}; shorten the prompt, lower max_tokens, or "
            "use a model with more positions"
        )

    def _open(self, path: Path) -> NativeModel | None:
        if path == "torch":
            self.why_torch = "engine.path is torch"
            return None
        try:
            return open_native(self._forward, self.max_length)
        except (UnfitError, BuildError) as error:
            self.why_torch = str(error)
            self.build_failed = isinstance(error, BuildError)
        if path == "native":
            raise EngineError(
                f"engine.path is native, and {self.why_torch}; set it to auto or torch"
            )
        return None

    def _decode(
        self, prompts: Sequence[Prompt], rendered: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Drawn]]:
        def numbers(prompt: int, sample: int) -> np.ndarray | None:
            if sampling.temperature == 0:
                return None
            return uniform_numbers(sampling.seed, prompts[prompt].id, sample, sampling.max_tokens)

        end_ids = () if sampling.ignore_end else self.renderer.end_ids
        stops = None if sampling.ignore_end else self._stops(sampling.stop)
        with torch.inference_mode():
            self._native = self._refreshed(max(map(len, rendered)) + sampling.max_tokens)
            if self._native is not None:
                return NativeDecoder(
                    self._native, rendered, numbers, sampling, self.max_rows, end_ids, stops
                ).run()
            training = self.model.training
            # Evaluation mode: gradient checkpointing, where it is on, would switch the cache off.
            self.model.eval()
            try:
                self._forward.refresh()
                return Decoder(
                    self._forward,
                    rendered,
                    numbers,
                    sampling,
                    self.max_rows,
                    end_ids,
                    stops,
                    self._steps(),
                ).run()
            finally:
                self.model.train(training)

    def _steps(self) -> EagerSteps | CapturedSteps:
        """Runs decoding steps; the model may have moved to another device since the last call."""
        captures = self._graphs and self._forward.device.type == "cuda"
        return self._captured if captures else EagerSteps(self._forward)

    def _refreshed(self, positions: int) -> NativeModel | None:
        """The native model with the weights as they are, if it still fits the module."""
        if self._fitting is None:
            return None
        try:
            self._fitting.refresh(positions)
        except UnfitError as error:
            self.why_torch = str(error)
            return None
        self.why_torch = ""
        return self._fitting

    def _stops(self, texts: Sequence[str]) -> Callable[[list[int]], bool] | None:
        if not texts:
            return None
        # A token is at least a byte, so a stop text that just ended lies in this many tokens;
        # some more keep the decoder's treatment of a text's beginning away from it.
        reach = max(len(text.encode()) for text in texts) + 8

        def stops(tokens: list[int]) -> bool:
            tail = self.renderer.decode(tokens[-reach:])
            return any(text in tail for text in texts)

        return stops

    def _completion(
        self,
        prompt: Prompt,
        prompt_tokens: Sequence[int],
        index: int,
        drawn: Drawn,
        error: str | None,
        sampling: Sampling,
    ) -> Completion:
        name = [self._policy.run, self._policy.step, prompt.id, index, sampling.model_dump()]
        return Completion(
            id="c-" + content_hash(name),
            prompt_id=prompt.id,
            prompt_tokens=tuple(prompt_tokens),
            tokens=tuple(drawn.tokens),
            logprobs=tuple(drawn.logprobs),
            kept=None if drawn.kept is None else tuple(drawn.kept),
            text=self.renderer.decode(drawn.tokens),
            finish=drawn.finish,
            error=error or drawn.error,
            oldest=self._policy,
            newest=self._policy,
            sampling=sampling,
        )
