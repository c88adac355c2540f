"""Records: what crosses the boundary between two stages.

Frozen, validated when made, free of tensors, and JSON both ways (`record.model_dump_json()`,
`Type.model_validate_json(text)`). A completion's tokens include its terminal token. A value that
is not known is `None` with a reason beside it; it is never 0, 0.5, NaN or an empty string.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from heed.ids import content_hash


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"found {value}; a record holds finite numbers, or None with a reason")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Role = Literal["system", "user", "assistant", "tool", "text"]
Finish = Literal["stop", "length", "error"]
Outcome = Literal["left", "right", "tie", "both_bad", "cannot_judge", "invalid"]
LabellerKind = Literal["human", "model", "rule", "simulated"]


class Record(BaseModel):
    """Base of all records: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Message(Record):
    """One turn of a dialogue. Role `text` is raw text that the model continues as it stands."""

    role: Role
    text: str


class Prompt(Record):
    """What is asked of the policy."""

    id: str
    messages: tuple[Message, ...] = Field(min_length=1)
    meta: dict[str, Any] = Field(default_factory=dict)
    """Columns of the source row that are not text of the prompt; passed to reward functions."""

    @classmethod
    def make(
        cls, text: str, *, raw: bool = False, meta: dict[str, Any] | None = None, id: str = ""
    ) -> Prompt:
        """Make a prompt of one user message (or of raw text), with its content hash as the id."""
        message = Message(role="text" if raw else "user", text=text)
        return cls(id=id or prompt_id((message,)), messages=(message,), meta=meta or {})

    @property
    def text(self) -> str:
        """The last message's text."""
        return self.messages[-1].text


def prompt_id(messages: tuple[Message, ...]) -> str:
    """The id of a prompt: the content hash of its messages (equal prompts share an id)."""
    return "p-" + content_hash([[m.role, m.text] for m in messages])


class Demonstration(Record):
    """A prompt with the reply that a supervised policy learns."""

    prompt: Prompt
    reply: tuple[Message, ...] = Field(min_length=1)


class PolicyRef(Record):
    """Which weights: the run that made them and the optimiser step."""

    run: str
    step: int = Field(ge=0)


class Sampling(Record):
    """How completions are drawn. Temperature 0 is greedy decoding."""

    temperature: float = Field(default=1.0, ge=0.0)
    """Logits are divided by it, in sampling and in scoring alike; 0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Keep the smallest set of likeliest tokens whose probability reaches it; 1 keeps all."""
    top_k: int = Field(default=0, ge=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    max_tokens: int = Field(default=64, ge=1)
    """Longest completion in tokens, the terminal token included."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion (kept in it), beside the end token."""
    ignore_end: bool = False
    """Go on to `max_tokens` whatever ends a completion (fixed length, as Ziegler et al. sample)."""
    seed: int = 0
    """Each sample's randomness depends on this, the prompt's id and the sample's index only."""
    n: int = Field(default=1, ge=1)
    """Completions drawn for each prompt."""

    @property
    def truncates(self) -> bool:
        """Whether tokens are cut from the distribution (top-k or top-p)."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0)


class Completion(Record):
    """What the policy wrote for a prompt, with what was known when it was sampled."""

    id: str
    prompt_id: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    """Sampled token ids, the terminal token included."""
    logprobs: tuple[Finite, ...] | None = None
    """Nats under the distribution sampled from (temperature, top-k and top-p applied)."""
    learnable: tuple[bool, ...] | None = None
    """False where a token was forced; None means that all were sampled."""
    kept: tuple[tuple[int, ...], ...] | None = None
    """Token ids that top-k and top-p left to choose from, per token; None means all."""
    text: str
    finish: Finish
    error: str | None = None
    oldest: PolicyRef | None = None
    """Oldest policy that sampled a token of it."""
    newest: PolicyRef | None = None
    """Newest policy that sampled a token of it."""
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _check(self) -> Completion:
        for name in ("logprobs", "learnable", "kept"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(self.tokens)} tokens; "
                    "give one per token, the terminal token included"
                )
        if (self.finish == "error") != (self.error is not None):
            raise ValueError("finish='error' and a text in `error` come together or not at all")
        return self

    @property
    def num_tokens(self) -> int:
        """Length in tokens, the terminal token included."""
        return len(self.tokens)


class Pair(Record):
    """Two completions of one prompt that a labeller compares."""

    id: str
    prompt: Prompt
    left: Completion
    right: Completion
    origin: str = ""
    """Where the pair comes from, such as a run's name."""

    @model_validator(mode="after")
    def _check(self) -> Pair:
        for side in (self.left, self.right):
            if side.prompt_id != self.prompt.id:
                raise ValueError(
                    f"a completion answers prompt {side.prompt_id!r}, the pair's prompt is "
                    f"{self.prompt.id!r}; both sides of a pair answer its prompt"
                )
        return self


class Ranking(Record):
    """Several completions of one prompt in the order in which a labeller put them."""

    id: str
    prompt: Prompt
    replies: tuple[tuple[Message, ...], ...] = Field(min_length=2)
    """What each completion says, in any order."""
    ranks: tuple[int, ...]
    """Rank of each reply: 1 is best, equal ranks are tied, no number is left out."""
    origin: str = ""
    """Where the ranking comes from, such as a labeller or a run."""

    @model_validator(mode="after")
    def _check(self) -> Ranking:
        if len(self.ranks) != len(self.replies):
            raise ValueError(
                f"{len(self.ranks)} ranks for {len(self.replies)} replies; give one for each"
            )
        if set(self.ranks) != set(range(1, len(set(self.ranks)) + 1)):
            raise ValueError(
                f"the ranks are {self.ranks}; count from 1 for the best without leaving one out"
            )
        return self


class Preference(Record):
    """What a labeller said of a pair. Append-only: a correction is a new one with `replaces`."""

    id: str
    pair_id: str
    outcome: Outcome
    strength: Finite | None = Field(default=None, ge=0.0)
    """How much better on the labeller's own scale, such as 0 to 3 of a 7-point scale."""
    p_left: Finite | None = Field(default=None, ge=0.0, le=1.0)
    """Probability that left is better; None with `reason` where the pair was not judged."""
    reason: str | None = None
    labeller: str
    kind: LabellerKind
    shown: tuple[Literal["left", "right"], Literal["left", "right"]] = ("left", "right")
    """The sides in the order they were shown."""
    seconds: Finite | None = Field(default=None, ge=0.0)
    note: str | None = None
    when: datetime | None = None
    replaces: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Preference:
        judged = self.outcome in ("left", "right", "tie")
        if judged and self.p_left is None:
            raise ValueError(f"outcome {self.outcome!r} needs p_left (1 left, 0 right, 0.5 tie)")
        if self.p_left is None and not self.reason:
            raise ValueError(f"outcome {self.outcome!r} has no p_left, so it needs a reason")
        return self


class RankingJudgment(Record):
    """What a labeller said of several completions of one prompt. Append-only, as `Preference`."""

    id: str
    prompt: Prompt
    items: tuple[Completion, ...] = Field(min_length=2)
    origin: str = ""
    """Where the items come from, such as a run's name."""
    buckets: tuple[tuple[int, ...], ...] | None = None
    """Places of `items`, best first, equals together; None with `reason` where not ranked."""
    unranked_bad: tuple[int, ...] = ()
    """Places below every bucket, not compared with each other."""
    reason: str | None = None
    labeller: str
    kind: LabellerKind
    shown: tuple[int, ...]
    """Places in the order they were shown."""
    seconds: Finite | None = Field(default=None, ge=0.0)
    note: str | None = None
    when: datetime | None = None
    replaces: str | None = None

    @model_validator(mode="after")
    def _check(self) -> RankingJudgment:
        if self.buckets is None and not self.reason:
            raise ValueError("a ranking without buckets needs a reason")
        named = [place for bucket in self.buckets or () for place in bucket]
        if self.buckets is not None and sorted([*named, *self.unranked_bad]) != list(
            range(len(self.items))
        ):
            raise ValueError(
                f"buckets {self.buckets} and unranked_bad {self.unranked_bad} do not name each of "
                f"{len(self.items)} items once"
            )
        return self


class Span(Record):
    """A marked piece of a text: from `start` up to and without `end`, in UTF-16 code units."""

    start: int = Field(ge=0)
    end: int = Field(ge=1)
    kind: str
    quote: str
    """The words that it covers."""
    text: str | None = None
    """What the critic says of it."""


class Critique(Record):
    """What a critic, a person or a model, says of one item."""

    id: str
    item_id: str
    spans: tuple[Span, ...] = ()
    text: str | None = None
    critic: str
    kind: LabellerKind
    shown: bool = False
    """Whether labellers saw it before they judged."""
    when: datetime | None = None
    replaces: str | None = None


class Score(Record):
    """A scorer's number for one item; `value` is None where scoring failed, with the error."""

    item_id: str
    value: Finite | None
    error: str | None = None
    reason: str | None = None
    """Why the value is what it is, where the scorer says so."""
    parts: dict[str, Finite | None] = Field(default_factory=dict)
    """The summands by name, before weights."""
    scorer: str

    @model_validator(mode="after")
    def _check(self) -> Score:
        if (self.value is None) != (self.error is not None):
            raise ValueError("a score has a value or an error, exactly one of the two")
        return self


class Rollout(Record):
    """A completion with its score."""

    completion: Completion
    score: Score


class RolloutGroup(Record):
    """All completions that were drawn for one prompt in one update."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...] = Field(min_length=1)


class Bounds(Protocol):
    """An estimate with the interval around it, such as `heed.stats.intervals.Interval`."""

    @property
    def estimate(self) -> float:
        """The estimate itself."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        ...

    @property
    def n(self) -> int:
        """Independent units behind it."""
        ...


class Finding(Record):
    """One measured quantity with its interval (level 95 % unless the unit says otherwise)."""

    name: str
    estimate: Finite | None
    low: Finite | None = None
    high: Finite | None = None
    n: int = Field(ge=0)
    unit: str
    reason: str | None = None
    """Why the estimate is None."""
    inputs: tuple[str, ...] = ()
    """Names or hashes of what it was computed from."""

    @model_validator(mode="after")
    def _check(self) -> Finding:
        if self.estimate is None and not self.reason:
            raise ValueError(f"finding {self.name!r} has no estimate, so it needs a reason")
        return self

    @classmethod
    def of(cls, name: str, bounds: Bounds, unit: str) -> Finding:
        """Name an estimate with its interval."""
        return cls(
            name=name,
            estimate=bounds.estimate,
            low=bounds.low,
            high=bounds.high,
            n=bounds.n,
            unit=unit,
        )

    @classmethod
    def unknown(cls, name: str, unit: str, reason: str) -> Finding:
        """Name what could not be measured, and say why."""
        return cls(name=name, estimate=None, n=0, unit=unit, reason=reason)
