"""An engine that says what it is told: for rules, recorded completions, and tests of loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heed.data.render import Renderer
from heed.errors import HeedError
from heed.ids import content_hash
from heed.records import Completion, Finish, PolicyRef, Prompt, Sampling

Replies = Callable[[Prompt, int], str] | Mapping[str, str | Sequence[str]]


class ScriptedEngine:
    """Answer prompts from a script.

    Completions have no log-probabilities, because nothing was sampled. `max_tokens` and `stop` are
    kept; the other fields of the sampling have no meaning here (a reply ends where it ends).

    Args:
        replies: called with a prompt and the sample's index; or a mapping from a prompt's id or
            text to a reply, or to replies of which sample i gets number i, modulo their number.
        renderer: turns replies into tokens.
        policy: stamped on every completion.
    """

    def __init__(self, replies: Replies, renderer: Renderer, policy: PolicyRef) -> None:
        self.replies, self.renderer = replies, renderer
        self._policy = policy

    @property
    def policy(self) -> PolicyRef:
        """The name that completions are stamped with."""
        return self._policy

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Stamp completions with this policy from now on; the script stays."""
        self._policy = policy

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Return `sampling.n` replies for each prompt, in the order of the prompts.

        A reply that the script does not have, fails to make or that cannot be encoded is a
        completion with finish `error`.
        """
        return [[self._one(p, i, sampling) for i in range(sampling.n)] for p in prompts]

    def _one(self, prompt: Prompt, index: int, sampling: Sampling) -> Completion:
        name = [self._policy.run, self._policy.step, prompt.id, index, sampling.model_dump()]
        before = self.renderer.prompt_tokens(prompt)
        tokens: list[int] = []
        finish: Finish = "error"
        error: str | None = None
        try:
            tokens, finish = self._tokens(prompt, self._reply(prompt, index), before, sampling)
        except HeedError as caught:
            error = str(caught)
        except Exception as caught:  # whatever a script raises is this sample's failure
            error = f"the script failed: {type(caught).__name__}: {caught}"
        return Completion(
            id="c-" + content_hash(name),
            prompt_id=prompt.id,
            prompt_tokens=tuple(before),
            tokens=tuple(tokens),
            text=self.renderer.decode(tokens),
            finish=finish,
            error=error,
            oldest=self._policy,
            newest=self._policy,
            sampling=sampling,
        )

    def _reply(self, prompt: Prompt, index: int) -> str:
        if not isinstance(self.replies, Mapping):
            return self.replies(prompt, index)
        found = self.replies.get(prompt.id, self.replies.get(prompt.text))
        if not found:
            raise LookupError(f"no reply to prompt {prompt.id!r} ({prompt.text[:40]!r})")
        return found if isinstance(found, str) else found[index % len(found)]

    def _tokens(
        self, prompt: Prompt, reply: str, before: Sequence[int], sampling: Sampling
    ) -> tuple[list[int], Finish]:
        ends = [at + len(s) for s in sampling.stop if (at := reply.find(s)) >= 0]
        said = reply[: min(ends)] if ends else reply
        tokens = list(self.renderer.item_row(prompt, said).tokens[len(before) :])
        if ends:
            tokens = tokens[:-1]
        finish: Finish = "stop" if len(tokens) <= sampling.max_tokens else "length"
        return tokens[: sampling.max_tokens], finish
