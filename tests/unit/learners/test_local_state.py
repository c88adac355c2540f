"""What a learner keeps: weights, optimiser, buffers and masters, to the bit."""

from pathlib import Path

import pytest
import torch

from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead, RewardHead
from heed.settings import LearnerSettings, LoraSettings, OptimSettings

from .conftest import (
    causal,
    make_batch,
    token_loss,
)

OPTIM = OptimSettings(lr=1e-2, schedule="constant", max_grad_norm=0.0)


def learner(head: torch.nn.Module, **how: object) -> LocalLearner:
    given_settings = {"precision": "fp32", "device": "cpu", **how}
    return LocalLearner(head, OPTIM, 10, LearnerSettings(**given_settings))  # type: ignore[arg-type]


def run_steps(trained: LocalLearner, first: int, last: int) -> list[float]:
    norms = []
    for step in range(first, last):
        batch = make_batch(5, step)
        trained.backward(batch, token_loss, batch.num_learned)
        norms.append(trained.step())
    return norms


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("placement", ["torch", "tensorflow"])
def test_a_loaded_learner_goes_on_to_the_bit(
    tmp_path: Path, precision: str, placement: str
) -> None:
    optim = OptimSettings(lr=1e-2, eps_placement=placement, weight_decay=0.1, eps=1e-5)
    how = LearnerSettings(precision=precision, device="cpu")
    whole = LocalLearner(PolicyHead(causal()), optim, 8, how)
    norms = run_steps(whole, 0, 8)
    begun = LocalLearner(PolicyHead(causal()), optim, 8, how)
    run_steps(begun, 0, 4)
    begun.save(tmp_path / "s")
    resumed = LocalLearner(PolicyHead(causal(seed=9)), optim, 8, how)
    resumed.load(tmp_path / "s")
    assert resumed.steps == 4
    assert resumed.learning_rate == begun.learning_rate
    assert run_steps(resumed, 4, 8) == norms[4:]
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name
    for name, master in whole._weights.items():
        assert torch.equal(master, resumed._weights[name]), name


def test_a_learner_can_be_saved_before_its_first_step(tmp_path: Path) -> None:
    learner(PolicyHead(causal())).save(tmp_path)
    other = learner(PolicyHead(causal(seed=1)))
    other.load(tmp_path)
    fresh = learner(PolicyHead(causal()))
    assert run_steps(other, 0, 2) == run_steps(fresh, 0, 2)


def test_buffers_that_a_head_keeps_are_saved_too(tmp_path: Path) -> None:
    head = RewardHead(causal().base_model)
    head.set_scale(2.5, -1.0)
    learner(head).save(tmp_path)
    other = RewardHead(causal(1).base_model)
    learner(other).load(tmp_path)
    assert (float(other.gain), float(other.bias)) == (2.5, -1.0)


def test_weights_are_views() -> None:
    trained = learner(PolicyHead(causal()))
    weights = trained.weights()
    before = {name: w.clone() for name, w in weights.items()}
    run_steps(trained, 0, 1)
    assert any(not torch.equal(before[name], w) for name, w in weights.items())


def test_adapters_alone_are_trained_and_saved(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `peft` is not installed")
    from safetensors.torch import load_file

    from heed.models.adapters import add_lora

    def adapted(seed: int) -> LocalLearner:
        return learner(PolicyHead(add_lora(causal(), LoraSettings(r=2, alpha=4.0), seed=seed)))

    trained = adapted(0)
    base = {n: w.clone() for n, w in trained.weights().items() if "lora" not in n}
    run_steps(trained, 0, 2)
    for name, weight in base.items():
        assert torch.equal(weight, trained.weights()[name]), name
    trained.save(tmp_path)
    assert all("lora" in name for name in load_file(tmp_path / "weights.safetensors"))
    other = adapted(1)
    other.load(tmp_path)
    assert run_steps(other, 2, 4) == run_steps(trained, 2, 4)


def test_widened_weights_are_the_masters_and_can_be_trained_on() -> None:
    how = LearnerSettings(precision="bf16", device="cpu")
    trained = LocalLearner(PolicyHead(causal()), OPTIM, 8, how)
    run_steps(trained, 0, 3)
    rounded = {name: w.clone() for name, w in trained.weights().items()}
    trained.widen()
    assert trained.dtype == torch.float32
    for name, weight in trained.weights().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight.bfloat16(), rounded[name])
    assert any(not torch.equal(w, rounded[n].float()) for n, w in trained.weights().items())
    before = trained.weights()["causal.model.norm.weight"].clone()
    run_steps(trained, 3, 4)
    assert not torch.equal(before, trained.weights()["causal.model.norm.weight"])
    frozen = LocalLearner.frozen(PolicyHead(causal()), how)
    frozen.widen()
    assert all(w.dtype == torch.float32 for w in frozen.weights().values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_averaged_weights_follow_their_formula_and_are_what_is_kept(
    tmp_path: Path, precision: str
) -> None:
    decay = 0.75
    optim = OPTIM.model_copy(update={"ema_decay": decay})
    how = LearnerSettings(precision=precision, device="cpu")
    averaged = LocalLearner(PolicyHead(causal()), optim, 8, how)
    plain = LocalLearner(PolicyHead(causal()), OPTIM, 8, how)
    expected = {n: w.detach().double().clone() for n, w in plain._weights.items()}
    for step in range(5):
        assert run_steps(averaged, step, step + 1) == run_steps(plain, step, step + 1), (
            "the average changes how the weights are trained"
        )
        for name, weight in plain._weights.items():
            expected[name] = decay * expected[name] + (1 - decay) * weight.detach().double()
        if step == 2:
            averaged.save(tmp_path)
            averaged = LocalLearner(PolicyHead(causal(seed=9)), optim, 8, how)
            averaged.load(tmp_path)
    averaged.widen()
    for name, weight in averaged.weights().items():
        if name in expected:
            torch.testing.assert_close(weight.double(), expected[name], rtol=1e-6, atol=1e-7)
            assert not torch.equal(weight, plain._weights[name])
