"""The walk through the trees of a search in torch, on the device of the roots.

Level by level, for all trees at once. It grows the trees of `planners.tree`, whose rules these are
too, node for node, and holds a node's numbers side by side as that does. The host is waited for
once a simulation and once a level, to hear whether any tree goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from planners import tree
from planners.compiled_walk import blank as blank_forest

if TYPE_CHECKING:
    from planners.mcts import Evaluation

LINKS = ("visits", "parent", "move", "sibling", "twin", "walk", "ended")
NUMBERS = ("value", "raw", "reward", "discount", "variance", "chance")
VISITS, PARENT, MOVE, SIBLING, TWIN, WALK, ENDED = range(7)
VALUE, RAW, REWARD, DISCOUNT, VARIANCE, CHANCE = range(6)
CHILD, TRIES = range(2)
Q, PRIOR = range(2)
EDGES = {"child": ("ways", CHILD), "visits": ("ways", TRIES), "q": ("worth", Q),
         "prior": ("worth", PRIOR)}  # fmt: skip


class TorchForest(NamedTuple):
    """B trees of up to N nodes of K actions, as `tree.Forest`; a node that is not there is 0."""

    links: Int[Tensor, "B N 7"]  # `LINKS` of the nodes
    numbers: Float[Tensor, "B N 6"]  # `NUMBERS`
    ways: Int[Tensor, "B N K 2"]  # of the edges: first outcome or -1, visits
    worth: Float[Tensor, "B N K 2"]  # q, prior
    bounds: Float[Tensor, "B 2"]  # float64
    states: Float[Tensor, "B N S"]
    actions: Float[Tensor, "B N K A"] | None
    merged: bool

    def nodes(self, name: str) -> Tensor:
        """A field of `tree.NODE` (B, N)."""
        if name in LINKS:
            return self.links[..., LINKS.index(name)]
        return self.numbers[..., NUMBERS.index(name)]

    def edges(self, name: str) -> Tensor:
        """A field of `tree.EDGE` (B, N, K)."""
        field, place = EDGES[name]
        return getattr(self, field)[..., place]

    def numpy(self) -> tree.Forest:
        """A copy on the CPU, in the form of the compiled walk."""
        count, actions = self.ways.shape[1:3]
        samples = None if self.actions is None else self.actions[:, 0]
        made, states, moves = blank_forest(
            self.states[:, 0], samples, count, actions, int(self.merged)
        )
        for name in (*LINKS, *NUMBERS):
            made.nodes[name] = self.nodes(name).cpu().numpy()
        for name in EDGES:
            made.edges[name] = self.edges(name).cpu().numpy()
        made.bounds[:] = self.bounds.cpu().numpy()
        states.copy_(self.states)
        if moves is not None and self.actions is not None:
            moves.copy_(self.actions)
        return made


class _Said(NamedTuple):
    """What the model said, of C outcomes each where shapes begin with (B, C)."""

    state: Float[Tensor, "B S"]
    actions: Float[Tensor, "B K A"]  # A = 0 where they are indices
    reward: Float[Tensor, B]
    discount: Float[Tensor, B]
    value: Float[Tensor, B]
    variance: Float[Tensor, B]
    chance: Float[Tensor, B]
    logits: Float[Tensor, "B K"]
    terminated: Bool[Tensor, B]
    invalid: Bool[Tensor, "B K"]


class TorchWalk:
    """As `CompiledWalk`, which says what its arguments and methods are."""

    def __init__(
        self,
        root: Evaluation,
        actions: int,
        settings: tree.Settings,
        *,
        discount: float,
        simulations: int,
        start: tree.Forest | None,
    ) -> None:
        device, roots = root.state.device, len(root.state)
        self._settings, self._last = settings, simulations
        self._born = max(settings.exact, 1)
        self._base = 1 if start is None else start.nodes.shape[1]
        count = self._base + simulations * self._born
        self._rows = torch.arange(roots, device=device)
        self._places = torch.arange(actions, device=device)
        granted = _granted(root.state, root.actions, actions, discount)
        said = _heard(root, granted, "the root's")

        def zeros(*shape: int, of: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(roots, count, *shape, dtype=of, device=device)

        links, ways = zeros(len(LINKS), of=torch.int64), zeros(actions, 2, of=torch.int64)
        links[..., PARENT] = links[..., SIBLING] = ways[..., CHILD] = -1
        bounds = torch.tensor((torch.inf, -torch.inf), dtype=torch.float64, device=device)
        samples = root.actions
        self.grown = TorchForest(
            links,
            zeros(len(NUMBERS)),
            ways,
            zeros(actions, 2),
            bounds.repeat(roots, 1),
            zeros(root.state.shape[1], of=root.state.dtype),
            None if samples is None else zeros(*samples.shape[1:], of=samples.dtype),
            settings.merge,
        )
        self.states, self.actions = self.grown.states, self.grown.actions
        if start is not None:
            self._take(start)
        self._plant(said)
        if settings.exact:
            state = _each(root.state, settings.exact)
            samples = None if samples is None else _each(samples, settings.exact)
            granted = _granted(state, samples, actions, discount)
        self._granted = granted
        deepest = min(simulations + self._base, settings.max_depth)
        self._path = torch.zeros(roots, deepest + 1, dtype=torch.int64, device=device)
        self._depth = torch.zeros_like(self._rows)
        self._node = self._action = self._depth
        self._opens = self._depth > 0
        self._levels = 0  # of the deepest path

    @property
    def priors(self) -> np.ndarray:
        """Of the roots (B, K), -1 for what cannot be done: a copy."""
        return self.grown.worth[:, 0, :, PRIOR].cpu().numpy().copy()

    def begin(self, priors: np.ndarray, scores: np.ndarray, considered: np.ndarray) -> None:
        """See `CompiledWalk`."""
        device = self._rows.device
        self.grown.worth[:, 0, :, PRIOR] = torch.from_numpy(priors).to(device)
        self._scores = torch.from_numpy(scores).to(device)
        self._considered = torch.from_numpy(considered).to(device)

    def advance(self, found: Evaluation | None, turn: int) -> tuple[Tensor, Tensor]:
        """See `CompiledWalk`."""
        if found is not None:
            self._grow(_heard(found, self._granted, "a step's"), turn)
            self._pass_up()
        if turn < self._last:
            self._descend(turn)
        elif self._settings.merge:
            t = self.grown
            t.numbers[..., VALUE] = t.numbers[..., VALUE].gather(1, t.links[..., TWIN])
        here, chosen = self.states[self._rows, self._node], self._action
        if self.actions is not None:
            chosen = self.actions[self._rows, self._node, self._action]
        return here, chosen

    def counts(self) -> np.ndarray:
        """See `CompiledWalk`."""
        return self.grown.ways[:, 0, :, TRIES].cpu().numpy()

    def completed(self) -> np.ndarray:
        """See `CompiledWalk`."""
        return self._complete(torch.zeros_like(self._rows)).cpu().numpy()

    # ------------------------------------------------------------------------------- the way down

    def _descend(self, turn: int) -> None:
        """Walk from the roots to where nodes are to be added, or nothing more can be learned."""
        t, s, rows = self.grown, self._settings, self._rows
        node, going = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        self._action, self._depth = torch.zeros_like(rows), torch.zeros_like(rows)
        self._opens, self._levels = ~going, 0
        for level in range(self._path.shape[1]):
            links = t.links[rows, node]
            going = going & (links[:, ENDED] == 0)
            if s.merge:
                going &= links[:, WALK] != turn + 1  # else a circle
                links[:, WALK].masked_fill_(going, turn + 1)
                t.links[rows, node] = links
            if level == s.max_depth or not going.any():
                break
            action = self._choose(node, links[:, VISITS], level, turn)
            child = self._outcome(node, action)
            opens = going & (child < 0)
            going = going & (child >= 0)
            self._opens = self._opens | opens
            self._action = torch.where(opens, action, self._action)
            self._depth = self._depth + going
            self._path[:, level] = child
            after = child.clamp(min=0)
            if s.merge:
                after = t.links[rows, after, TWIN]
            node = torch.where(going, after, node)
            self._levels = level + 1
        self._node = node

    def _choose(self, node: Tensor, visits: Tensor, level: int, turn: int) -> Int[Tensor, B]:
        rule = self._settings.rule
        if rule == tree.UCT_RULE:
            scores = self._uct(node, visits)
        elif rule == tree.PUCT_RULE:
            scores = self._puct(node, visits)
        elif level == 0:
            wanted = self._considered[turn][:, None]
            ways, worth = self.grown.ways[:, 0], self.grown.worth[:, 0]
            scores = (self._scores + self._complete(node)).clamp(min=-1e9)
            fit = (worth[..., PRIOR] >= 0) & (ways[..., TRIES] == wanted)
            scores = scores.masked_fill(~fit, -torch.inf)
        else:
            scores = self._gumbel_inside(node)
        return scores.argmax(1)

    def _open(self, visits: Tensor, prior: Tensor) -> tuple[Bool[Tensor, "B K"], Tensor | None]:
        """Actions that may be looked into; and which nodes have more of them, if any may."""
        valid, s = prior >= 0, self._settings
        if s.opening <= 0:
            return valid, None
        allowed = _allowed(s.opening, s.opening_power, visits)[:, None]
        number = valid.cumsum(1)
        return valid & (number <= allowed), (number[:, :-1] >= allowed).any(1)

    def _uct(self, node: Tensor, visits: Tensor) -> Float[Tensor, "B K"]:
        tries, prior, q = self._edges(node)
        open_, _ = self._open(visits, prior)
        here, s = visits.double().log()[:, None], self._settings
        scores = q + 2 * s.c * (2 * here / tries).sqrt()
        if s.optimism != 0:
            scores = scores + s.optimism * self._std(node)
        return scores.masked_fill(tries == 0, torch.inf).masked_fill(~open_, -torch.inf)

    def _puct(self, node: Tensor, visits: Tensor) -> Float[Tensor, "B K"]:
        t, s = self.grown, self._settings
        tries, prior, q = self._edges(node)
        open_, more = self._open(visits, prior)
        tried, low, width = tries > 0, 0.0, 1.0
        if s.scale == tree.SIBLINGS:
            own = t.numbers[self._rows, node, VALUE].double()[:, None]
            low = torch.minimum(q.masked_fill(~tried, torch.inf).amin(1, keepdim=True), own)
            high = torch.maximum(q.masked_fill(~tried, -torch.inf).amax(1, keepdim=True), own)
            width = (high - low).clamp(min=1e-8)
        elif s.scale == tree.WHOLE:
            low = t.bounds[:, :1]
            width = (t.bounds[:, 1:] - low).clamp(min=1e-8)
        here = visits.double()[:, None]
        weight = here.sqrt() * (s.c + ((here + s.base + 1) / s.base).log())
        if more is not None:  # the prior is shared by those that are open
            mass = 1e-30 + prior.double().masked_fill(~open_, 0.0).sum(1)
            weight = weight / torch.where(more, mass, 1.0)[:, None]
        value = (q - low) / width
        if s.optimism != 0:
            value = value + s.optimism * self._std(node) / width
        scores = weight * prior / (tries + 1) + value.masked_fill(~tried, 0.0)
        return scores.masked_fill(~open_, -torch.inf)

    def _gumbel_inside(self, node: Tensor) -> Float[Tensor, "B K"]:
        """How far the shares of visits lie under the improved policy."""
        tries, prior, _ = self._edges(node)
        valid, work = prior >= 0, self._complete(node)
        top = work.masked_fill(~valid, -torch.inf).amax(1, keepdim=True)
        better = (prior * (work - top).exp()).masked_fill(~valid, 0.0)
        shares = tries / (1 + tries.sum(1, keepdim=True))
        scores = better / better.sum(1, keepdim=True) - shares
        return scores.masked_fill(~valid, -torch.inf)

    def _complete(self, node: Tensor) -> Float[Tensor, "B K"]:
        """Completed and scaled values; see `tree._complete`."""
        s = self._settings
        tries, prior, q = self._edges(node)
        tried = tries > 0
        known = prior.clamp(min=torch.finfo(torch.float32).tiny).double().masked_fill(~tried, 0.0)
        seen, mass = tries.sum(1), known.sum(1)
        mixed = self.grown.numbers[self._rows, node, RAW].double()
        mean = (known * q).sum(1) / torch.where(seen > 0, mass, 1.0)
        mixed = torch.where(seen > 0, (mixed + seen * mean) / (seen + 1), mixed)
        out = torch.where(tried, q, mixed[:, None])
        low, high = out.amin(1, keepdim=True), out.amax(1, keepdim=True)
        most = tries.amax(1, keepdim=True)
        factor = (s.visit_init + most) * s.value_scale / (high - low).clamp(min=1e-8)
        return (out - low) * factor

    def _edges(self, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Visits, priors and q (B, K), the last in float64 as scores are."""
        ways, worth = self.grown.ways[self._rows, node], self.grown.worth[self._rows, node]
        return ways[..., TRIES], worth[..., PRIOR], worth[..., Q].double()

    def _std(self, node: Tensor) -> Float[Tensor, "B K"]:
        """Epistemic std of what follows each action; of an untried one not a number."""
        links, numbers = self.grown.links, self.grown.numbers
        below = (links[..., PARENT] == node[:, None]) & (links[..., VISITS] > 0)
        count = links[..., VISITS].double().masked_fill(~below, 0.0)  # (B, N)
        variance = numbers[..., VARIANCE].gather(1, links[..., TWIN])
        spread = count * numbers[..., DISCOUNT].square() * variance
        of = (links[..., MOVE, None] == self._places).double()  # (B, N, K)
        total = (torch.stack((count, spread), 1) @ of).unbind(1)
        return (total[1] / total[0]).sqrt()

    def _outcomes(self, node: Tensor, action: Tensor) -> Bool[Tensor, "B N"]:
        """Which nodes are outcomes of an action."""
        links = self.grown.links
        here = (links[..., PARENT] == node[:, None]) & (links[..., MOVE] == action[:, None])
        return here & (links[..., VISITS] > 0)

    def _outcome(self, node: Tensor, action: Tensor) -> Int[Tensor, B]:
        """Which to go on from; -1 to have the model say more. See `tree._outcome`."""
        t, s = self.grown, self._settings
        ways = t.ways[self._rows, node, action]
        child = ways[:, CHILD]
        if s.exact == 0 and s.drawing == 0:
            return child
        there = self._outcomes(node, action)
        visits = t.links[..., VISITS].gather(1, t.links[..., TWIN])
        scores = 1 / visits.double()
        if s.exact > 0:
            scores = scores * t.numbers[..., CHANCE]
            scores = scores.masked_fill(t.links[..., ENDED] > 0, -1.0)
        scores = scores.masked_fill(~there, -torch.inf)
        best = scores.shape[1] - 1 - scores.flip(1).argmax(1)  # the last of equals
        best = torch.where(child < 0, child, best)
        if s.exact == 0:
            allowed = _allowed(s.drawing, s.drawing_power, ways[:, TRIES])
            best = best.masked_fill(there.sum(1) < allowed, -1)
        return best

    # --------------------------------------------------------------------------------- the way up

    def _grow(self, reply: _Said, turn: int) -> None:
        """Make what the model said nodes, where a walk opened some."""
        first, wrong = self._base + (turn - 1) * self._born, torch.zeros_like(self._rows)
        place = torch.full_like(self._rows, first)
        if self._settings.exact:
            for c in range(self._settings.exact):
                one = _Said(*(x[:, c] for x in reply))
                made = self._opens & (one.chance > 0)
                wrong = torch.maximum(wrong, self._attach(one, made, place))
                place = place + made
            total = reply.chance.double().sum(1)
            sane = (reply.chance >= 0).all(1) & ((total - 1).abs() < 1e-5)
            odd = self._opens & ~sane & (wrong == 0)
            wrong = wrong.masked_fill(odd, tree.BAD_CHANCE)
            place = place - 1
        else:
            wrong = self._attach(reply, self._opens, place)
        _complain(wrong, f"simulation {turn}")
        level = self._depth[:, None]
        end = self._path.gather(1, (level - 1).clamp(min=0))[:, 0].masked_fill(self._depth == 0, 0)
        known = self._path.gather(1, level)[:, 0]
        self._path.scatter_(1, level, torch.where(self._opens, place, known)[:, None])
        self._end = torch.where(self._opens, place, end)
        self._depth = self._depth + self._opens
        links = self.grown.links[self._rows, end]
        again = ~self._opens  # what has children hears of it from them
        if self._settings.merge:
            again &= (links[:, ENDED] > 0) | (links[:, TWIN] != end)
        links[:, VISITS] += again
        self.grown.links[self._rows, end] = links

    def _attach(self, said: _Said, made: Tensor, place: Tensor) -> Int[Tensor, B]:
        """Add an outcome to the trees `made`, at `place`, blank as yet; what is wrong with it."""
        t, rows, parent, move = self.grown, self._rows, self._node, self._action
        lives = ~said.terminated
        prior, wrong = _priors(said)
        for code, sane in (
            (tree.BAD_DISCOUNT, said.discount.abs() <= 1),
            (tree.BAD_VALUE, said.value.isfinite() & (said.variance >= 0)),
        ):
            wrong = wrong.masked_fill(~sane, code)
        wrong = wrong.masked_fill(~lives, tree.FINE)
        wrong = wrong.masked_fill(~said.reward.isfinite(), tree.BAD_REWARD)
        ways, one = t.ways[rows, parent, move], torch.ones_like(rows)
        links = (one, parent, move, ways[:, CHILD], place, one - 1, said.terminated.long())
        value, discount, variance = (
            x.masked_fill(~lives, 0.0) for x in (said.value, said.discount, said.variance)
        )
        chance = said.chance if self._settings.exact else torch.zeros_like(value)
        numbers = (value, value, said.reward, discount, variance, chance)
        kept = made[:, None]
        t.links[rows, place] = torch.where(kept, torch.stack(links, 1), t.links[rows, place])
        t.numbers[rows, place] = torch.stack(numbers, 1).masked_fill(~kept, 0.0)
        t.worth[rows, place, :, PRIOR] = prior.masked_fill(~(kept & lives[:, None]), 0.0)
        t.states[rows, place] = said.state.masked_fill(~kept, 0)
        if t.actions is not None:
            t.actions[rows, place] = said.actions.masked_fill(~kept[..., None], 0)
        ways[:, CHILD] = torch.where(made, place, ways[:, CHILD])
        t.ways[rows, parent, move] = ways
        if self._settings.merge:
            twin = torch.where(made & lives, self._twin(place), t.links[rows, place, TWIN])
            t.links[rows, place, TWIN] = twin
        return wrong.masked_fill(~made, tree.FINE)

    def _twin(self, place: Tensor) -> Int[Tensor, B]:
        """The first node with the bytes of the state at `place`, ends apart."""
        links = self.grown.links
        bits = _bits(self.states)
        same = (bits == bits[self._rows, place][:, None]).all(2)
        same &= (links[..., VISITS] > 0) & (links[..., ENDED] == 0)
        return same.int().argmax(1)

    def _pass_up(self) -> None:
        """Tell all along the paths what the last nodes are worth. See `tree._pass_up`."""
        t, s, rows = self.grown, self._settings, self._rows
        last = t.numbers[rows, self._end]
        gain, spread = last[:, RAW].double(), last[:, VARIANCE].double()
        for level in range(self._levels - 1, -1, -1):
            on = level < self._depth
            node = self._path[:, level].clamp(min=0)
            links, numbers = t.links[rows, node], t.numbers[rows, node]
            parent, move = links[:, PARENT].clamp(min=0), links[:, MOVE]
            reward, discount = numbers[:, REWARD], numbers[:, DISCOUNT]
            ways, worth = t.ways[rows, parent, move], t.worth[rows, parent, move]
            passed = discount.double().square() * spread
            if s.exact or s.merge or s.drawing:
                q = self._mean(parent, move)
            else:
                q = reward + discount * numbers[:, VALUE]
            if s.exact or s.merge:  # all that the expectation changed by is news above
                gained = (ways[:, TRIES] + 1) * q.double() - ways[:, TRIES] * worth[:, Q].double()
            else:
                gained = reward + discount * gain
            gain, spread = torch.where(on, gained, gain), torch.where(on, passed, spread)
            worth[:, Q] = torch.where(on, q, worth[:, Q])
            ways[:, TRIES] += on
            t.worth[rows, parent, move], t.ways[rows, parent, move] = worth, ways
            low, high = t.bounds.unbind(1)
            low, high = torch.minimum(low, worth[:, Q]), torch.maximum(high, worth[:, Q])
            t.bounds.copy_(torch.where(on[:, None], torch.stack((low, high), 1), t.bounds))

            above, count = t.numbers[rows, parent], t.links[rows, parent]
            n = count[:, VISITS].double()
            for place, news in ((VALUE, gain), (VARIANCE, spread)):
                mean = ((above[:, place] * n + news) / (n + 1)).float()
                if s.maxima and place == VALUE:
                    tried = t.ways[rows, parent, :, TRIES] > 0
                    mean = t.worth[rows, parent, :, Q].masked_fill(~tried, -torch.inf).amax(1)
                above[:, place] = torch.where(on, mean, above[:, place])
            count[:, VISITS] += on
            t.numbers[rows, parent], t.links[rows, parent] = above, count
            if s.merge and level > 0:  # came by a twin, which counts its own
                before = self._path[:, level - 1].clamp(min=0)
                links = t.links[rows, before]
                links[:, VISITS] += on & (before != parent)
                t.links[rows, before] = links

    def _mean(self, parent: Tensor, move: Tensor) -> Float[Tensor, B]:
        """Of reward + discount · value over the outcomes of an edge."""
        links, numbers = self.grown.links, self.grown.numbers
        there = self._outcomes(parent, move)
        value = numbers[..., VALUE].gather(1, links[..., TWIN])
        worth = numbers[..., REWARD] + numbers[..., DISCOUNT] * value
        share = numbers[..., CHANCE] if self._settings.exact else links[..., VISITS].double()
        share = share.masked_fill(~there, 0.0)
        total = (share * worth).double().sum(1) / share.double().sum(1)
        return total.float()

    # ----------------------------------------------------------------------------------- to begin

    def _take(self, start: tree.Forest) -> None:
        """Begin with what is known."""
        t, size = self.grown, self._base

        def put(into: Tensor, array: np.ndarray) -> None:
            into.copy_(torch.from_numpy(np.ascontiguousarray(array)))

        for name in (*LINKS, *NUMBERS):
            put(t.nodes(name)[:, :size], start.nodes[name])
        for name in EDGES:
            put(t.edges(name)[:, :size], start.edges[name])
        put(t.bounds, start.bounds)
        for into, found in ((t.states, start.states), (t.actions, start.actions)):
            if into is not None:
                of = torch.from_numpy(found).view(into.dtype).view(into[:, :size].shape)
                into[:, :size] = of.to(into.device)

    def _plant(self, root: _Said) -> None:
        """Set the states and priors of the roots, and where they are new their values."""
        t = self.grown
        prior, wrong = _priors(root)
        sane = root.value.isfinite() & (root.variance >= 0)
        wrong = wrong.masked_fill(~sane, tree.BAD_VALUE)
        _complain(wrong, "root")
        t.states[:, 0] = root.state
        if t.actions is not None:
            t.actions[:, 0] = root.actions
        t.worth[:, 0, :, PRIOR] = prior
        new = t.links[:, 0, VISITS] == 0
        t.links[:, 0, VISITS] += new
        for place, value in ((VALUE, root.value), (RAW, root.value), (VARIANCE, root.variance)):
            t.numbers[:, 0, place] = torch.where(new, value, t.numbers[:, 0, place])


def _allowed(c: float, power: float, visits: Tensor) -> Tensor:
    """How many children may be open: ceil(c · visits^power), at least one."""
    return (c * visits.double() ** power).ceil().clamp(min=1)


def _bits(x: Tensor) -> Tensor:
    """As integers that are equal where the bytes are."""
    return x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize])


def _each(x: Tensor, outcomes: int) -> Tensor:
    """(B, ...) as (B, C, ...)."""
    return x[:, None].expand(-1, outcomes, *x.shape[1:])


def _priors(said: _Said) -> tuple[Float[Tensor, "B K"], Int[Tensor, B]]:
    """Softmax over the valid actions, -1 for the others, and what is wrong with the logits."""
    ruled_out = said.invalid
    logits = said.logits.masked_fill(ruled_out, -torch.inf)
    top = logits.amax(1, keepdim=True)
    chance = (logits.double() - top).exp()
    total = chance.sum(1, keepdim=True)
    prior = (chance.float() / total).float().masked_fill(ruled_out, -1.0)
    none = torch.where(top[:, 0] == -torch.inf, tree.NO_ACTION, tree.FINE)
    odd = (logits.isnan() | (logits == torch.inf)).any(1)
    return prior, none.masked_fill(odd, tree.BAD_LOGITS)


def _granted(state: Tensor, samples: Tensor | None, actions: int, discount: float) -> _Said:
    """What is taken for granted where a model says nothing, for states (B, S) or (B, C, S)."""
    each, on = state.shape[:-1], state.device
    zero, flat = torch.zeros(each, device=on), torch.zeros(*each, actions, device=on)
    return _Said(
        state,
        flat[..., None][..., :0] if samples is None else samples,
        reward=zero,
        discount=torch.full_like(zero, discount),
        value=zero,
        variance=zero,
        chance=zero,
        logits=flat,
        terminated=zero > 0,
        invalid=flat > 0,
    )


def _heard(found: Evaluation, granted: _Said, whose: str) -> _Said:
    """A model's answer, checked, on the device."""
    if granted.actions.shape[-1] and found.actions is None:
        raise ValueError("the root's actions are a sample, so a step must give actions too")
    return _Said(
        *(
            _fit(getattr(found, name), like, f"{whose} {name}")
            for name, like in zip(_Said._fields, granted, strict=True)
        )
    )


def _fit(given: Tensor | None, like: Tensor, what: str) -> Tensor:
    if given is None:
        return like
    if given.shape != like.shape:
        raise ValueError(f"{what} must be {tuple(like.shape)}, got {tuple(given.shape)}")
    return given.to(like)


def _complain(wrong: Int[Tensor, B], where: str) -> None:
    """Of the first tree that something is wrong with."""
    if wrong.any():
        b = int((wrong > 0).int().argmax())
        tree.complain(int(wrong[b]), f"{where}, tree {b}")
