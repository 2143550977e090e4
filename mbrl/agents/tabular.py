"""Learning in a table of action values, where observations and actions are indices.

The updates are in `mbrl.tabular`; here they meet the loop that every agent is driven by. No torch
is imported until an agent is made, so the command's help is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbrl.agents.schedules import with_discount
from mbrl.tabular.config import TabularConfig
from planners.checks import Share

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator

    from mbrl.tabular import Dyna, TabularLearner
    from mbrl.types import Metrics, Spec, Transition


@dataclass(frozen=True, kw_only=True)
class Config(TabularConfig):
    """Q-learning, Sarsa, Monte Carlo and their kin on a table of values."""

    discount: Share | None = None
    """γ, in [0, 1]. If unset, that of the environment, or 0.99 if it defines none."""

    @classmethod
    def suited(cls, spec: Spec) -> Config:
        """The defaults, which suit every finite environment."""
        return cls()


class Tabular:
    """An `Agent` whose learner holds a table; it learns from each step as it is observed.

    Acting and learning have generators of their own, so that learners which draw more or fewer
    numbers act by the same ones.

    Args:
        learner: what acts and learns.
        acting, learning: draw exploration; and the table to update, or imagined steps.
        config: what the learner was made from, for a run's folder.

    Raises:
        ValueError: several environments, and a learner that needs steps in their order.
    """

    def __init__(
        self,
        learner: TabularLearner | Dyna,
        *,
        acting: Generator,
        learning: Generator,
        config: Any = None,
    ) -> None:
        self.learner, self.config = learner, config
        self._acting, self._learning = acting, learning

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions (N,) for states (N,): ε-greedy if `explore`, else greedy."""
        import numpy as np

        if len(obs) > 1 and not self.learner.any_order:
            raise ValueError(
                f"{len(obs)} environments: this learner needs the steps of an episode one after "
                "another, so it takes one environment; one-step targets other than sarsa take more"
            )
        each = (self.learner.act(s, explore=explore, generator=self._acting) for s in obs.tolist())
        return np.fromiter(each, dtype=np.int64, count=len(obs))

    def observe(self, step: Transition) -> None:
        """Learn from N steps, one after another.

        Raises:
            ValueError: a state or action that the table lacks, or a reward that is not finite.
        """
        columns = (column.tolist() for column in step)
        for state, action, reward, after, terminated, truncated in zip(*columns, strict=True):
            self.learner.observe(
                state, action, reward, after, terminated, truncated, generator=self._learning
            )

    def give_up(self, places: np.ndarray) -> None:
        """Steps of episodes that do not go on are not learned from later; see `Resumed`."""
        if places.any():
            self.learner.give_up()

    def update(self) -> Metrics:
        """{}: `observe` has learned already."""
        return {}

    def player(self, *, generator: Generator) -> Tabular:
        """Plays with this table and randomness of its own."""
        return Tabular(self.learner, acting=generator, learning=generator, config=self.config)

    def reset(self, begins: np.ndarray) -> None:
        """Nothing is kept from one episode to the next."""

    def state_dict(self) -> dict[str, Any]:
        """The learner and the generators."""
        return {
            "learner": self.learner.state_dict(),
            "acting": self._acting.get_state(),
            "learning": self._learning.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of a learner with another table.
        """
        self.learner.load_state_dict(state["learner"])
        self._acting.set_state(state["acting"].cpu())
        self._learning.set_state(state["learning"].cpu())


def make(spec: Spec, config: Config, *, generator: Generator, device: str = "cpu") -> Tabular:
    """An agent with a `TabularLearner`; it is in numpy, so `device` means nothing to it.

    Raises:
        ValueError: observations or actions that are not indices from 0.
    """
    from mbrl.tabular import TabularLearner

    own = with_discount(config, spec, 0.99)
    return over_table(TabularLearner(*table_of(spec), own), config, generator)


def table_of(spec: Spec) -> tuple[int, int]:
    """How many states and actions there are.

    Raises:
        ValueError: observations or actions that are not indices from 0.
    """
    from gymnasium.spaces import Discrete

    for name, space in (("observations", spec.obs), ("actions", spec.action)):
        if not isinstance(space, Discrete) or space.start != 0:
            raise ValueError(f"a table needs {name} that are indices from 0, not {space}")
    spaces: Any = spec.obs, spec.action
    return int(spaces[0].n), int(spaces[1].n)


def over_table(learner: TabularLearner | Dyna, config: Any, generator: Generator) -> Tabular:
    """The agent of a learner, with the two generators that it needs, both from one."""
    import torch

    own = int(torch.randint(2**62, (), generator=generator))
    learning = torch.Generator().manual_seed(own)
    return Tabular(learner, acting=generator, learning=learning, config=config)
