"""Finite MDPs as models: known, estimated from counts, or drawn from a posterior given counts.

States and actions are indices, stored as floats in a last dimension of size one, so that rollouts,
planners and agents handle them as they handle vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.special import softmax
from torch import Generator, Tensor

from mbrl.types import FiniteMDP, Outcomes, Step, Transition


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of the steps observed in a finite MDP, the sufficient statistics of its likelihood.

    `+` adds the counts of two sets of steps.
    """

    next_states: sparse.csr_array
    """(S · A, S), how often each state followed action a in state s, in row s · A + a."""
    rewards: np.ndarray
    """(S, A), sum of the rewards observed."""
    terminal: np.ndarray
    """(S,) bool, the states in which an episode has terminated."""

    @classmethod
    def of(cls, batch: Transition, *, states: int, actions: int) -> Counts:
        """Count transitions with any leading dimensions, obs (..., 1) and action (..., 1).

        Raises ValueError, naming the field, for other shapes, for states or actions that are not
        integers in range, and for rewards that are not finite.
        """
        obs = _indices(batch.obs, states, "obs")
        after = _indices(batch.next_obs, states, "next_obs")
        pairs = obs * actions + _indices(batch.action, actions, "action")
        gain = batch.reward.detach().cpu().double().numpy().ravel()
        ends = batch.terminated.detach().cpu().numpy().ravel()
        if not len(pairs) == len(after) == len(gain) == len(ends):
            raise ValueError(f"the batch's fields differ in length, obs has {len(pairs)} rows")
        if not np.isfinite(gain).all():
            raise ValueError("reward holds a number that is not finite")
        seen = sparse.coo_array(
            (np.ones(len(pairs)), (pairs, after)), shape=(states * actions, states)
        )
        sums = np.bincount(pairs, gain, minlength=states * actions).reshape(states, actions)
        terminal = np.zeros(states, dtype=bool)
        terminal[after[ends]] = True
        return cls(sparse.csr_array(seen), sums, terminal)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            sparse.csr_array(self.next_states + other.next_states),
            self.rewards + other.rewards,
            self.terminal | other.terminal,
        )

    @property
    def visits(self) -> np.ndarray:
        """(S, A), how often each action was tried in each state."""
        return np.asarray(self.next_states.sum(1)).reshape(self.rewards.shape)


class EstimatedMDP(NamedTuple):
    """One member of a `FiniteModel` as a `mbrl.types.FiniteMDP`, for dynamic programming."""

    transitions: sparse.csr_array  # (S · A, S)
    rewards: np.ndarray  # (S, A)
    discount: float
    terminal: np.ndarray  # (S,) bool


class FiniteModel:
    """E finite MDPs with the same states, actions and terminal states, as a `Dynamics`.

    The next state is drawn by inverse transform sampling: the normal distribution function turns
    standard normal noise into a uniform number, and the inverse of the distribution function of the
    next state turns that into a state. So a step needs one random number on any device, and members
    given the same noise take coupled paths. Without noise the next state is the most probable one
    (of ties the lowest index), because a mean of indices is not a state; propagation by
    `expectation` is therefore correct for deterministic MDPs only. A step from a terminal state
    stays there with reward 0.

    A state or action that is not a valid index gives NaN, so a plan with one scores -inf.

    Args:
        kernels: the transition kernel of each of the E members, laid out as
            `FiniteMDP.transitions`, (S · A, S). Rows of terminal states are ignored.
        rewards: (E, S, A), or (S, A) if they are the same for all members.
        terminal: (S,) bool.

    Raises:
        ValueError: wrong shapes; a row that is not a distribution or a reward that is not finite,
            named by member, state and action.
    """

    def __init__(
        self, kernels: Sequence[sparse.csr_array], rewards: np.ndarray, terminal: np.ndarray
    ) -> None:
        self.terminal = np.asarray(terminal, dtype=bool)
        states, actions = len(self.terminal), np.shape(rewards)[-1]
        shape = (len(kernels), states, actions)
        if not len(kernels) or np.shape(rewards) not in (shape, shape[1:]):
            raise ValueError(
                f"rewards of {len(kernels)} members and {states} states must be "
                f"{shape[:2]} + (A,), got {np.shape(rewards)}"
            )
        self.rewards: np.ndarray = np.array(np.broadcast_to(rewards, shape), dtype=float)
        self.rewards[:, self.terminal] = 0
        self.kernels: tuple[sparse.csr_array, ...] = tuple(
            _live(rows, self.terminal, actions, f"member {member}")
            for member, rows in enumerate(kernels)
        )
        if not np.isfinite(self.rewards).all():
            member, state, action = np.argwhere(~np.isfinite(self.rewards))[0]
            raise ValueError(
                f"the reward of member {member}, state {state}, action {action} is not finite"
            )
        self._tables: dict[torch.device, _Tables] = {}

    @classmethod
    def of(cls, *mdps: FiniteMDP) -> FiniteModel:
        """The model of one MDP, or of several MDPs with one member for each.

        Raises ValueError where their states, actions or terminal states differ.
        """
        if not mdps or any((mdp.terminal != mdps[0].terminal).any() for mdp in mdps):
            raise ValueError("members must be one or more MDPs with the same terminal states")
        return cls(
            [mdp.transitions for mdp in mdps],
            np.stack([mdp.rewards for mdp in mdps]),
            mdps[0].terminal,
        )

    @classmethod
    def likeliest(cls, counts: Counts, *, known: int = 1, unknown: float = 0.0) -> FiniteModel:
        """The maximum-likelihood model, one member, for pairs tried at least `known` times.

        A pair (state and action) tried less often stays in its state with reward `unknown`. If
        `unknown` is the largest possible reward, this is the optimistic model of R-max (Brafman and
        Tennenholtz 2002; Strehl et al. 2009). Raises ValueError for `known` below 1.
        """
        if known < 1:
            raise ValueError(f"known must be at least 1, got {known!r}")
        states, actions = counts.rewards.shape
        visits = counts.visits
        tried = visits >= known
        share = np.where(tried, 1 / np.maximum(visits, 1), 0.0).ravel()
        stay = sparse.csr_array(
            (
                (~tried).ravel().astype(float),
                (np.arange(states * actions), np.repeat(np.arange(states), actions)),
            ),
            shape=(states * actions, states),
        )
        rows = sparse.csr_array(sparse.diags_array(share) @ counts.next_states + stay)
        rewards = np.where(tried, counts.rewards * share.reshape(tried.shape), unknown)
        return cls([rows], rewards, counts.terminal)

    @classmethod
    def posterior(
        cls,
        counts: Counts,
        *,
        members: int,
        prior: float | np.ndarray = 1.0,
        rewards: np.ndarray | None = None,
        generator: Generator,
    ) -> FiniteModel:
        """Members drawn from the posterior: each row Dirichlet(prior + counts), independently.

        Strens 2000, "A Bayesian framework for reinforcement learning". The kernels are dense:
        E · S · A · S numbers.

        Args:
            counts: counts of the steps observed.
            members: E.
            prior: pseudo-counts, one number for every next state or (S, A, S); where it is 0, a
                next state that was never observed has probability 0.
            rewards: (S, A), if they are known; by default the mean rewards observed, 0 for pairs
                never tried.
            generator: random stream of the draws.

        Raises:
            ValueError: members below one; a prior of another shape, negative or not finite, or
                one that leaves a row with no possible next state.
        """
        states, actions = counts.rewards.shape
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members!r}")
        if np.shape(prior) not in ((), (states, actions, states)):
            raise ValueError(
                f"prior must be a number or (S, A, S) = ({states}, {actions}, {states}), "
                f"got {np.shape(prior)}"
            )
        if not (np.isfinite(prior).all() and np.min(prior) >= 0):
            raise ValueError("prior must be finite and >= 0")
        pseudo = np.asarray(prior, dtype=float)
        weight = counts.next_states.toarray()
        weight += pseudo.reshape(-1, states) if pseudo.ndim else pseudo
        empty = (weight.sum(1) == 0) & np.repeat(~counts.terminal, actions)
        if empty.any():
            state, action = divmod(int(empty.argmax()), actions)
            raise ValueError(
                f"state {state}, action {action} was never tried: it needs a prior above 0"
            )
        weight[np.repeat(counts.terminal, actions)] = 1.0
        rng = np.random.default_rng(
            int(torch.randint(2**62, (), generator=generator, device=generator.device))
        )
        shape = (members, *weight.shape)
        # in logs, by Γ(a) = Γ(a + 1) · U^(1/a), because gammas of small shape a underflow
        with np.errstate(divide="ignore"):
            logs = np.log(rng.standard_gamma(weight + 1, shape))
            logs += np.log1p(-rng.random(shape)) / weight
        rows = softmax(logs, -1)
        if rewards is None:
            rewards = counts.rewards / np.maximum(counts.visits, 1)
        return cls([sparse.csr_array(member) for member in rows], rewards, counts.terminal)

    def mdp(self, discount: float, *, member: int = 0) -> EstimatedMDP:
        """A member as an MDP with discount γ."""
        return EstimatedMDP(self.kernels[member], self.rewards[member], discount, self.terminal)

    @property
    def members(self) -> int:
        """E."""
        return len(self.kernels)

    @property
    def states(self) -> int:
        """Number of states of each MDP (a model state is one index, of size 1)."""
        return len(self.terminal)

    @property
    def actions(self) -> int:
        """Number of actions of each MDP (an action is one index, of size 1)."""
        return self.rewards.shape[-1]

    @property
    def most_outcomes(self) -> int:
        """The largest number of possible next states of any state and action."""
        return self._on(torch.device("cpu")).widest

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(1,): one number per step."""
        return (1,)

    def encode(
        self,
        obs: Float[Tensor, "*lead 1"],
        *,
        state: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Float[Tensor, "*lead 1"]:
        """The identity."""
        return obs

    def decode(self, state: Float[Tensor, "*lead 1"]) -> Float[Tensor, "*lead 1"]:
        """The identity."""
        return state

    def step(
        self,
        state: Float[Tensor, "E B 1"],
        action: Float[Tensor, "E B 1"],
        *,
        noise: Float[Tensor, "E B 1"] | None,
    ) -> Step:
        """One step of each member; see the class for noise and invalid indices.

        Raises:
            ValueError: other shapes.
        """
        given = {"state": state, "action": action} | ({} if noise is None else {"noise": noise})
        row, here, valid = self._rows(given)
        tables = self._on(state.device)
        if noise is None:
            after = tables.mode[row]
        else:
            uniform = torch.special.ndtr(noise[..., 0].double())
            entry = torch.searchsorted(tables.reached, row + uniform, right=True)
            # because of rounding, the entry found can belong to the next row
            entry = torch.minimum(torch.maximum(entry, tables.first[row]), tables.last[row])
            after = tables.after[entry]
        ended = tables.terminal[here]
        after = torch.where(ended, here, after)
        next_state = torch.where(valid, after.to(state.dtype), math.nan)
        reward = torch.where(valid, tables.rewards[row].to(state.dtype), math.nan)
        return Step(next_state[..., None], reward, valid & tables.terminal[after])

    def outcomes(self, state: Float[Tensor, "E B 1"], action: Float[Tensor, "E B 1"]) -> Outcomes:
        """Every possible next state in each member and its probability; NaN for invalid indices.

        Raises:
            ValueError: other shapes.
        """
        row, here, valid = self._rows({"state": state, "action": action})
        tables = self._on(state.device)
        entry = tables.first[row, None] + torch.arange(tables.widest, device=state.device)
        there = (entry <= tables.last[row, None]) & ~tables.terminal[here, None]
        entry = torch.minimum(entry, tables.last[row, None])
        chance = torch.where(there, tables.chances[entry], 0.0)
        chance[..., 0] = torch.where(tables.terminal[here], 1.0, chance[..., 0])
        after = torch.where(there, tables.after[entry], here[..., None])
        next_state = torch.where(valid[..., None], after.to(state.dtype), math.nan)
        reward = torch.where(valid, tables.rewards[row].to(state.dtype), math.nan)
        ends = valid[..., None] & tables.terminal[after]
        return Outcomes(next_state[..., None], reward, ends, chance.to(state.dtype))

    def _rows(self, given: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the tables, states, and whether state and action are valid indices, (E, B)."""
        state, action = given["state"], given["action"]
        for name, value in given.items():
            if value.shape != (self.members, state.shape[1] if state.ndim > 1 else 0, 1):
                raise ValueError(
                    f"{name} must be (E, B, 1) with E = {self.members}, got {tuple(value.shape)}"
                )
        here, known = _index(state[..., 0], self.states)
        chosen, allowed = _index(action[..., 0], self.actions)
        member = torch.arange(self.members, device=state.device)[:, None]
        return (member * self.states + here) * self.actions + chosen, here, known & allowed

    def _on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = _tables(self, device)
        return self._tables[device]


class _Tables(NamedTuple):
    """The kernels of all members stacked: R = E · S · A rows, K entries in total."""

    reached: Float[Tensor, " K"]  # row number + the row's cumulative probability, increasing
    after: Int[Tensor, " L"]  # next state of each entry; L = K + 1, the last for empty rows
    chances: Float[Tensor, " L"]  # probability of each entry
    first: Int[Tensor, " R"]  # first entry of each row
    last: Int[Tensor, " R"]  # last entry of each row
    mode: Int[Tensor, " R"]  # most probable next state
    rewards: Float[Tensor, " R"]
    terminal: Bool[Tensor, " S"]
    widest: int  # largest number of entries of a row, at least 1


def _tables(model: FiniteModel, device: torch.device) -> _Tables:
    rows: Any = sparse.vstack(model.kernels, format="csr")
    starts, lengths = rows.indptr[:-1].astype(np.int64), np.diff(rows.indptr)
    owner = np.repeat(np.arange(rows.shape[0]), lengths)
    summed = np.concatenate(([0.0], np.cumsum(rows.data)))
    within = summed[1:] - summed[starts][owner]
    filled = lengths > 0
    mode = np.zeros(rows.shape[0], dtype=np.int64)
    if filled.any():
        most = np.zeros(rows.shape[0])
        most[filled] = np.maximum.reduceat(rows.data, starts[filled])
        # reversed, so that of ties the lowest index is written last
        tops = np.flatnonzero(rows.data == most[owner])[::-1]
        mode[owner[tops]] = rows.indices[tops]

    def on(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=device)

    return _Tables(
        reached=on(owner + within),
        after=on(np.append(rows.indices, 0).astype(np.int64)),
        chances=on(np.append(rows.data, 0)),
        first=on(starts),
        last=on(np.maximum(starts + lengths - 1, starts)),
        mode=on(mode),
        rewards=on(model.rewards.ravel()),
        terminal=on(model.terminal),
        widest=int(max(lengths.max(), 1)),
    )


def _live(rows: Any, terminal: np.ndarray, actions: int, name: str) -> sparse.csr_array:
    """A checked and sorted copy without stored zeros, whose rows of terminal states are empty."""
    states = len(terminal)
    if rows.shape != (states * actions, states):
        raise ValueError(
            f"{name}: transitions must be (S · A, S) = ({states * actions}, {states}), "
            f"got {rows.shape}"
        )
    live = np.repeat(~terminal, actions)
    rows = sparse.csr_array(sparse.diags_array(live.astype(float)) @ sparse.csr_array(rows))
    rows.eliminate_zeros()
    rows.sort_indices()
    wrong = live & ~(np.abs(np.asarray(rows.sum(1)).ravel() - 1) <= 1e-9)
    if rows.nnz:
        wrong |= rows.min(1).toarray().ravel() < 0
    if wrong.any():
        state, action = divmod(int(wrong.argmax()), actions)
        raise ValueError(
            f"{name}: the transitions of state {state}, action {action} are not a distribution"
        )
    return rows


def _index(value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Integer indices (0 if invalid), and a mask of the valid ones."""
    valid = (value >= 0) & (value < count) & (value == value.floor())
    return torch.where(valid, value, 0).long(), valid


def _indices(value: Tensor, count: int, name: str) -> np.ndarray:
    if value.ndim < 1 or value.shape[-1] != 1:
        raise ValueError(f"{name} must be (..., 1) indices, got {tuple(value.shape)}")
    found, valid = _index(value.detach().cpu(), count)
    if not valid.all():
        raise ValueError(f"{name} must hold indices in 0..{count - 1}, got {value[~valid][0]:g}")
    return found.numpy().ravel()
