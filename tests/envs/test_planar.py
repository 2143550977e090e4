"""Image tasks in the plane: their dynamics, pictures and environments."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from PIL import Image, ImageDraw
from scipy.integrate import solve_ivp

import envs
from envs import planar_tasks as planar
from mbrl.spaces import spec_of
from mbrl.training.collect import vector

NAMES = list(envs.PLANAR)


def drawn(seed, name, count):
    draw = np.random.default_rng(seed)
    task = envs.PLANAR[name]
    return task.states(draw, count), draw.uniform(-1, 1, (count, task.action_size))


def solved(rates, state):
    return solve_ivp(lambda _, s: rates(s), (0, 0.02), state, rtol=1e-10, atol=1e-10).y[:, -1]


def wrapped(angle):
    return math.atan2(math.sin(angle), math.cos(angle))


def test_the_pendulum_follows_its_equation():
    states, actions = drawn(0, "pc3-pendulum-swingup", 30)
    found = planar.swing(states, actions)
    for state, action, after in zip(states, actions, found, strict=True):
        torque = 0.65 * action[0]

        def rates(s, torque=torque):  # inertia 0.1 · 0.5² / 3; gravity's torque 0.1 · 9.81 · 0.5
            return [s[1], (0.4905 * np.sin(s[0]) - torque) / (0.025 / 3)]

        angle, spin = solved(rates, state)
        wanted = [wrapped(angle), np.clip(spin, -3 * np.pi, 3 * np.pi)]
        np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_the_cart_pole_follows_lagranges_equations():
    states, actions = drawn(1, "pc3-cartpole", 30)
    found = planar.balance(states, actions)
    for state, action, after in zip(states, actions, found, strict=True):
        force = 10 * action[0]

        def rates(s, force=force):
            _, spin, _, speed = s
            cos, sin = np.cos(s[0]), np.sin(s[0])
            # 0.1 kg, half a length of 0.5 m, and a cart of 1 kg
            inertia = [[4 / 3 * 0.1 * 0.25, 0.05 * cos], [0.05 * cos, 1.1]]
            turn, push = np.linalg.solve(inertia, [0.05 * 9.81 * sin, force + 0.05 * spin**2 * sin])
            return [spin, turn, speed, push]

        angle, spin, place, speed = solved(rates, state)
        wanted = wrapped(angle), np.clip(spin, -2 * np.pi, 2 * np.pi), place, np.clip(speed, -6, 6)
        np.testing.assert_allclose(after, wanted, atol=1e-5)


def test_a_move_onto_an_obstacle_or_off_the_field_is_not_made():
    states = np.array([[20.5, 8.9], [20.5, 9.3], [2.0, 2.0], [10.0, 10.0]])
    actions = np.array([[0, -1.0], [0, -1.0], [-1.0, 0.5], [1 / 3, -5.0]])
    wanted = [[20.5, 8.9], [20.5, 9.3 - 3], [1.5, 3.5], [11.0, 7.0]]
    wanted[1] = [20.5, 9.3]  # 6.3 is within 1.5 of the obstacle at 5.5
    np.testing.assert_allclose(planar.navigate(states, actions), wanted)
    random, moves = drawn(2, "pc3-planar", 2000)
    for places in (random, planar.navigate(random, moves)):
        for centre in planar.OBSTACLES:
            assert (np.abs(places - centre).max(-1) > 1.5).all()


def in_wall(x, y, thicker=0.0):
    """Whether points are outside the square or in the wall beside the door."""
    outside = (np.minimum(x, y) < 5) | (np.maximum(x, y) > 60)
    beside = (y < 6 + thicker) | (y > 15 - thicker)
    return outside | ((x > 31 - thicker) & (x < 34 + thicker) & beside)


def test_the_dot_stops_where_its_path_meets_a_wall():
    states, actions = drawn(3, "two-rooms", 3000)
    draw = np.random.default_rng(4)
    states[:1500] = draw.uniform((28, 5.1), (37, 20), (1500, 2))
    free = ~in_wall(*states.T, thicker=0.01)
    states, actions = states[free], actions[free]
    found = planar.walk(states, actions)
    assert not in_wall(*found.T).any()
    stopped = 0
    for state, action, after in zip(states, actions, found, strict=True):
        # outside the square each axis is clipped first; then the path is followed in small parts
        target = np.clip(state + 2.45 * action, 5.01, 59.99)
        parts = np.linspace(0, 1, 2001)[:, None]
        path = state + parts * (target - state)
        hit = in_wall(*path.T, thicker=0.01)
        end = path[max(0, int(hit.argmax()) - 1)] if hit.any() else target
        stopped += hit.any()
        assert np.linalg.norm(after - end) < 0.003, (state, action)
    assert stopped > 50


def test_a_dot_that_is_pushed_against_walls_for_long_stays_out_of_them():
    draw = np.random.default_rng(7)
    for kind in (np.float32, np.float64):
        place = envs.PLANAR["two-rooms"].states(draw, 500).astype(kind)
        push = draw.uniform(-1, 1, (500, 2)).astype(kind)
        for _ in range(300):
            shaken = push + (0.2 * draw.standard_normal((500, 2))).astype(kind)
            place = planar.walk(place, shaken)
            assert place.dtype == kind and not in_wall(*place.T).any()


def test_the_dot_can_walk_through_the_door():
    state = np.array([29.0, 10.0])
    for _ in range(4):
        state = planar.walk(state, np.array([1.0, 0.0]))
    np.testing.assert_allclose(state, [29 + 4 * 2.45, 10])


def test_the_planar_picture_is_the_published_one_where_places_are_whole():
    # white squares of 2 x 2, and circles that Pillow draws with whole-numbered corners
    image = Image.new("L", (40, 40))
    pen = ImageDraw.Draw(image)
    for row, column in planar.OBSTACLES:
        y, x = int(row), int(column)
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=255)
    wanted = np.array(image)
    wanted[29:31, 6:8] = 255
    frame = envs.PLANAR["pc3-planar"].frames(np.array([30.0, 7.0]))[..., 0]
    assert np.array_equal(frame[29:31, 6:8], wanted[29:31, 6:8])
    assert ((frame > 127) != (wanted > 127)).sum() == 0


def fine_line(size, width, start, end, more=lambda pen, s: None, s=16):
    """A line with round ends, drawn by Pillow at 16 times the size."""
    image = Image.new("L", (size * s, size * s))
    pen = ImageDraw.Draw(image)
    points = [(x * s, y * s) for x, y in (start, end)]
    pen.line(points, width=width * s, fill=255)
    r = width * s / 2
    for x, y in points:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    more(pen, s)
    return np.asarray(image, np.float64).reshape(size, s, size, s).mean((1, 3))


def test_pendulums_and_cart_poles_are_pictured_as_published():
    rod, cart = envs.PLANAR["pc3-pendulum-balance"], envs.PLANAR["pc3-cartpole"]
    for angle in (-2.5, -0.4, 0.0, 1.1, 3.0):
        tip = 24 + 22 * math.sin(angle), 24 - 22 * math.cos(angle)
        wanted = fine_line(48, 4, (24, 24), tip)
        frame = rod.frames(np.array([angle, 0.0]))[..., 0]
        assert np.abs(frame - wanted).mean() < 0.8
        place = angle / 2
        x, y = 40 + place / 2.4 * 32, 70
        tip = x + 52 * math.sin(angle), y - 52 * math.cos(angle)

        def body(pen, s, x=x, y=y):
            pen.rectangle(((x - 8) * s, (y - 4) * s, (x + 8) * s - 1, (y + 4) * s - 1), fill=255)

        wanted = fine_line(80, 6, (x, y), tip, body)
        frame = cart.frames(np.array([angle, 0.0, place, 0.0]))[..., 0]
        assert np.abs(frame - wanted).mean() < 0.8


def test_two_rooms_show_the_dot_and_the_walls_apart():
    frame = envs.PLANAR["two-rooms"].frames(np.array([20.5, 30.5]))
    dots, walls = frame[..., 0].astype(int), frame[..., 1]
    assert dots.sum() / 255 == pytest.approx(math.pi * 1.5**2, rel=0.05)
    assert (dots.sum(0) @ (np.arange(65) + 0.5) / dots.sum()) == pytest.approx(20.5, abs=0.01)
    assert (dots.sum(1) @ (np.arange(65) + 0.5) / dots.sum()) == pytest.approx(30.5, abs=0.01)
    wanted = np.zeros((65, 65))
    wanted[15:60, 31:34] = wanted[5:6, 31:34] = 255
    wanted[4, 4:61] = wanted[60, 4:61] = wanted[4:61, 4] = wanted[4:61, 60] = 255
    assert np.array_equal(walls, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_torch_steps_and_draws_the_same(name):
    task, (states, actions) = envs.PLANAR[name], drawn(5, name, 12)
    after = task.step(states, actions)
    theirs = task.step(torch.from_numpy(states), torch.from_numpy(actions))
    np.testing.assert_allclose(after, theirs.numpy(), atol=1e-9)
    frames = task.frames(theirs.reshape(3, 4, -1))
    assert frames.dtype == torch.uint8 and frames.shape[:2] == (3, 4)
    ours = task.frames(after).reshape(frames.shape)
    assert np.abs(ours.astype(int) - frames.numpy()).max() <= 1
    goal = np.array(task.goal)
    reached = task.reached(torch.from_numpy(after), torch.from_numpy(goal))
    assert np.array_equal(task.reached(after, goal), reached.numpy())
    # nothing is computed on another device than the states'
    elsewhere = torch.empty(5, states.shape[1], device="meta")
    moved = task.step(elsewhere, torch.empty(5, task.action_size, device="meta"))
    assert task.frames(moved).device.type == "meta"


@pytest.mark.parametrize("name", NAMES)
def test_triples_are_steps_from_random_states(name):
    task = envs.PLANAR[name]
    made = task.triples(np.random.default_rng(6), 50)
    again = task.triples(np.random.default_rng(6), 50)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert made.obs.shape == made.next_obs.shape == (50, *task.shape)
    assert made.obs.dtype == np.uint8 and np.abs(made.action).max() <= 1
    after = task.step(made.state.astype(np.float64), made.action.astype(np.float64))
    np.testing.assert_allclose(made.next_state, after, atol=1e-3)
    if task.pictures == 2:
        assert np.array_equal(made.obs[..., 1], made.next_obs[..., 0])
        assert (made.obs[..., 0] != made.obs[..., 1]).any()
    newest = task.frames(made.state)
    assert np.array_equal(made.obs[..., -task.channels :], newest)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        task.triples(np.random.default_rng(0), 0)
    with pytest.raises(ValueError, match=rf"{name}: want states"):
        task.frames(np.zeros((2, 7)))


@pytest.mark.parametrize("name", NAMES)
def test_walks_are_steps_each_from_where_the_one_before_ended(name):
    task = envs.PLANAR[name]
    made = task.walks(np.random.default_rng(7), 5, length=8)
    again = task.walks(np.random.default_rng(7), 5, length=8)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert made.obs.shape == (40, *task.shape) and np.abs(made.action).max() <= 1
    assert np.array_equal(made.state[5:], made.next_state[:-5])
    assert np.array_equal(made.obs[5:], made.next_obs[:-5])
    after = task.step(made.state.astype(np.float64), made.action.astype(np.float64))
    np.testing.assert_allclose(made.next_state, after, atol=1e-3)
    kept = task.walks(np.random.default_rng(7), 5, length=8, turns=0.0, noise=0.0)
    assert np.array_equal(kept.action[:-5], kept.action[5:])
    for wrong in ({"count": 0}, {"count": 5, "length": 0}):
        with pytest.raises(ValueError, match="count and length must be at least 1"):
            task.walks(np.random.default_rng(0), **wrong)


def test_both_pictures_of_every_step_of_a_walk_show_how_fast_it_moves():
    made = envs.PLANAR["pc3-pendulum-swingup"].walks(np.random.default_rng(8), 40, length=3)
    seen, speed = made.obs.astype(float), np.abs(made.state[:, 1])
    changed = np.abs(seen[..., 0] - seen[..., 1]).sum((1, 2))
    for step in np.split(np.arange(120), 3):
        # a rod that turns faster changes more of the picture
        assert np.corrcoef(speed[step], changed[step])[0, 1] > 0.95


def test_walks_in_two_rooms_stand_at_walls_where_random_states_do_not():
    def touching(found):
        return np.mean(np.abs(found.state[:, 0] - 31) < 0.02)

    task, rng = envs.PLANAR["two-rooms"], np.random.default_rng(0)
    assert touching(task.triples(rng, 2000)) < 0.002
    assert touching(task.walks(rng, 100)) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_environments_keep_gymnasiums_rules(name):
    env = envs.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    task = envs.PLANAR[name]
    obs, info = env.reset(seed=3)
    assert obs.shape == task.shape and obs.dtype == np.uint8
    for _ in range(task.episode_steps):
        before, (obs, reward, terminated, truncated, info) = (
            info,
            env.step(env.action_space.sample()),
        )
        reached = task.reached(info["state"].astype(float), info["goal"].astype(float))
        assert reward == reached and not terminated
    assert truncated
    assert np.array_equal(obs, task.observation(before["state"], info["state"]))
    told = spec_of(env)
    assert (told.reward, told.terminated, told.ends) == (None, None, False)
    assert envs.known(name).terminated is envs.never


def test_a_goal_can_be_asked_for():
    env = envs.make("pc3-planar", goal=(37, 3))
    _, info = env.reset(seed=0)
    assert info["goal"].tolist() == [37, 3]
    _, info = env.reset(seed=0, options={"goal": info["state"] + [3, 0]})
    assert env.step(np.array([0.8, 0]))[1] == 1
    picture = env.unwrapped.goal_observation()
    assert np.array_equal(picture, env.unwrapped.task.frames(info["goal"]))
    _, info = env.reset(seed=0)
    assert info["goal"].tolist() == [37, 3]
    for name in NAMES:
        drawn = envs.PLANAR[name].draw_goal(np.random.default_rng(0))
        assert drawn.shape == (len(envs.PLANAR[name].goal),)
    with pytest.raises(ValueError, match="pc3-planar: goal must be 2 finite numbers"):
        env.reset(options={"goal": (1, 2, 3)})


def test_bad_steps_are_refused():
    env = envs.make("two-rooms").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2))
    env.reset(seed=0)
    for action in (np.zeros(3), np.array([np.nan, 0])):
        with pytest.raises(ValueError, match="two-rooms: want a finite action of shape"):
            env.step(action)


def test_several_are_stepped_side_by_side_and_shown():
    pair = vector([lambda: envs.make("two-rooms")] * 2)
    pair.reset(seed=[0, 1])
    obs, _, _, _, infos = pair.step(pair.action_space.sample())
    assert obs.shape == (2, 65, 65, 2) and obs.dtype == np.uint8
    assert infos["state"].shape == (2, 2)
    env = envs.make("two-rooms", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (260, 260, 3)
