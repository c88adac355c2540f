"""What must not matter: padding, its side, batch mates, and how an update is cut up.

The whole path is run: hidden states -> output layer -> clipped surrogate -> one reduction. A tiny
recurrent model makes the hidden states, so that a wrong shift or a leak across rows would show.
Losses and gradients of every parameter are compared in fp64.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heed import credit, kl, logprobs, masked
from heed.losses import policy

V, D = 9, 4
LENGTHS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=2, max_size=4)
checked = settings(deadline=None, max_examples=20, derandomize=True)


class Row:
    """One prompt and completion, with the streams of its tokens."""

    def __init__(self, num_prompt: int, num_completion: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        size = num_prompt + num_completion
        self.tokens = torch.randint(V, (size,), generator=generator)
        self.learn = torch.arange(size) >= num_prompt
        if num_completion > 2:
            self.learn[num_prompt + 1] = False  # a forced token
        self.behaviour = -torch.rand(size, dtype=torch.float64, generator=generator) - 1.5
        self.reference = -torch.rand(size, dtype=torch.float64, generator=generator) - 1.5
        self.advantages = torch.randn(size, dtype=torch.float64, generator=generator)


def batch(rows: list[Row], extra: int, side: str) -> dict[str, torch.Tensor]:
    width = max(len(row.tokens) for row in rows) + extra

    def stack(name: str, fill: float) -> torch.Tensor:
        lines = []
        for row in rows:
            line = getattr(row, name)
            gap = line.new_full((width - len(line),), fill)
            lines.append(torch.cat([gap, line] if side == "left" else [line, gap]))
        return torch.stack(lines)

    streams = {name: stack(name, float("nan")) for name in ("behaviour", "reference", "advantages")}
    attend = torch.stack(
        [
            (torch.arange(width) >= width - len(row.tokens))
            if side == "left"
            else (torch.arange(width) < len(row.tokens))
            for row in rows
        ]
    )
    return {"tokens": stack("tokens", 3), "learn": stack("learn", 0), "attend": attend, **streams}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def make(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))

        self.embedding, self.mix, self.head, self.bias = make(V, D), make(D, D), make(V, D), make(V)

    def hidden(self, tokens: torch.Tensor, attend: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(tokens.shape[0], D, dtype=torch.float64)
        states = []
        for t in range(tokens.shape[1]):
            new = torch.tanh(self.embedding[tokens[:, t]] + state @ self.mix)
            state = torch.where(attend[:, t, None], new, state)
            states.append(state)
        return torch.stack(states, 1)


def gradients(
    batches: list[dict[str, torch.Tensor]], by: str, level: str, denominator: float | None
) -> tuple[float, list[torch.Tensor]]:
    model, total = Model(), 0.0
    for one in batches:
        learn = one["learn"]
        selected, index = logprobs.shift_hidden(model.hidden(one["tokens"], one["attend"]), learn)
        flat, _ = logprobs.token_logprobs(
            selected, model.head, model.bias, one["tokens"].flatten()[index], 0.9, chunk=2
        )
        new = logprobs.scatter(flat, learn)
        terms = policy.clipped_surrogate(
            new, one["behaviour"], one["advantages"], learn, level=level
        )
        penalty = torch.where(learn, kl.k3(new, torch.nan_to_num(one["reference"])), 0.0)
        loss = masked.reduce(terms.values + 0.1 * penalty, learn, by, denominator)
        loss.backward()
        total += loss.item()
    return total, [p.grad for p in model.parameters()]


def assert_same(left, right) -> None:
    torch.testing.assert_close(torch.tensor(left[0]), torch.tensor(right[0]), atol=1e-9, rtol=1e-9)
    for a, b in zip(left[1], right[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


def make(lengths: list[tuple[int, int]], seed: int) -> list[Row]:
    return [Row(*pair, seed + i) for i, pair in enumerate(lengths)]


by_and_level = st.sampled_from(
    [("token", "token"), ("sequence", "token"), ("constant", "token"), ("sequence", "sequence")]
)


@checked
@given(LENGTHS, st.integers(0, 999), st.integers(0, 4), by_and_level)
def test_padding_and_its_side_change_nothing(lengths, seed, extra, how):
    rows = make(lengths, seed)
    by, level = how
    denominator = 40.0 if by == "constant" else None
    plain = gradients([batch(rows, 0, "right")], by, level, denominator)
    for side in ("left", "right"):
        assert_same(plain, gradients([batch(rows, extra, side)], by, level, denominator))


@checked
@given(LENGTHS, st.integers(0, 999), by_and_level)
def test_micro_batches_with_the_global_denominator_change_nothing(lengths, seed, how):
    rows = make(lengths, seed)
    by, level = how
    tokens = float(sum(int(row.learn.sum()) for row in rows))
    denominator = {"token": tokens, "sequence": float(len(rows)), "constant": 40.0}[by]
    whole = gradients([batch(rows, 0, "right")], by, level, denominator)
    one_by_one = [batch([row], 0, "left") for row in rows]
    assert_same(whole, gradients(one_by_one, by, level, denominator))
    uneven = [batch(rows[:1], 2, "right"), batch(rows[1:], 0, "left")]
    assert_same(whole, gradients(uneven, by, level, denominator))


@checked
@given(LENGTHS, st.integers(0, 999), st.randoms(use_true_random=False))
def test_batch_mates_and_their_order_change_nothing(lengths, seed, random):
    """A row's logprobs and credit are the same alone and in any company."""
    rows = make(lengths, seed)
    order = list(range(len(rows)))
    random.shuffle(order)
    model = Model()

    def run(members: list[Row]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        one = batch(members, 1, "left")
        learn = one["learn"]
        selected, index = logprobs.shift_hidden(model.hidden(one["tokens"], one["attend"]), learn)
        flat, _ = logprobs.token_logprobs(
            selected, model.head, None, one["tokens"].flatten()[index], chunk=3
        )
        new = logprobs.scatter(flat, learn).detach()
        rewards = kl.reward_penalty(kl.k1(new, one["reference"]), 0.1, learn)
        rewards = rewards + credit.place_score(one["advantages"][:, -1], learn)
        advantages, _ = credit.gae(rewards, one["behaviour"], learn, 0.99, 0.95)
        return [(new[i][learn[i]], advantages[i][learn[i]]) for i in range(len(members))]

    together = run([rows[i] for i in order])
    for place, i in enumerate(order):
        (alone,) = run([rows[i]])
        torch.testing.assert_close(together[place][0], alone[0])
        torch.testing.assert_close(together[place][1], alone[1])


@checked
@given(LENGTHS, st.integers(0, 999))
def test_prompt_and_forced_tokens_reach_the_output_layer_nowhere(lengths, seed):
    """Changing the ids of padding, or the streams of tokens not learned, changes nothing."""
    rows = make(lengths, seed)
    one = batch(rows, 2, "right")
    other = {name: stream.clone() for name, stream in one.items()}
    other["tokens"][~one["attend"]] = 7
    for name in ("behaviour", "advantages"):
        other[name][~one["learn"]] = 123.0
    assert_same(
        gradients([one], "token", "token", None), gradients([other], "token", "token", None)
    )
