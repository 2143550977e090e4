"""Models for the tests of tree search."""

import torch

from planners.mcts import Evaluation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_model(table):
    """A table of `golden_mctx.problem` as root and step."""
    following = torch.tensor(table["next"])
    reward, discount, logits, value = (
        torch.tensor(table[k], dtype=torch.float32)
        for k in ("reward", "discount", "logits", "value")
    )

    def of(state):
        return {"value": value[state], "logits": logits[state]}

    def step(state, action):
        here = state[:, 0].long()
        after = following[here, action]
        ends = discount[here, action] == 0
        return Evaluation(
            after[:, None].float(), reward[here, action], terminated=ends, **of(after)
        )

    start = torch.tensor(table["roots"])
    invalid = torch.tensor(table["invalid"]) if "invalid" in table else None
    root = Evaluation(start[:, None].float(), torch.zeros(len(start)), invalid=invalid, **of(start))
    return root, step


def world(states=6, actions=3, outcomes=3, discount=0.8):
    """A random MDP that returns all outcomes; its last state is terminal.

    Returns root, step, options of a search, V* and Q* of the roots.
    """
    draw = seeded(5)
    after = torch.randint(states, (states, actions, outcomes), generator=draw)
    chance = torch.rand(states, actions, outcomes, generator=draw)
    chance[:, 0, 2] = 0  # has only two outcomes
    chance = chance / chance.sum(-1, keepdim=True)
    pay = torch.rand(states, actions, outcomes, generator=draw)
    guess = torch.rand(states, generator=draw)

    def step(state, action):
        here = state[:, 0].long(), action
        then = after[here]
        return Evaluation(
            then[..., None].float(), pay[here], guess[then], terminated=then == states - 1,
            chance=chance[here],
        )  # fmt: skip

    start = torch.arange(states - 1)
    root = Evaluation(start[:, None].float(), guess[start], guess[start], torch.zeros(5, actions))
    values, ends = torch.zeros(states), torch.arange(states) == states - 1
    for _ in range(200):
        q = (chance * (pay + discount * values[after])).sum(-1)
        values = q.max(-1).values.masked_fill(ends, 0)
    options = {"outcomes": outcomes, "discount": discount, "generator": seeded()}
    return root, step, options, values[start], q[start]


def doubtful(step):
    """A model of states (B, 1) as `step`, whose values have the epistemic variance 4 + state."""

    def doubting(state, action):
        found = step(state, action)
        return found._replace(variance=4 + found.state[..., 0])

    return doubting
