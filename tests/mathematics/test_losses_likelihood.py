"""Negative log-likelihood: weights, gradients, and tokens that must not learn."""

import pytest
import torch

from heed import masked
from heed.errors import DataError
from heed.losses.likelihood import nll

LEARN = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)


def logprobs() -> torch.Tensor:
    values = torch.tensor([[-9.0, -1.0, -2.0], [-9.0, -9.0, -4.0]], dtype=torch.float64)
    return values.requires_grad_()


def test_values_by_hand():
    assert nll(logprobs(), LEARN).tolist() == [[0, 1, 2], [0, 0, 4]]
    by_row = nll(logprobs(), LEARN, torch.tensor([2.0, 0.5]))
    assert by_row.tolist() == [[0, 2, 4], [0, 0, 2]]
    by_token = nll(logprobs(), LEARN, torch.tensor([[9.0, 0.0, 1.0], [9.0, 9.0, 0.25]]))
    assert by_token.tolist() == [[0, 0, 2], [0, 0, 1]]


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0]), torch.rand(2, 3)])
def test_gradients(weights):
    assert torch.autograd.gradcheck(lambda x: nll(x, LEARN, weights), logprobs())


def test_only_learned_tokens_have_a_gradient():
    """d/dlogprob of the token mean is -1/3 on the 3 learned tokens, and 0 on forced ones."""
    values = logprobs()
    weights = torch.where(LEARN, 1.0, float("nan"))
    masked.reduce(nll(values, LEARN, weights), LEARN, "token").backward()
    torch.testing.assert_close(values.grad, -LEARN.double() / 3)


def test_weights_that_fit_nothing_are_refused():
    with pytest.raises(DataError, match="weights have shape"):
        nll(logprobs(), LEARN, torch.ones(3))
