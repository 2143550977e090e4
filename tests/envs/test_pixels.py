"""Environments as seen by cameras. Without OpenGL only names, settings and errors are tested."""

import dataclasses

import gymnasium
import mujoco
import numpy as np
import pytest
from PIL import Image

import envs
from envs.mujoco_env import open_renderer
from envs.pixels import DISTRACTING, grey, named
from mbrl.spaces import spec_of
from mbrl.training.collect import vector

TINY = mujoco.MjModel.from_xml_string("<mujoco/>")


@pytest.fixture(scope="module")
def opengl():
    """Skips a test where there is no OpenGL."""
    try:
        open_renderer(TINY, 8, 8).close()
    except envs.RenderingUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def make(opengl):
    """`envs.make`; closes what it made."""
    made = []

    def make(*args, **kwargs):
        made.append(envs.make(*args, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def played(env, seed, steps=3):
    """Observations, states and rewards of an episode's first steps by fixed actions."""
    draw = np.random.default_rng(9)
    obs, info = env.reset(seed=seed)
    rows = [(obs, info["state"], 0.0)]
    for _ in range(steps):
        action = draw.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, _, _, info = env.step(action)
        rows.append((obs, info["state"], reward))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


# --- names and settings


def test_a_name_says_what_is_seen():
    assert named("half-cheetah-pixels") == ("half-cheetah", envs.View())
    assert named("x:TASK-pixels-84-stack4-grey") == ("x:TASK", envs.View(84, 4, grey=True))
    assert named("a-pixels-distract") == ("a", envs.View(**DISTRACTING))
    for name in ("half-cheetah", "-pixels", "a-pixelsize"):
        assert named(name) is None


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("cartpole-swingup-pixels-big", {}, "must be -SIZE, -stackN, -grey or -distract, not -big"),
        (
            "cartpole-swingup-pixels-stack0",
            {},
            "unknown environment 'cartpole-swingup-pixels-stack0': stack must be an integer of",
        ),
        ("nothing-pixels", {}, "unknown environment 'nothing'"),
        ("Pendulum-v1-pixels", {}, "Pendulum-v1-pixels: Pendulum-v1 has no MuJoCo model"),
        ("pc3-planar-pixels", {}, "pc3-planar has no MuJoCo model"),
        ("cartpole-swingup-pixels", {"stack": 0}, "stack must be an integer of at least 1, got 0"),
        ("cartpole-swingup-pixels", {"cameras": "side"}, "cameras must be a tuple of names or"),
        ("cartpole-swingup-pixels", {"light": 2}, "light must lie in 0..1, got 2"),
        ("cartpole-swingup-pixels-9", {}, "size must be more than the 9 channels, got 9"),
        (
            "cartpole-swingup-pixels",
            {"cameras": ("back",)},
            "cartpole-swingup-pixels: no camera 'back'; there are 'side', -1",
        ),
    ],
)
def test_a_wrong_name_or_setting_is_refused_in_a_line(name, settings, says):
    with pytest.raises(ValueError) as error:
        envs.make(name, **settings)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_is_known_of_an_environment_is_not_known_of_its_frames():
    env = envs.make("cartpole-swingup-pixels-32", max_episode_steps=7)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (32, 32, 9), np.uint8)
    told = spec_of(env)
    assert (told.reward, told.terminated, told.ends, told.episode_steps) == (None, None, False, 7)
    assert env.metadata["known"]["task"] is None and env.spec.id == "cartpole-swingup-pixels-32"
    assert env.metadata["known"]["why"] == "frames of cartpole-swingup do not give its reward"
    assert envs.known("cartpole-swingup-pixels")[:2] == (None, envs.never)
    assert spec_of(envs.make("InvertedPendulum-v5-pixels")).ends
    assert envs.known("InvertedPendulum-v5-pixels").terminated is None
    assert spec_of(envs.make("half-cheetah-pixels", action_repeat=4)).episode_steps == 250
    with pytest.raises(ValueError, match="no simulator to plan through"):
        envs.simulated("half-cheetah-pixels")
    shown = envs.describe("half-cheetah-pixels-84-grey-stack1")
    assert (shown.obs_dim, shown.reward_known) == (84 * 84, False)


def test_without_opengl_a_line_names_what_to_install(monkeypatch):
    def broken(*args):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    env = envs.make("cartpole-swingup-pixels")
    with pytest.raises(envs.RenderingUnavailable, match="apt install libegl1 libgl1") as error:
        env.reset(seed=0)
    assert "\n" not in str(error.value)


def test_grey_is_pillows():
    frames = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(frames).convert("L"))
    assert np.abs(grey(frames).astype(int) - wanted).max() <= 1


# --- frames


@pytest.mark.parametrize("name", ["cartpole-swingup", "half-cheetah", "panda-reach"])
def test_frames_are_those_of_mujocos_renderer_without_shadows(make, name):
    env = make(f"{name}-pixels-64-stack1")
    obs, _ = env.reset(seed=2)
    inner = env.unwrapped
    quality = inner.model.vis.quality
    quality.shadowsize = quality.offsamples = 0
    with mujoco.Renderer(inner.model, 64, 64) as plain:
        mujoco.mj_forward(inner.model, inner.data)
        plain.update_scene(inner.data, inner.task.camera)
        wanted = plain.render()
    assert np.abs(obs.astype(int) - wanted).mean() < 1


def test_a_ball_is_seen_where_a_pinhole_camera_shows_it(make):
    env = make("cartpole-swingup-pixels-64-stack1", max_episode_steps=5)
    model, data = env.unwrapped.model, env.unwrapped.data
    renderer = envs.FrameRenderer(model, 64, ["side"])
    for angle, place in ((0.5, 0.3), (2.2, -1.0), (-1.4, 1.2)):
        data.qpos[:] = place, angle
        mujoco.mj_forward(model, data)
        turn = data.cam_xmat[0].reshape(3, 3)
        x, y, z = turn.T @ (data.geom("tip").xpos - data.cam_xpos[0])
        scale = 32 / np.tan(np.deg2rad(model.cam_fovy[0]) / 2)
        column, row = 32 + scale * x / -z, 32 - scale * y / -z
        frame = renderer.frames(data.qpos[None])[0, 0].astype(int)
        orange = frame[..., 0] - frame[..., 2] > 60
        seen = frame[int(row), int(column)]
        assert seen[0] - seen[2] > 60, (angle, place)
        # nothing orange lies further out than the ball
        columns = np.nonzero(orange)[1]
        hub = 32 + scale * (place - data.cam_xpos[0, 0]) / -z
        away = (columns + 0.5 - column) * np.sign(column - hub)
        assert away.max() < 2.5
    renderer.close()


def test_the_same_positions_give_the_same_bytes(make):
    task = envs.TASKS["half-cheetah"]
    draw = np.random.default_rng(0)
    states = np.stack([task.initial(draw)[0] for _ in range(4)])
    model = task.compile()
    before = model.vis.quality.shadowsize, model.vis.quality.offsamples
    one, other = (envs.FrameRenderer(model, 48, [task.camera, -1]) for _ in range(2))
    frames = one.frames(states)
    assert frames.shape == (4, 2, 48, 48, 3) and frames.dtype == np.uint8
    out = np.empty_like(frames)
    assert other.frames(states[::-1], out=out) is out
    assert np.array_equal(out[::-1], frames)
    assert (frames[0] != frames[1]).any() and (frames[:, 0] != frames[:, 1]).any()
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) == before
    with pytest.raises(ValueError, match=r"out: want uint8 of \(4, 2, 48, 48, 3\), got float64"):
        one.frames(states, out=np.empty(frames.shape))
    with pytest.raises(ValueError, match=r"qpos: want \(N, 9\), got \(9,\)"):
        one.frames(states[0])
    one.close()
    other.close()


@pytest.mark.parametrize("name", ["panda-reach", "Reacher-v5"])
def test_looking_does_not_change_an_episode(make, name):
    plain = make(name)
    draw = np.random.default_rng(9)
    obs, _ = plain.reset(seed=4)
    for distract in ("", "-distract"):
        _, states, rewards = played(make(f"{name}-pixels-32-stack1{distract}"), 4)
        assert np.array_equal(states[0], obs)
        draw = np.random.default_rng(9)
        plain.reset(seed=4)
        for state, reward in zip(states[1:], rewards[1:], strict=True):
            action = draw.uniform(-1, 1, plain.action_space.shape).astype(np.float32)
            after, paid, *_ = plain.step(action)
            assert np.array_equal(after, state) and paid == reward


def test_frames_are_stacked_from_the_oldest_to_the_newest(make):
    alone, _, _ = played(make("pendulum-swingup-pixels-32-stack1"), 0)
    stacked, _, _ = played(make("pendulum-swingup-pixels-32"), 0)
    assert stacked.shape == (4, 32, 32, 9)
    first, one, two, three = alone
    for obs, parts in zip(
        stacked,
        ((first,) * 3, (first, first, one), (first, one, two), (one, two, three)),
        strict=True,
    ):
        assert np.array_equal(obs, np.concatenate(parts, axis=-1))
    assert (one != three).any()


def test_cameras_are_beside_one_another_and_colours_can_be_left_out(make):
    both, _, _ = played(make("half-cheetah-pixels-32", stack=2, cameras=("side", -1)), 0)
    assert both.shape == (4, 32, 32, 12)
    side, _, _ = played(make("half-cheetah-pixels-32-stack2"), 0)
    assert np.array_equal(both[..., [0, 1, 2, 6, 7, 8]], side)
    dim, _, _ = played(make("half-cheetah-pixels-32-stack2-grey"), 0)
    assert np.array_equal(dim, grey(side.reshape(*side.shape[:3], 2, 3)))


def test_of_repeated_actions_only_the_last_frame_is_drawn(make, monkeypatch):
    env = make("cartpole-swingup-pixels-32-stack1", action_repeat=5)
    once = make("cartpole-swingup-pixels-32-stack1")
    env.reset(seed=0)
    once.reset(seed=0)
    drawn = []
    frames = envs.FrameRenderer.frames
    monkeypatch.setattr(
        envs.FrameRenderer, "frames", lambda *a, **k: drawn.append(1) or frames(*a, **k)
    )
    action = np.array([0.7], np.float32)
    obs, reward, *_ = env.step(action)
    assert len(drawn) == 1
    steps = [once.step(action) for _ in range(5)]
    assert np.array_equal(obs, steps[-1][0]) and reward == sum(step[1] for step in steps)


def test_distractions_follow_the_seed_and_change_from_episode_to_episode(make):
    name = "arm-reacher-pixels-32-stack1-distract"
    one, other = make(name), make(name)
    first, _, _ = played(one, 5)
    other.reset(seed=1)
    again, _, _ = played(other, 5)
    assert np.array_equal(first, again)
    next_one, next_other = one.reset()[0], other.reset()[0]
    assert np.array_equal(next_one, next_other) and (next_one != first[0]).any()
    plain, _, _ = played(make("arm-reacher-pixels-32-stack1"), 5)
    for kind in ("colours", "light", "camera"):
        changed, _, _ = played(make("arm-reacher-pixels-32-stack1", **{kind: 0.5}), 5)
        differs = np.abs(changed.astype(int) - plain).mean()
        assert 1 < differs < 100, (kind, differs)


# --- cameras that see nothing

ROOM = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="in wall" pos="2 0 1" xyaxes="0 1 0 0 0 1"/>
    <camera name="away" pos="0 0 5" xyaxes="1 0 0 0 -1 0"/>
    <camera name="good" pos="-2 0 1" xyaxes="0 -1 0 0 0 1"/>
    <camera name="below" pos="0 0 -1" xyaxes="1 0 0 0 1 0"/>
    <geom name="floor" type="plane" size="4 4 .1" rgba=".3 .6 .3 1"/>
    <geom name="wall" type="box" pos="2 0 1" size=".2 2 1"/>
    <body pos="0 0 .5"><joint type="slide" axis="1 0 0"/><geom size=".3" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""


def test_a_camera_that_sees_nothing_is_named(opengl, tmp_path):
    file = tmp_path / "room.xml"
    file.write_text(ROOM)
    task = dataclasses.replace(
        envs.TASKS["pendulum-swingup"],
        name="room",
        mjcf=file,
        observation=lambda physics: physics.qpos,
        reward=lambda obs, action, next_obs: obs[..., 0],
        initial=lambda rng: (np.zeros(1), np.zeros(1)),
        traces=(),
        camera="good",
    )
    envs.register(task)
    says = {
        "in wall": "room-pixels: camera 'in wall' is inside the geom 'wall'",
        "below": "room-pixels: camera 'below' is inside the geom 'floor'",
        "away": "room-pixels: camera 'away' sees nothing: its frame has one colour, (0, 0, 0)",
    }
    try:
        for camera, wanted in says.items():
            env = envs.make("room-pixels", cameras=("good", camera))
            with pytest.raises(ValueError) as error:
                env.reset(seed=0)
            assert str(error.value) == wanted
            env.close()
        env = envs.make("room-pixels")
        obs, _ = env.reset(seed=0)
        assert (obs[..., 0].astype(int) - obs[..., 1] > 100).any()  # the red ball
        env.close()
    finally:
        envs.unregister("room")


SHAPES = {  # a point inside and a point outside
    "sphere' size='.5": ((0.3, 0.3, 0.2), (0.4, 0.4, 0)),
    "capsule' size='.2 .5": ((0.1, 0, 0.6), (0.1, 0.1, 0.69)),
    "cylinder' size='.2 .5": ((0.1, 0.1, 0.49), (0.1, 0, 0.51)),
    "ellipsoid' size='.2 .3 .5": ((0, 0.2, 0.3), (0.15, 0.2, 0.3)),
    "box' size='.2 .3 .5": ((0.19, 0.29, 0.49), (0.21, 0, 0)),
    "plane' size='1 2 .1": ((0.9, 1.9, -0.1), (1.1, 0, -0.1)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_points_inside_geoms_are_found(shape):
    from envs.pixels import _inside

    turned = "euler='20 30 40' pos='1 2 3'"
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody><geom type='{shape}' {turned}/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    inside, outside = (
        data.geom_xpos[0] + data.geom_xmat[0].reshape(3, 3) @ np.array(p) for p in SHAPES[shape]
    )
    assert _inside(model, data, 0, inside) and not _inside(model, data, 0, outside)


# --- the rest of the library


def test_gymnasiums_own_robots_are_seen_and_several_side_by_side(make):
    pair = vector([lambda: make("HalfCheetah-v5-pixels-32")] * 2)
    pair.reset(seed=[0, 1])
    obs, _, _, _, infos = pair.step(np.zeros((2, 6), np.float32))
    assert obs.shape == (2, 32, 32, 9) and obs.dtype == np.uint8
    assert (obs[0] != obs[1]).any() and np.ptp(obs) > 50
    assert infos["state"].shape == (2, 17)


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.make("cartpole-swingup-pixels").step(np.zeros(1, np.float32))
