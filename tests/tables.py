"""Tabular learners in the loop that every agent is driven by."""

import torch

from mbrl.agents.tabular import Tabular
from mbrl.training import Episodes, collect, vector


def learned(env, learner, *, episodes, seed=0):
    """Learn from whole episodes; yields the return of each as it ends."""
    acting, learning = (torch.Generator().manual_seed(2 * seed + i) for i in range(2))
    agent, running = Tabular(learner, acting=acting, learning=learning), Episodes(seed)
    for step in collect(agent, vector(env), running):
        agent.observe(step)
        if running.over[0]:
            yield float(running.returns[0])
            if running.begun == episodes:
                return


def learn(env, learner, *, episodes, seed=0):
    """The returns of that many episodes, learned from."""
    return list(learned(env, learner, episodes=episodes, seed=seed))
