"""The learner of one process: micro-batches through a head, fp32 sums, one optimiser."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from heed.data.batch import Batch, GroupBatch, PairBatch, TokenBatch
from heed.errors import LearnerError
from heed.learners import state
from heed.learners.base import Further, GroupLoss, LossTerms, Outputs, PairLoss, TokenLoss
from heed.learners.micro import (
    Gathered,
    pairs_to,
    present,
    split,
    split_sides,
    stack_sides,
    to_outputs,
)
from heed.learners.optim import (
    AveragedWeights,
    MasterWeights,
    clip_gradients,
    lr_at,
    make_optimizer,
    non_finite,
    set_rate,
)
from heed.models.backbone import joins_rows
from heed.models.device import choose_device, choose_precision, keep_memory, tokens_at_once
from heed.models.norms import adopt_kernels
from heed.settings import LearnerSettings, OptimSettings


class LocalLearner:
    """Trains a head in this process; implements `heed.learners.base.Learner`.

    In bf16 the head's parameters are cast in place and fp32 masters are kept beside them. On a
    CPU the process keeps freed memory from then on (see `keep_memory`).

    Args:
        head: a module of heed.models.heads; moved to the device.
        optim: rate, schedule and clipping.
        total_steps: length of the schedule.
        settings: how steps are executed.
        bad_batch: folder where a batch is saved whose loss or gradient is not finite.
    """

    def __init__(
        self,
        head: nn.Module,
        optim: OptimSettings,
        total_steps: int,
        settings: LearnerSettings | None = None,
        *,
        bad_batch: Path | None = None,
    ) -> None:
        settings = settings or LearnerSettings()
        self.device = choose_device(settings.device)
        if self.device.type == "cpu":
            keep_memory()
        self.head = head.to(self.device).eval()
        self.steps = 0
        """Steps taken."""
        self._optim, self._total_steps = optim, total_steps
        self._settings, self._bad_batch = settings, bad_batch
        num_parameters = sum(p.numel() for p in head.parameters())
        self.dtype = choose_precision(settings.precision, self.device, num_parameters)
        """Compute type: torch.float32 or torch.bfloat16."""
        self._updates = 0
        self._unstepped: list[Batch] = []
        self._scores_rows: bool | None = None
        if settings.gradient_checkpointing:
            cast(Any, head).gradient_checkpointing_enable()
        self._prepare_weights()

    @classmethod
    def frozen(cls, head: nn.Module, settings: LearnerSettings | None = None) -> Self:
        """Make a learner that can only `forward`: a reference. Freezes the head's parameters."""
        return cls(head.requires_grad_(False), OptimSettings(), 1, settings)

    def _prepare_weights(self) -> None:
        trained = {n: p for n, p in self.head.named_parameters() if p.requires_grad}
        self._masters = MasterWeights(trained) if self.dtype == torch.bfloat16 else None
        for parameter in self.head.parameters():
            # Buffers, such as the angles of rotary positions, keep their precision.
            if parameter.dtype != torch.float64:
                parameter.data = parameter.data.to(self.dtype)
        adopt_kernels(self.head)
        self._joined = joins_rows(self.head, self._settings.layout)
        self._weights: dict[str, Tensor] = {**(self._masters.weights if self._masters else trained)}
        values = self._weights.values()
        self._optimizer = make_optimizer(values, self._optim) if trained else None
        decay = self._optim.ema_decay
        self._average = AveragedWeights(self._weights, decay) if decay and trained else None
        wanted = self._settings.micro_batch_tokens
        self._at_once = wanted or tokens_at_once(self.head, self.device, trained=bool(trained))

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        return lr_at(self.steps, self._total_steps, self._optim)

    # -- evaluate -----------------------------------------------------------------------------

    @torch.no_grad()
    def forward(
        self, batch: TokenBatch, *, entropy: bool = False, also: Collection[Further] = ()
    ) -> Outputs:
        """Evaluate without gradients, in micro-batches; outputs in the batch's own layout.

        Args:
            entropy: whether the entropy is computed.
            also: further outputs to compute; `log_distribution` has a method of its own here.
        """
        gathered = self._gather_into(batch)
        for rows in self._split(batch):
            found = self._run(batch.select(rows).to(self.device), entropy, also)
            gathered.add(rows, present(found))
        return Outputs(**gathered.tensors)

    @torch.no_grad()
    def log_distribution(self, batch: TokenBatch) -> Tensor:
        """Evaluate whole log-distributions at learned tokens: [N, V] nats, row by row."""
        head = cast(Any, self.head)
        pieces: dict[int, Tensor] = {}
        for rows in self._split(batch):
            part = batch.select(rows).to(self.device)
            found = head.log_distribution(part, layout=self._settings.layout)
            counts = part.learn.sum(1).tolist()
            pieces |= dict(zip(rows, found.to(batch.tokens.device).split(counts), strict=True))
        return torch.cat([pieces[row] for row in sorted(pieces)])

    def weights(self) -> Mapping[str, Any]:
        """The head's weights by name, as views."""
        return self.head.state_dict()

    # -- learn --------------------------------------------------------------------------------

    def backward(
        self,
        batch: Batch,
        loss: TokenLoss | PairLoss | GroupLoss,
        denominator: float,
        *,
        entropy: bool = False,
        also: Collection[Further] = (),
    ) -> dict[str, Tensor]:
        """Add the gradient of sum(loss.values) / denominator, and return the loss's metrics.

        The sum is over the whole batch: micro-batches, padding and layout do not change it. The
        two sides of a pair run in one forward pass.

        Args:
            batch: rows, pairs, or groups of rows.
            loss: of a micro-batch's outputs and of that micro-batch; values unreduced.
            denominator: of the whole batch, above 0.
            entropy: whether the loss reads `Outputs.entropy`.
            also: further outputs that the loss reads.

        Returns:
            metrics as [B] or [B, T] in the batch's order, `loss` [B] among them (each row's
            summed values); 0 for rows without a learned token.

        Raises:
            LearnerError: the loss is not finite (the micro-batch that made it is saved first),
                the denominator is not above 0, or nothing is trained.
        """
        if not denominator > 0:
            raise LearnerError(
                f"the denominator is {denominator}; it is the number of learned tokens or pairs of "
                "the whole batch, so this batch teaches nothing: leave it out"
            )
        if self._optimizer is None:
            raise LearnerError("all weights are frozen; this learner can only evaluate")
        gathered = self._gather_into(batch)
        with self._training():
            for rows in self._split(batch):
                part, found = self._evaluate(batch, rows, entropy, also)
                terms = cast(Any, loss)(*found, part)
                row_losses = self._checked(terms, part, found)
                (terms.values.sum() / denominator).backward()
                gathered.add(rows, {**terms.metrics, "loss": row_losses})
        self._unstepped.append(batch)
        return gathered.tensors

    def step(self) -> float:
        """Clip, apply and clear the gradient; returns its norm before clipping.

        Raises:
            LearnerError: there is no gradient, or it is not finite; the weights are untouched and
                the batches that made it are saved.
        """
        if self._optimizer is None or not self._unstepped:
            raise LearnerError("step() was called without a backward() since the last step")
        norm = clip_gradients(self._weights.values(), self._optim.max_grad_norm)
        if not norm < float("inf"):
            self._refuse_gradient(norm)
        self._updates += 1
        set_rate(self._optimizer, self.learning_rate, self._updates, self._optim)
        self._optimizer.step()
        if self._masters:
            self._masters.refresh()
        if self._average:
            self._average.update(self._weights)
        self._clear()
        self.steps += 1
        return norm

    # -- keep ---------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write trained weights (fp32 masters), their average, buffers and optimiser state.

        Frozen weights are not written: they come from where the head came from.
        """
        counts = {"steps": self.steps, "updates": self._updates}
        state.save(folder, self._kept(), self._weights, self._optimizer, counts)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; the learner then goes on to the bit.

        Raises:
            StoreError: it was written for another model.
        """
        counts = state.load(folder, self._kept(), self._weights, self._optimizer)
        self.steps, self._updates = counts["steps"], counts["updates"]
        if self._masters:
            self._masters.refresh()
        self._clear()

    @torch.no_grad()
    def widen(self) -> None:
        """Give the head the fp32 values that are to be judged and saved when training is over.

        Trained weights become their masters, or the average that `optim.ema_decay` asks for;
        frozen ones stay rounded, in fp32, so that adapters merge into them without a second
        rounding.
        """
        for name, average in (self._average.weights if self._average else {}).items():
            self._weights[name].copy_(average)
        masters = self._masters.weights if self._masters else {}
        for name, parameter in self.head.named_parameters():
            if parameter.dtype == torch.bfloat16:
                parameter.data = masters[name] if name in masters else parameter.data.float()
        self.dtype = torch.float32

    # -- inside -------------------------------------------------------------------------------

    def _kept(self) -> dict[str, Tensor]:
        """Trained weights, their average, and the buffers that the head's state names."""
        names = set(self.head.state_dict())
        buffers = {n: b for n, b in self.head.named_buffers() if n in names}
        averages = self._average.weights if self._average else {}
        return {**self._weights, **{f"average/{n}": w for n, w in averages.items()}, **buffers}

    def _split(self, batch: Batch) -> list[list[int]]:
        skip = isinstance(batch, TokenBatch) and not bool(batch.learn.any(1).all())
        return split(
            batch,
            self._at_once,
            skip_unlearned=skip and not self._reads_rows(),
            joined=self._joined,
        )

    @torch.no_grad()
    def _reads_rows(self) -> bool:
        """Whether the head scores whole rows, also those without a learned token."""
        if self._scores_rows is None:
            yes = torch.ones(1, 2, dtype=torch.bool, device=self.device)
            learn = torch.tensor([[False, True]], device=self.device)
            tokens = torch.zeros(1, 2, dtype=torch.long, device=self.device)
            positions = torch.tensor([[0, 1]], device=self.device)
            probe = TokenBatch(tokens, yes, learn, positions, ("probe",))
            self._scores_rows = self._run(probe, entropy=False).scores is not None
        return self._scores_rows

    def _run(self, batch: TokenBatch, entropy: bool, also: Collection[Further] = ()) -> Outputs:
        head = cast(Any, self.head)
        # Heads without such outputs have no such argument.
        further = {"also": tuple(also)} if also else {}
        found = head.outputs(batch, entropy=entropy, layout=self._settings.layout, **further)
        return to_outputs(found)

    def _evaluate(
        self, batch: Batch, rows: list[int], entropy: bool, also: Collection[Further]
    ) -> tuple[Batch, tuple[Outputs, ...]]:
        if isinstance(batch, TokenBatch):
            part = batch.select(rows).to(self.device)
            return part, (self._run(part, entropy, also),)
        if isinstance(batch, GroupBatch):
            groups = batch.select(rows).to(self.device)
            return groups, (self._run(groups.rows, entropy, also),)
        pairs = pairs_to(batch.select(rows), self.device)
        return pairs, split_sides(self._run(stack_sides(pairs), entropy, also), pairs)

    def _gather_into(self, batch: Batch) -> Gathered:
        if isinstance(batch, GroupBatch):
            sides: tuple[TokenBatch, ...] = (batch.rows,)
        else:
            sides = (batch.chosen, batch.rejected) if isinstance(batch, PairBatch) else (batch,)
        width = max(side.tokens.shape[1] for side in sides)
        return Gathered(len(batch), width, sides[0].tokens.device)

    @contextmanager
    def _training(self) -> Iterator[None]:
        # Only adapters' dropout and gradient checkpointing look at the mode; the engine that may
        # share the module never sees it.
        self.head.train()
        try:
            yield
        finally:
            self.head.eval()

    def _checked(
        self,
        terms: LossTerms,
        part: Batch,
        found: tuple[Outputs, ...],
    ) -> Tensor:
        """Each row's summed loss, after making sure that it is finite and has a graph."""
        values = terms.values
        if len(values) != len(part):
            raise LearnerError(
                f"the loss has shape {tuple(values.shape)} for {len(part)} rows; return it "
                "unreduced, with the rows as its first axis"
            )
        if not values.requires_grad:
            raise LearnerError(
                "the loss does not depend on the weights; compute it from the outputs without "
                "detaching them"
            )
        rows = values.detach().reshape(len(values), -1).sum(1)
        if not bool(torch.isfinite(rows).all()):
            self._clear()
            path = state.save_bad_batch(self._bad_batch, self.steps, [part], found, rows)
            raise LearnerError(state.explain_bad_loss(self.steps, part, rows, path))
        return rows

    def _refuse_gradient(self, norm: float) -> None:
        names = non_finite(self._weights)
        path = state.save_bad_batch(self._bad_batch, self.steps, self._unstepped)
        self._clear()
        raise LearnerError(state.explain_bad_gradient(self.steps, norm, names, path))

    def _clear(self) -> None:
        for weight in self._weights.values():
            weight.grad = None
        self._unstepped.clear()
