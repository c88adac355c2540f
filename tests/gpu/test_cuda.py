"""On a CUDA device: what the processor computes, and captured decoding.

    pytest -m gpu tests/gpu

Never the only proof of a claim: the mechanisms are tested without a device as well.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import POLICY, raw_prompts, renderer, shaken, small
from tests.tiny import Tiny, run_stage
from tests.unit.models.test_packing import rows as packed_rows

from heed import logprobs
from heed.data.batch import collate
from heed.engines.local import LocalEngine
from heed.learners.local import LocalLearner
from heed.models import attention
from heed.models.heads import PolicyHead
from heed.records import Completion, Sampling
from heed.settings import LearnerSettings, OptimSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
PROMPTS = raw_prompts([12, 3, 30, 12, 7, 21])
SAMPLING = Sampling(max_tokens=24, n=4, seed=5)


def engine(model: Any, graphs: bool, max_rows: int = 64) -> LocalEngine:
    return LocalEngine(
        model, renderer(), policy=POLICY, max_rows=max_rows, path="torch", cuda_graphs=graphs
    )


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [c for group in groups for c in group]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("max_rows", [3, 64])
@pytest.mark.parametrize("top_k", [0, 6])
def test_captured_steps_draw_the_tokens_of_eager_ones(
    architecture: str, max_rows: int, top_k: int
) -> None:
    model = shaken(architecture).cuda()
    sampling = SAMPLING.model_copy(update={"top_k": top_k})
    captured = engine(model, True, max_rows)
    expected = flat(engine(model, False, max_rows).generate(PROMPTS, sampling))
    for _ in range(2):
        found = flat(captured.generate(PROMPTS, sampling))
        assert [c.tokens for c in found] == [c.tokens for c in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    assert captured._captured.why_eager == ""
    assert captured._captured.num_captured > 0


def test_larger_calls_are_captured_as_smaller_ones_were() -> None:
    """Graphs over the smaller slots are forgotten, and with them the memory that they shared."""
    model = shaken().cuda()
    captured = engine(model, True)
    captured.generate(PROMPTS[:1], SAMPLING)
    assert captured._captured.num_captured > 0
    found = flat(captured.generate(PROMPTS, SAMPLING))
    expected = flat(engine(model, False).generate(PROMPTS, SAMPLING))
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    assert captured._captured.why_eager == ""
    assert captured._captured.num_captured > 0


def test_captured_steps_follow_weights_that_are_trained() -> None:
    model = shaken().cuda()
    captured = engine(model, True)
    captured.generate(PROMPTS, SAMPLING)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.8)
    found = flat(captured.generate(PROMPTS, SAMPLING))
    expected = flat(engine(model, False).generate(PROMPTS, SAMPLING))
    assert [c.tokens for c in found] == [c.tokens for c in expected]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["padded", "packed", "auto"])
def test_the_sampler_and_the_learner_see_one_distribution(precision: str, layout: str) -> None:
    model = small(sharpen=3.0, hidden_size=64)
    settings = LearnerSettings(device="cuda", precision=precision, layout=layout)
    learner = LocalLearner(PolicyHead(model), OptimSettings(lr=1e-4), 10, settings)
    found = flat(engine(model, True).generate(PROMPTS, SAMPLING))
    batch = collate(rows(found))
    mine = learner.forward(batch).logprobs[batch.learn]
    sampled = torch.tensor([value for c in found for value in c.logprobs])
    gap = (mine.cpu() - sampled).abs()
    # bf16 rounds activations; both sides round the same way but in other orders.
    assert float(gap.max()) < (1e-4 if precision == "fp32" else 0.3)
    assert float(gap.mean()) < (1e-5 if precision == "fp32" else 0.02)


def rows(completions: list[Completion]) -> list[Any]:
    by_id = {prompt.id: prompt for prompt in PROMPTS}
    return [renderer().completion_row(by_id[c.prompt_id], c) for c in completions]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", [2**24, 0])
def test_the_output_layer_has_the_gradients_of_the_plain_one(
    dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "SAVE_LIMIT", limit)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(70, 48, generator=generator).to("cuda", dtype).requires_grad_()
    weight = (0.3 * torch.randn(330, 48, generator=generator)).to("cuda", dtype).requires_grad_()
    targets = torch.randint(0, 330, (70,), generator=generator).cuda()
    pull = torch.linspace(-1, 2, 70, device="cuda")
    found, entropy = logprobs.token_logprobs(
        hidden, weight, None, targets, chunk=32, with_entropy=True
    )
    mine = torch.autograd.grad((found * pull).sum() + entropy.sum(), (hidden, weight))
    wide = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    logits = wide[0] @ wide[1].t()
    plain = logprobs.from_logits(logits, targets)
    theirs = torch.autograd.grad((plain * pull).sum() + logprobs.entropy(logits).sum(), wide)
    assert float((found.detach() - plain.detach()).abs().max()) < 1e-4
    for one, other in zip(mine, theirs, strict=True):
        error = float((one - other).norm() / other.norm())
        assert error < (1e-4 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "online", "preference", "unpaired"])
def test_a_stage_computes_what_the_processor_computes(
    tiny: Tiny, tmp_path: Path, stage: str
) -> None:
    def run(device: str, precision: str = "fp32") -> list[dict[str, Any]]:
        settings = {"precision": precision, "device": device}
        config = getattr(tiny, f"{stage}_config")(tmp_path / (device + precision), learner=settings)
        return run_stage(config).metrics()

    there, here = run("cuda"), run("cpu")
    assert len(there) == len(here)
    for key in ("loss", "policy_loss", "objective/scores", "grad_norm", "eval/loss", "eval/proxy"):
        pairs = [(a[key], b[key]) for a, b in zip(there, here, strict=True) if key in a]
        for found, expected in pairs[:2]:
            assert found == pytest.approx(expected, rel=2e-2, abs=2e-3), key
    rounded = run("cuda", "bf16")
    assert len(rounded) == len(here)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_one_kernel_attends_over_rows_of_any_length(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients are nearer to fp32 than twice those of blocks are."""
    if attention.rows_kernel() is None:
        pytest.skip("this version of torch has no attention over rows of any length")
    plain = small(architecture, 2.0, hidden_size=64)
    attention.adopt_attention(plain)
    batch = collate(packed_rows([(9, [3, 7, 1]), (2, [4, 4]), (6, [5]), (12, [2, 8])]))
    called: list[int] = []
    kernel = attention._attend_spans
    monkeypatch.setattr(attention, "_attend_spans", lambda *args: called.append(1) or kernel(*args))
    results = {}
    for name in ("exact", "blocks", "spans"):
        model = copy.deepcopy(plain).cuda()
        head = PolicyHead(model if name == "exact" else model.bfloat16())
        if name == "blocks":
            monkeypatch.setattr(attention, "rows_kernel", lambda: None)
        found = head.outputs(batch.to("cuda"), layout="packed")["logprobs"]
        assert found is not None
        (
            found * torch.linspace(-1, 1, found.numel(), device="cuda").view_as(found)
        ).sum().backward()
        grads = [p.grad.float().flatten() for p in head.parameters() if p.grad is not None]
        results[name] = (found.detach().float().cpu().flatten(), torch.cat(grads).cpu())
        if name == "blocks":
            monkeypatch.undo()
            monkeypatch.setattr(
                attention, "_attend_spans", lambda *args: called.append(1) or kernel(*args)
            )
    assert called
    for place in (0, 1):
        exact, blocks, spans = (results[name][place] for name in ("exact", "blocks", "spans"))
        assert float((spans - exact).norm()) < 2 * float((blocks - exact).norm()) + 1e-6


def test_a_run_goes_on_from_its_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"precision": "bf16", "device": "cuda"}
    whole = {"folder": str(tmp_path / "run"), "seed": 1, "checkpoint_seconds": 0}
    run_stage(tiny.sft_config(tmp_path / "run", run=whole, learner=settings))
    again = {**whole, "resume": True}
    assert run_stage(tiny.sft_config(tmp_path / "run", run=again, learner=settings)).metrics()
