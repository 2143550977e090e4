"""MPC through any model that can take a step, such as the true simulator or an ensemble.

`Controller` acts in one environment, `Pipelined` plans ahead of a robot, and `Controllers` acts in
N environments at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mbrl.agents.guide import Guide, proposals
from mbrl.agents.mpc import MPCConfig, planner_kinds
from mbrl.checks import check_state
from mbrl.imagination import score_fn, state_ahead
from mbrl.parallel import threads_beside
from mbrl.types import Dynamics, Resampled, RewardFn, SmoothDynamics, TerminatedFn
from planners import MPC, MPCState, Plan, ScoreFn, Smooth, maximised

KINDS = planner_kinds()
"""Every planner that can drive a robot, by name."""


class Controller:
    """MPC through a model: what acts, in training and in evaluation.

    Args:
        model: the dynamics.
        mpc: planner and replanning.
        config: particles, propagation, objective, penalty and discount.
        reward: the known reward, or None for the model's own.
        terminated: the known termination, or None for the model's own.
        state_of: the model state (S,) of an observation. If None it is the model's
            `encode`, which is told the state and the action before, so that a model with memory
            filters. The true simulator needs one that reads the environment's whole state.
        guide: a learner that values where plans end and proposes plans, by `config`.
        generator: draws candidates, particles and noise.

    Raises:
        ValueError: a planner that maximises neither a score nor a smooth model; one that needs
            derivatives (iLQR) with a model that offers none, or with a discount, penalty or
            terminal weight; noise with a planner without upper bounds; a model whose settings say
            that it learns no reward, and none given.

    Attributes:
        state: the current plan and how much of it is spent.
        model_state: (S,) at the last `act`, None where an episode begins.
        last_action: (A,) taken there.
        plans, evaluated, rejected: counts since the last `reset`.
        expected: mean score of the plans since the last `reset`.
        late: plans since the last `reset` that came too late; only `Pipelined` has any.
        paced: whether it plans while time goes on, and so needs `act` called in real time.
        seconds: of each search since the last `reset`.
        last_round: state (S,), candidates (N, H, A) and scores (N,) of the last round of search.
    """

    late = 0
    paced = False
    seconds: list[float]
    model_state: Tensor | None
    last_action: Tensor | None
    last_round: tuple[Tensor, Tensor, Tensor] | None

    def __init__(
        self,
        model: Dynamics,
        mpc: MPC,
        config: MPCConfig,
        *,
        reward: RewardFn | None,
        terminated: TerminatedFn | None,
        state_of: Callable[[Any], Tensor] | None = None,
        guide: Guide | None = None,
        generator: Generator,
    ) -> None:
        self.guide = guide
        self.model, self.mpc, self.config = model, mpc, config
        self.reward, self.terminated, self.generator = reward, terminated, generator
        self.state_of = self._encode if state_of is None else state_of
        self._threads = threads_beside(model)
        self._maximised = _maximised(self)
        if config.noise and not hasattr(mpc.planner, "high"):
            raise ValueError(f"noise: {type(mpc.planner).__name__} has no upper bounds, `high`")
        self.reset()

    def reset(self) -> None:
        """Forget the plan: the next action starts an episode."""
        self.state = MPCState()
        self.model_state = self.last_action = None
        self.plans = self.evaluated = self.rejected = 0
        self.expected = 0.0
        self.seconds, self.last_round = [], None

    def warm_up(self, obs: np.ndarray) -> None:
        """Make a search and drop its plan, so that the first real search is as fast as the others.

        Leaves the controller as it was, the generator included.
        """
        drawn = self.generator.get_state()
        with self._threads():
            self.mpc.act(
                lambda: self.score(self.state_of(obs)), MPCState(), generator=self.generator
            )
        self.generator.set_state(drawn)

    def close(self) -> None:
        """Release what the controller holds; here nothing."""

    def score(self, state: Tensor) -> ScoreFn | Smooth:
        """What the planner maximises from a model state (S,): a score, or a smooth model.

        A model whose members are samples draws them anew, once for the whole search.
        """
        if isinstance(self.model, Resampled):
            self.model.resample(generator=self.generator)
        return self._maximised(state)

    def _plan_score(self, state: Tensor) -> ScoreFn:
        config, guide = self.config, self.guide
        value = None
        if guide is not None and config.terminal_value:
            value = guide.value if guide.of_states else self._value_of_decoded
        inner = score_fn(
            self.model,
            state,
            particles=config.particles,
            propagation=config.propagation,
            objective=config.objective,
            horizon=self.mpc.planner.horizon * self.mpc.action_repeat,
            discount=config.discount if value is None or guide is None else guide.discount,
            reward=self.reward,
            terminated=self.terminated,
            penalty=config.penalty,
            terminal=config.terminal,
            value=value,
            generator=self.generator,
        )

        def score(actions: Tensor) -> Tensor:
            scores = inner(actions)
            if len(actions) > 1:  # one alone is the mean, asked for its score
                self.last_round = state, actions, scores
            return scores

        return score

    def _value_of_decoded(self, state: Tensor) -> Tensor:
        assert self.guide is not None
        return self.guide.value(self.model.decode(state))

    @torch.no_grad()
    def _encode(self, obs: np.ndarray) -> Tensor:
        low = self.mpc.planner.low
        shown = torch.as_tensor(obs, device=low.device)
        if shown.ndim != 3:  # images stay as they are
            shown = shown.to(low.dtype)
        return self.model.encode(shown, state=self.model_state, action=self.last_action)

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """The next action (A,), replanning where it is due."""
        before, began = self.state.plan, time.perf_counter()
        state = self.state_of(obs)
        with self._threads():
            action, self.state = self.mpc.act(
                lambda: self.score(state),
                self.state,
                guesses=self._guesses(state),
                generator=self.generator,
            )
        plan = self.state.plan
        if explore and self.config.noise and plan is not None:
            action = self._noisy(action, plan)
        self.model_state, self.last_action = state, action
        if plan is not None and plan is not before:
            self._count(plan, time.perf_counter() - began)
        return action.cpu().numpy()

    def _noisy(self, action: Tensor, plan: Plan) -> Tensor:
        """The action with the noise of the settings, clipped into the box."""
        planner: Any = self.mpc.planner
        noise = torch.randn(action.shape, generator=self.generator, device=self.generator.device)
        if self.config.noise == "search":
            index = (self.state.cursor - 1) // self.mpc.action_repeat
            std = plan.std[index * len(plan.std) // len(plan.actions)]
        else:
            std = 0.5 * self.config.noise * (planner.high - planner.low)
        return torch.addcmul(action, std, noise.to(action)).clamp(planner.low, planner.high)

    def _guesses(self, state: Tensor) -> Callable[[], Tensor] | None:
        """What returns the plans (M, H, A) that the policy of the guide proposes."""
        guide, count = self.guide, self.config.proposals
        if guide is None or not count:
            return None
        repeat = self.mpc.action_repeat

        def guesses() -> Tensor:
            horizon = self.mpc.planner.horizon * repeat
            found = proposals(
                guide, self.model, state, count=count, horizon=horizon, generator=self.generator
            )
            return found[:, ::repeat]

        return guesses

    def _count(self, plan: Plan, seconds: float) -> None:
        self.seconds.append(seconds)
        self.plans += 1
        self.evaluated += plan.evaluated
        self.rejected += plan.rejected
        self.expected += (float(plan.score) - self.expected) / self.plans

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        plan = None if self.state.plan is None else self.state.plan._asdict()
        names = ("plans", "evaluated", "rejected", "expected")
        kept = {"model_state": self.model_state, "last_action": self.last_action}
        counted = {name: getattr(self, name) for name in names}
        return {"plan": plan, "cursor": self.state.cursor} | kept | counted

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: it is not of these types, or of other shapes; nothing is changed then.
        """
        counts = {"plans": 0, "evaluated": 0, "rejected": 0, "cursor": 0}
        tensors = {"model_state": None, "last_action": None}
        check_state(state, {"plan": None, "expected": 0.0} | tensors | counts, "controller")
        low = self.mpc.planner.low
        plan = None if state["plan"] is None else _plan_of(state["plan"], low)
        for name in ("model_state", "last_action"):
            if state[name] is not None:
                size = low.new_empty(0) if name == "model_state" else low
                check_state(state[name], size, f"controller/{name}")
        most = 0 if plan is None else len(plan.actions) * self.mpc.action_repeat
        if min(state[name] for name in counts) < 0 or (plan and state["cursor"] > most):
            raise ValueError("controller: a count is out of range")
        self.state = MPCState(plan, state["cursor"])
        for name in ("plans", "evaluated", "rejected", "expected"):
            setattr(self, name, state[name])
        for name in tensors:
            setattr(self, name, None if state[name] is None else state[name].to(low.device))


def _plan_of(state: Any, low: Tensor) -> Plan:
    """The plan in a saved state, for actions with the lower bounds `low` (A,)."""
    rows = low.new_empty(0, len(low))
    counts = {"evaluated": 0, "rejected": 0, "rounds": 0}
    # a score and a sampling distribution may be infinite, so only the actions must be finite
    free = dict.fromkeys(("score", "mean", "std", "elites"))
    check_state(state, {"actions": rows} | free | counts, "controller/plan")
    for name, ndim in (("score", 0), ("mean", 2), ("std", 2), ("elites", 3)):
        found = state[name]
        fits = isinstance(found, Tensor) and found.dtype == low.dtype and found.ndim == ndim
        if not fits or (ndim and found.shape[-1] != len(low)):
            raise ValueError(f"controller/plan/{name} is not a tensor of a plan for these actions")
    moved: dict[str, Any] = {
        name: value.to(low.device) if isinstance(value, Tensor) else value
        for name, value in state.items()
    }
    return Plan(**moved)


class Pipelined(Controller):
    """Plans in a worker while the robot carries out the last plan.

    A search that starts at step t is over some steps later. It therefore starts from where the
    actions already decided on will have led by then, as the model predicts, and its plan takes
    over at that step. A plan that comes late is carried out from where it should be by then;
    until it comes the last plan goes on, and at its end its last action is held.

    Args:
        control_step: seconds between two calls of `act`.
        delay: steps that a search is given; None takes as many as the last one needed.
        worker: search in a thread. Without it, `act` searches, and the plan takes over `delay`
            steps later: the same on every machine.

    Attributes:
        late: plans since the last `reset` that came after the step they were made for.

    Raises:
        ValueError: an open-loop controller (replan_every 0), a delay below one or missing without
            a worker, a control step not over 0.
    """

    def __init__(
        self,
        *args: Any,
        control_step: float,
        delay: int | None = None,
        worker: bool = True,
        **kwargs: Any,
    ) -> None:
        if not control_step > 0:
            raise ValueError(f"control_step must be > 0 s, got {control_step}")
        if delay is None and not worker:
            raise ValueError("without a worker the delay must be given")
        if delay is not None and delay < 1:
            raise ValueError(f"delay must be >= 1 step, got {delay}")
        self.control_step, self.delay, self.worker = control_step, delay, worker
        self.paced = worker
        self._pool = ThreadPoolExecutor(1, "mbrl-planner") if worker else None
        self._pending: Future[tuple[Plan, float]] | None = None
        super().__init__(*args, **kwargs)
        if self.mpc.replan_every == 0:
            raise ValueError("replan_every 0 plans once, so it cannot plan ahead; take 1 or more")

    def reset(self) -> None:
        """Forget the plan: the next action starts an episode."""
        if self._pending is not None:
            self._pending.exception()  # its result is of the last episode
        self._pending = None
        self._step = self._begun = self._takes_over = self.late = 0
        super().reset()

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """The next action (A,); only the episode's first call waits for a search."""
        now, repeat = self._step, self.mpc.action_repeat
        plan, state = self.state.plan, self.state_of(obs)
        if plan is None:
            plan = self._adopt(self._search(state, [], None, 0), now)
        elif self._pending is not None and now >= self._takes_over and self._pending.done():
            plan = self._adopt(self._pending.result(), self._takes_over)
            self.late += now > self._takes_over
            self._pending = None
        if self._pending is None and (now - self._begun) // repeat + 1 >= self.mpc.replan_every:
            ahead = self.delay or max(1, math.ceil(self.seconds[-1] / self.control_step))
            decided = [self._action(plan, now + k) for k in range(ahead)]
            job = (state, decided, plan, (now + ahead - self._begun) // repeat)
            self._takes_over = now + ahead
            if self._pool is not None:
                self._pending = self._pool.submit(self._search, *job)
            else:
                self._pending = Future()
                self._pending.set_result(self._search(*job))
        self._step += 1
        self.model_state, self.last_action = state, self._action(plan, now)
        return self.last_action.cpu().numpy()

    def close(self) -> None:
        """Wait for the worker and end it."""
        if self._pool is not None:
            self._pool.shutdown()

    def _search(
        self, state: Tensor, decided: list[Tensor], last: Plan | None, spent: int
    ) -> tuple[Plan, float]:
        """A plan from where the actions decided on lead, and the seconds it took."""
        began = time.perf_counter()
        with self._threads():
            if decided:
                actions = torch.stack(decided)
                state = state_ahead(self.model, state, actions, generator=self.generator)
            plan = self.mpc.search(
                lambda: self.score(state),
                last,
                spent,
                guesses=self._guesses(state),
                generator=self.generator,
            )
        return plan, time.perf_counter() - began

    def _adopt(self, found: tuple[Plan, float], begun: int) -> Plan:
        plan, seconds = found
        self.state, self._begun = MPCState(plan), begun
        self._count(plan, seconds)
        return plan

    def _action(self, plan: Plan, step: int) -> Tensor:
        index = (step - self._begun) // self.mpc.action_repeat
        return plan.actions[min(index, len(plan.actions) - 1)]


def _maximised(controller: Controller) -> Callable[[Tensor], Any]:
    """What makes that which the controller's planner maximises, from a model state."""
    planner = controller.mpc.planner
    asked = maximised(planner)
    if asked not in MAXIMISED:
        raise ValueError(
            f"{type(planner).__name__} maximises {asked!r}; a controller offers {[*MAXIMISED]}"
        )
    return MAXIMISED[asked](controller)


def _scores(controller: Controller) -> Callable[[Tensor], ScoreFn]:
    settings = getattr(controller.model, "config", None)
    if controller.reward is None and not getattr(settings, "learn_reward", True):
        raise ValueError(
            f"reward: this {type(controller.model).__name__} predicts none, so all plans would "
            "have the score 0; give the reward, or a model with learn_reward"
        )
    return controller._plan_score


def _smooth_models(controller: Controller) -> Callable[[Tensor], Smooth]:
    model, config, planner = controller.model, controller.config, controller.mpc.planner
    name = type(planner).__name__
    if not isinstance(model, SmoothDynamics):
        raise ValueError(
            f"{name} needs a model with derivatives (mbrl.types.SmoothDynamics), such as a "
            f"Simulator, not a {type(model).__name__}"
        )
    if (config.discount, config.penalty, config.terminal) != (1, 0, 0):
        raise ValueError(f"{name} takes no discount, penalty or terminal")

    def smooth(state: Tensor) -> Smooth:
        return model.smooth(
            state, action_repeat=controller.mpc.action_repeat, reward=controller.reward
        )

    return smooth


MAXIMISED: dict[str, Callable[[Controller], Callable[[Tensor], Any]]] = {
    "score": _scores,
    "smooth": _smooth_models,
}
"""What a planner may maximise (`planners.maximised`) -> what makes it from a model state."""


class Controllers:
    """A `Player` that plans in N environments, in each by a controller with its own plan.

    Args:
        make: a fresh controller; called once an environment, when it is first acted in.
        generator: that all controllers draw from, one environment after another.

    Attributes:
        each: the controllers so far, in the order of the environments.
    """

    def __init__(self, make: Callable[[], Controller], *, generator: Generator) -> None:
        self.make, self.generator = make, generator
        self.each: list[Controller] = []

    def act(self, obs: np.ndarray, *, explore: bool = False) -> np.ndarray:
        """Actions (N, A) for observations (N, O), replanning when it is due."""
        self._grow(len(obs))
        actions = [
            controller.act(row, explore=explore)
            for controller, row in zip(self.each, obs, strict=True)
        ]
        return np.stack(actions)

    def reset(self, begins: np.ndarray) -> None:
        """Forget the plans of the environments where `begins` (N,) is True."""
        self._grow(len(begins))
        for place in np.flatnonzero(begins):
            self.each[place].reset()

    def said(self, ended: np.ndarray) -> dict[str, float]:
        """Numbers of the plans made in the episodes that ended, (N,) bool; {} if there were none.

        `plans`, `evaluated` and `rejected` are sums, `expected_score` the mean over plans.
        """
        done = [self.each[i] for i in np.flatnonzero(ended) if i < len(self.each)]
        done = [controller for controller in done if controller.plans]
        if not done:
            return {}
        plans = sum(controller.plans for controller in done)
        expected = done[0].expected
        if len(done) > 1:
            expected = sum(controller.plans * controller.expected for controller in done) / plans
        return {
            "plans": plans,
            "expected_score": expected,
            "evaluated": sum(controller.evaluated for controller in done),
            "rejected": sum(controller.rejected for controller in done),
        }

    def state_dict(self) -> dict[str, Any]:
        """Each controller's plan and counts, and the generator."""
        states = [controller.state_dict() for controller in self.each]
        return {"each": states, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; raises ValueError for anything else."""
        self.each = []
        self._grow(len(state["each"]))
        for controller, own in zip(self.each, state["each"], strict=True):
            controller.load_state_dict(own)
        self.generator.set_state(state["generator"].cpu())

    def _grow(self, count: int) -> None:
        while len(self.each) < count:
            self.each.append(self.make())
