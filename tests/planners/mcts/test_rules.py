"""Rules: a rule defined outside the library, their compilation, and their noise."""

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numba import njit

from planners.mcts import PUCT, UCT, Evaluation, Gumbel, Rule, search
from planners.mcts.kernel import _fingerprint, make_simulate

STATES, ACTIONS, ROOTS = 12, 4, 5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------- a rule of one's own


@dataclass(frozen=True)
class EpsilonGreedy(Rule):
    """Untried actions first; then a random action in a share of simulations, else the best."""

    epsilon: float = 0.3

    @staticmethod
    @njit
    def select(forest, b, node, simulation, settings, parameters):
        epsilon, draws = parameters
        edges, valid = forest.edges[b, node], 0
        for a in range(len(edges)):
            if edges[a].prior >= 0:
                if edges[a].visits == 0:
                    return a
                valid += 1
        pick = int(draws[simulation, b] / epsilon * valid) if draws[simulation, b] < epsilon else -1
        best, best_q = -1, -np.inf
        for a in range(len(edges)):
            if edges[a].prior < 0:
                continue
            if pick == 0:
                return a
            pick -= 1
            if edges[a].q > best_q:
                best, best_q = a, edges[a].q
        return best

    def prepare(self, priors, *, simulations, noise, rng):
        draws = rng.random((simulations, len(priors))) if noise is None else noise
        return priors, (self.epsilon, draws)


class Draws(EpsilonGreedy):
    """Stores its draws for the reference."""

    def prepare(self, priors, **given):
        priors, parameters = super().prepare(priors, **given)
        object.__setattr__(self, "drawn", parameters[1])
        return priors, parameters


class World:
    """A random table of rewards, values, discounts, terminations and invalid actions."""

    def __init__(self, seed):
        rng, shape = np.random.default_rng(seed), (STATES, ACTIONS)
        self.after = rng.integers(STATES, size=shape)
        self.reward = rng.normal(size=shape).astype(np.float32)
        self.value = rng.normal(size=STATES).astype(np.float32)
        self.ends = rng.random(STATES) < 0.1
        self.discount = rng.choice(np.float32([0.9, 0.7, -0.8]), STATES)
        self.invalid = rng.random(shape) < 0.3
        self.invalid[:, 1] = False

    def root(self):
        at = torch.arange(ROOTS)
        value = torch.from_numpy(self.value[:ROOTS])
        invalid = torch.from_numpy(self.invalid[:ROOTS])
        return Evaluation(at[:, None].float(), torch.zeros(ROOTS), value, invalid=invalid)

    def step(self, state, action):
        here, action = state[:, 0].long().numpy(), action.numpy()
        to = self.after[here, action]
        answer = self.reward[here, action], self.value[to], self.ends[to], self.discount[to]
        reward, value, ends, discount = (torch.from_numpy(x) for x in answer)
        return Evaluation(
            torch.from_numpy(to)[:, None].float(), reward, value, terminated=ends,
            discount=discount, invalid=torch.from_numpy(self.invalid[to]),
        )  # fmt: skip


class Reference:
    """A tree of dictionaries, searched as in textbooks, independent of the library."""

    def __init__(self, world, root, select):
        self.world, self.select = world, select
        self.nodes = [self.node(root, -1, -1, 0.0)]

    def node(self, state, parent, move, reward):
        ended = parent >= 0 and self.world.ends[state]
        valid = [] if ended else np.flatnonzero(~self.world.invalid[state]).tolist()
        value = 0.0 if ended else float(self.world.value[state])
        return {
            "state": state, "parent": parent, "move": move, "reward": reward, "valid": valid,
            "discount": 0.0 if ended else float(self.world.discount[state]),
            "returns": [value], "children": {},
        }  # fmt: skip

    def q(self, node, action):
        child = self.nodes[node["children"][action]]
        return child["reward"] + child["discount"] * np.mean(child["returns"])

    def simulate(self, simulation):
        at = 0
        while self.nodes[at]["valid"]:
            node = self.nodes[at]
            tried = {a: (len(self.nodes[c]["returns"]), self.q(node, a))
                     for a, c in node["children"].items()}  # fmt: skip
            action = self.select(node["valid"], tried, len(node["returns"]), simulation)
            if action not in node["children"]:
                to = int(self.world.after[node["state"], action])
                reward = float(self.world.reward[node["state"], action])
                node["children"][action] = len(self.nodes)
                self.nodes.append(self.node(to, at, action, reward))
                at, total = len(self.nodes) - 1, self.nodes[-1]["returns"][0]
                break
            at = node["children"][action]
        else:
            total = 0.0
            self.nodes[at]["returns"].append(total)
        while at:
            node = self.nodes[at]
            total, at = node["reward"] + node["discount"] * total, node["parent"]
            self.nodes[at]["returns"].append(total)


def greedy(epsilon, draws):
    def select(valid, tried, visits, simulation):
        for a in valid:
            if a not in tried:
                return a
        if draws[simulation] < epsilon:
            return valid[int(draws[simulation] / epsilon * len(valid))]
        return max(valid, key=lambda a: tried[a][1])

    return select


def uct(c):
    def select(valid, tried, visits, simulation):
        for a in valid:
            if a not in tried:
                return a
        bonus = {a: 2 * c * math.sqrt(2 * math.log(visits) / tried[a][0]) for a in valid}
        return max(valid, key=lambda a: tried[a][1] + bonus[a])

    return select


def puct(init, base):
    """Without scaling, from a uniform prior over the valid actions."""

    def select(valid, tried, visits, simulation):
        weight = (init + math.log((visits + base + 1) / base)) * math.sqrt(visits) / len(valid)
        n, q = ({a: tried.get(a, (0, 0.0))[i] for a in valid} for i in (0, 1))
        return max(valid, key=lambda a: q[a] + weight / (1 + n[a]))

    return select


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["epsilon-greedy", "uct", "puct"])
def test_trees_equal_those_of_a_plain_python_reference(kind, seed):
    world, simulations = World(seed), 120
    rule = {
        "epsilon-greedy": Draws(0.3),
        "uct": UCT(0.6),
        "puct": PUCT(init=1.1, base=50.0, scale="none", dirichlet=0.0, temperature=0.0),
    }[kind]
    found = search(
        world.root(), world.step, simulations=simulations, generator=seeded(seed), rule=rule
    )
    assert (found.visits > 0).sum() > 20 * ROOTS
    for b in range(ROOTS):
        select = {"uct": uct(0.6), "puct": puct(1.1, 50.0)}.get(kind)
        if select is None:
            select = greedy(0.3, rule.drawn[:, b])
        slow = Reference(world, b, select)
        for simulation in range(simulations):
            slow.simulate(simulation)
        nodes = found.forest.nodes[b]
        made = np.flatnonzero(nodes["visits"])  # some simulations add no node
        assert len(made) == len(slow.nodes)
        above = [made[node["parent"]] for node in slow.nodes[1:]]
        assert nodes["parent"][made[1:]].tolist() == above
        assert nodes["move"][made[1:]].tolist() == [node["move"] for node in slow.nodes[1:]]
        assert nodes["visits"][made].tolist() == [len(node["returns"]) for node in slow.nodes]
        values = [np.mean(node["returns"]) for node in slow.nodes]
        assert nodes["value"][made] == pytest.approx(values, abs=1e-4)
        visits = {a: len(slow.nodes[c]["returns"]) for a, c in slow.nodes[0]["children"].items()}
        assert found.action[b] == max(visits, key=lambda a: (visits[a], -a))
        shares = [visits.get(a, 0) / simulations for a in range(ACTIONS)]
        assert found.policy[b].tolist() == pytest.approx(shares)


def test_a_rule_is_compiled_once():
    assert make_simulate(UCT.select) is make_simulate(UCT(2.0).select)
    assert make_simulate(UCT.select) is not make_simulate(PUCT.select)


CONSTANT = 1.0


def scores(constant, inner):
    """Functions that differ in a constant of a closure and in the functions that they call."""

    def score(x):
        return constant + inner(x) + CONSTANT

    return score


def test_the_cache_key_of_a_rule_covers_all_that_it_refers_to(monkeypatch):
    twice, thrice = njit(lambda x: 2 * x), njit(lambda x: 3 * x)
    known = _fingerprint(njit(scores(1.0, twice)))
    assert known == _fingerprint(njit(scores(1.0, njit(lambda x: 2 * x))))
    assert known != _fingerprint(njit(scores(1.5, twice)))
    assert known != _fingerprint(njit(scores(1.0, thrice)))
    monkeypatch.setitem(globals(), "CONSTANT", np.ones(3))
    longer = _fingerprint(njit(scores(1.0, twice)))
    assert longer != known
    monkeypatch.setitem(globals(), "CONSTANT", np.arange(3.0))
    assert _fingerprint(njit(scores(1.0, twice))) not in (known, longer)


PROGRAM = """
import sys, torch
from dataclasses import dataclass
from numba import njit
from planners.mcts import Evaluation, Rule, search
from planners.mcts.kernel import make_simulate
class Last(Rule):
    @staticmethod
    @njit
    def select(forest, b, node, simulation, settings, parameters):
        return forest.edges.shape[2] - BACK
    def prepare(self, priors, *, simulations, noise, rng):
        return priors, ()
z = torch.zeros
step = lambda state, action: Evaluation(state, z(1), z(1), z(1, 3))
root = Evaluation(z(1, 1), z(1), z(1), z(1, 3))
rule = Last()
found = search(root, step, simulations=4, generator=torch.Generator().manual_seed(0), rule=rule)
stats = make_simulate(rule.select).stats
print(int(found.action), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_a_compiled_rule_is_read_from_disk_until_its_source_changes(tmp_path):
    program, said = tmp_path / "program.py", []
    for back in (1, 1, 2):
        program.write_text(PROGRAM.replace("BACK", str(back)))
        done = subprocess.run(
            [sys.executable, str(program)],
            capture_output=True,
            text=True,
            check=True,
            env={"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": ":".join(sys.path)},
        )
        said.append(done.stdout.split())
    assert said == [["2", "0", "1"], ["2", "1", "0"], ["1", "0", "1"]]


# ----------------------------------------------------------------------------- given noise


def three(invalid=(False, False, False), roots=1):
    root = Evaluation(
        torch.zeros(roots, 1), torch.zeros(roots), torch.zeros(roots), torch.zeros(roots, 3),
        invalid=torch.tensor([invalid]).expand(roots, 3),
    )  # fmt: skip

    def step(state, action):
        zero = torch.zeros(roots)
        return Evaluation(state, zero, zero, torch.zeros(roots, 3))

    return root, step


def root_priors(noise, invalid, rule, seed=0):
    found = search(
        *three(invalid), simulations=1, generator=seeded(seed), rule=rule,
        noise=None if noise is None else torch.tensor([noise]),
    )  # fmt: skip
    return found.priors[0, 0].tolist()


def test_dirichlet_noise_on_invalid_actions_is_dropped():
    """Half of (1/2, -, 1/2) plus half of (0.1, -, 0.3) / 0.4."""
    rule = PUCT(dirichlet=0.5)
    known = root_priors([0.1, 0.6, 0.3], (False, True, False), rule)
    assert known == pytest.approx([0.25 + 0.125, -1, 0.25 + 0.375])
    other = root_priors([0.1, -0.0, 0.3], (False, True, False), rule)
    assert other == pytest.approx(known)
    whole = root_priors([0.1, 0.6, 0.3], (False, False, False), rule)
    assert whole == pytest.approx([1 / 6 + 0.05, 1 / 6 + 0.3, 1 / 6 + 0.15])


@pytest.mark.parametrize(
    "noise, message",
    [
        ([[0.5, 0.5, 0.0], [0.5, -0.1, 0.6]], "at least 0"),
        ([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], "above 0 for a valid action of every root"),
        ([[0.5, 0.5, 0.0], [0.5, math.nan, 0.5]], "noise must be finite"),
        ([[0.5, 0.5, 0.0], [0.5, math.inf, 0.5]], "noise must be finite"),
        ([[0.5, 0.5], [0.5, 0.5]], r"noise must be \(2, 3\), got \(2, 2\)"),
        ([0.5, 0.5, 0.0], r"noise must be \(2, 3\), got \(3,\)"),
    ],
)
def test_noise_that_is_not_dirichlet_is_refused(noise, message):
    root, step = three((False, True, False), 2)
    with pytest.raises(ValueError, match=message):
        search(root, step, simulations=1, generator=seeded(), noise=torch.tensor(noise))


@pytest.mark.parametrize("alpha", [1e-3, 1e-8, 0.3, 1e4])
def test_priors_with_drawn_noise_sum_to_one(alpha):
    """Also if all gamma draws underflow: then one valid action has all the noise."""
    rule = PUCT(dirichlet=0.5, alpha=alpha)
    seen = set()
    for seed in range(40):
        first, second, third = root_priors(None, (False, True, False), rule, seed)
        assert second == -1
        assert first + third == pytest.approx(1, abs=1e-6)
        seen.add(round(first, 3))
    assert alpha > 1e-6 or seen == {0.25, 0.75}


# -------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "kind, wrong, message",
    [
        (UCT, {"c": -1.0}, r"c must be finite and >= 0, got -1.0"),
        (UCT, {"optimism": math.nan}, r"optimism must be finite, got nan"),
        (PUCT, {"base": 0.0}, r"base must be finite and > 0, got 0.0"),
        (PUCT, {"dirichlet": 1.5}, r"dirichlet must be in \[0, 1\], got 1.5"),
        (PUCT, {"alpha": math.inf}, r"alpha must be finite and > 0, got inf"),
        (PUCT, {"temperature": -0.5}, r"temperature must be finite and >= 0, got -0.5"),
        (PUCT, {"scale": "nodes"}, "scale must be one of siblings, tree, none, got 'nodes'"),
        (Gumbel, {"considered": 0}, r"considered must be an integer of at least 1, got 0"),
        (Gumbel, {"value_scale": -1}, r"value_scale must be finite and >= 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


def test_a_quiet_rule_draws_no_random_numbers():
    assert PUCT(init=2.0).quiet() == PUCT(init=2.0, dirichlet=0.0, temperature=0.0)
    assert Gumbel(considered=3).quiet() == Gumbel(considered=3, scale=0.0)
    assert UCT(2.0).quiet() == UCT(2.0) and EpsilonGreedy().quiet() == EpsilonGreedy()
