"""Record the losses of TRL's XPO and Nash-MD trainers (1.12.0, the last version that has them).

    PYTHONPATH=.bench/trl-1.12:. .bench/venv/bin/python -m benchmarks.record_comparisons

`_compute_losses` of both trainers runs as it is, on log-probabilities made here, in float64; what
is kept is each row's loss and the gradient of its log-probabilities.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

FILE = Path(__file__).resolve().parents[1] / "tests/parity/fixtures/trl_comparisons.json"
BETA, ALPHA = 0.1, 0.05
LENGTHS = (1, 4, 3, 5)


def made(seed: int) -> Tensor:
    """Log-probabilities [4, 5], 0 beyond each row's length."""
    generator = torch.Generator().manual_seed(seed)
    found = -3.0 * torch.rand(4, 5, generator=generator, dtype=torch.float64)
    return found * (torch.arange(5) < torch.tensor(LENGTHS)[:, None])


def xpo(loss_type: str) -> dict[str, Any]:
    """Loss and gradients of XPO; the policy's side is chosen in the first and the last pair."""
    from trl.experimental.xpo.xpo_trainer import XPOTrainer

    ours, rival, rival_ref, ours_ref = (made(seed) for seed in range(4))
    own = SimpleNamespace(beta=BETA, alpha=ALPHA, args=SimpleNamespace(loss_type=loss_type))
    chosen = torch.tensor([True, False, False, True])
    ours.requires_grad_()
    rival.requires_grad_()
    loss, dpo, bonus = XPOTrainer._compute_losses(own, ours, rival, rival_ref, ours_ref, chosen)
    loss.backward()
    return {
        "chosen": chosen.tolist(),
        "loss": (dpo + bonus).tolist(),
        "gradients": [ours.grad.tolist(), rival.grad.tolist()],  # type: ignore[union-attr]
    }


def nash_md() -> dict[str, Any]:
    """Loss and gradient of Nash-MD."""
    from trl.experimental.nash_md.nash_md_trainer import NashMDTrainer

    ours, ours_ref = made(0), made(3)
    probability = torch.tensor([0.9, 0.2, 0.5, 0.7], dtype=torch.float64)
    ours.requires_grad_()
    own = SimpleNamespace(beta=BETA)
    loss, _, kl = NashMDTrainer._compute_losses(own, ours, ours_ref, probability)
    loss.backward()
    return {
        "probability": probability.tolist(),
        "loss": loss.item(),
        "kl": kl.tolist(),
        "gradient": ours.grad.tolist(),  # type: ignore[union-attr]
    }


def main() -> None:
    """Write the file."""
    import trl

    out = {
        "versions": {
            "trl": trl.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "beta": BETA,
        "alpha": ALPHA,
        "lengths": LENGTHS,
        "logprobs": [made(seed).tolist() for seed in range(4)],
        "xpo": {name: xpo(name) for name in ("sigmoid", "ipo")},
        "nash_md": nash_md(),
    }
    FILE.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
