import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from PIL import Image

from experiments import plots
from experiments.plots.returns import GRID_POINTS
from mbrl import statistics


def rng(seed=0):
    return np.random.default_rng(seed)


def band(ax, index=0):
    """x, low and high of the index-th filled band."""
    poly = [c for c in ax.collections if isinstance(c, PolyCollection)][index]
    corners = np.asarray(poly.get_paths()[0].vertices)
    x = np.unique(corners[:, 0])
    return x, *(np.array([f(corners[corners[:, 0] == v, 1]) for v in x]) for f in (min, max))


def line(ax, label):
    return next(a for a in ax.lines if a.get_label() == label).get_xydata().T


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def check_png(figure, path, width, height):
    assert plots.save(figure, path) == path
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (round(width * plots.DPI), round(height * plots.DPI))
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.01, "an empty page"


def test_learning_curve_shows_means_and_intervals(tmp_path):
    steps = np.arange(150, 1500, 150)
    values = rng().normal(100, 10, size=(5, 9))
    figure = plots.learning_curve(
        {"PETS": [(steps, v) for v in values], "once": [(steps, values[0])]},
        references={"solved": 115.0, "published": [(300, 50), (900, 120)]},
    )
    check_png(figure, tmp_path / "new" / "a.png", 7.4, 4.4)
    ax = figure.axes[0]
    x, y = line(ax, "PETS (5 seeds)")
    np.testing.assert_array_equal(x, steps)
    np.testing.assert_allclose(y, statistics.iqm(values, axis=0))
    expected = statistics.learning_curve([(steps, v) for v in values], rng=rng(), resamples=1000)
    x, low, high = band(ax)
    np.testing.assert_array_equal(x, steps)
    np.testing.assert_allclose(low, expected.low)
    np.testing.assert_allclose(high, expected.high)
    assert sum(isinstance(c, PolyCollection) for c in ax.collections) == 1  # none for one seed
    np.testing.assert_array_equal(line(ax, "once (1 seed)")[1], values[0])
    np.testing.assert_array_equal(line(ax, "published"), [[300, 900], [50, 120]])
    assert any(set(a.get_ydata()) == {115.0} for a in ax.lines)
    assert any(t.get_text() == "solved: 115" for t in ax.texts)


def test_long_learning_curves_are_thinned():
    steps = np.arange(5000)
    figure = plots.learning_curve({"a": [(steps, np.sqrt(steps)), (steps, steps * 0.0)]})
    x, y = line(figure.axes[0], "a (2 seeds)")
    assert len(x) == GRID_POINTS and (x[0], x[-1]) == (0, 4999)
    np.testing.assert_allclose(y, np.sqrt(np.floor(x)) / 2)


def test_model_error_shows_quartiles_by_horizon(tmp_path):
    errors = np.abs(rng().normal(size=(40, 12))) + 0.1
    still = np.linspace(0.2, 3, 12)
    figure = plots.model_error({"model": errors}, baseline=still)
    check_png(figure, tmp_path / "a.png", 7.4, 4.4)
    ax = figure.axes[0]
    x, low, high = band(ax)
    np.testing.assert_array_equal(x, np.arange(1, 13))
    np.testing.assert_allclose([low, high], np.quantile(errors, (0.25, 0.75), axis=0))
    np.testing.assert_allclose(line(ax, "model")[1], np.median(errors, axis=0))
    np.testing.assert_allclose(line(ax, "predict no change")[1], still)
    assert ax.get_yscale() == "log"
    figure = plots.model_error({"perfect": np.zeros((3, 4))})
    assert figure.axes[0].get_yscale() == "linear"


def test_open_loop_shows_frames_above_their_predictions(tmp_path):
    truth = np.random.default_rng(0).random((30, 5, 4, 9))
    figure = plots.open_loop(truth, 0 * truth, context=4)
    images = [ax.images[0].get_array() for ax in figure.axes]
    columns = len(images) // 3
    titles = [ax.get_title() for ax in figure.axes[:columns]]
    assert titles[:3] == ["seen", "seen", "+1"] and titles[-1] == "+26"
    np.testing.assert_array_equal(images[columns - 1], truth[-1, ..., 6:])
    np.testing.assert_array_equal(images[2 * columns - 1], 0 * truth[-1, ..., 6:])
    np.testing.assert_allclose(images[-1], truth[-1, ..., 6:].mean(-1))
    assert plots.save(figure, tmp_path / "frames.png").stat().st_size > 1000


def test_open_loop_shows_vectors_as_lines_from_the_last_observation_seen():
    truth = np.arange(40.0).reshape(10, 4)
    figure = plots.open_loop(truth, truth + 1, context=3)
    observed, seen, ahead = figure.axes[1].lines
    np.testing.assert_array_equal(observed.get_ydata(), truth[:, 1])
    np.testing.assert_array_equal(seen.get_ydata(), truth[:3, 1] + 1)
    np.testing.assert_array_equal(ahead.get_ydata(), truth[2:, 1] + 1)
    assert list(ahead.get_xdata()) == [*range(8)]


def test_predicted_return_shows_correlation_and_bias(tmp_path):
    realised = np.array([10.0, 20.0, 30.0, 40.0])
    predicted = realised + np.array([4.0, 6.0, 6.0, 4.0])
    figure = plots.predicted_return(predicted, realised)
    check_png(figure, tmp_path / "a.png", 5.4, 5.2)
    ax = figure.axes[0]
    dots = next(c for c in ax.collections if isinstance(c, PathCollection))
    np.testing.assert_array_equal(dots.get_offsets(), np.stack([predicted, realised], 1))
    r = np.corrcoef(predicted, realised)[0, 1]
    assert f"4 plans: correlation {r:.2f}, bias +5" in legend(ax)
    x, y = line(ax, "predicted = realised")
    np.testing.assert_array_equal(x, y)
    figure = plots.predicted_return([1.0, 1.0], [2.0, 3.0])
    assert "2 plans: correlation none, bias -1.5" in legend(figure.axes[0])


def test_calibration_shows_coverage_and_area(tmp_path):
    levels = np.array([0.25, 0.5, 0.75])
    sure = np.array([[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]])  # two dimensions, 0.1, 0.3, 0.5 pooled
    figure = plots.calibration(levels, {"true": levels, "sure": sure})
    check_png(figure, tmp_path / "a.png", 5.4, 5.2)
    ax = figure.axes[0]
    # Gaps 0, .15, .2, .25, 0 at steps of a quarter.
    assert legend(ax)[1:] == ["true: area 0.000", "sure: area 0.150"]
    x, y = line(ax, "sure: area 0.150")
    np.testing.assert_allclose(x, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(y, [0, 0.1, 0.3, 0.5, 1])


def test_spread_shows_stds_and_errors_of_each_dimension(tmp_path):
    t = np.arange(50) * 0.04
    aleatoric, epistemic = rng(1).uniform(0.5, 1, (50, 5)), rng(2).uniform(0, 2, (50, 5))
    error = rng(3).normal(size=(50, 5)) * np.sqrt(aleatoric + epistemic)
    names = [f"x{d} (m)" for d in range(5)]
    figure = plots.spread(t, aleatoric, epistemic, error, names)
    check_png(figure, tmp_path / "a.png", 10, 1 + 3 * 1.74)
    assert len(figure.axes) == 5
    for d, ax in enumerate(figure.axes):
        np.testing.assert_allclose(line(ax, "aleatoric std")[1], np.sqrt(aleatoric[:, d]))
        np.testing.assert_allclose(line(ax, "epistemic std")[1], np.sqrt(epistemic[:, d]))
        np.testing.assert_allclose(line(ax, "real one-step error")[1], np.abs(error[:, d]))
        total = np.sqrt(aleatoric + epistemic)[:, d]
        np.testing.assert_allclose(band(ax)[2], 2 * total)
        share = 100 * np.mean(np.abs(error[:, d]) <= 2 * total)
        assert ax.get_title(loc="left") == f"{names[d]}: {share:.0f} % of errors within 2 std"
    figure = plots.spread(t, aleatoric[:, :2], epistemic[:, :2], error[:, :2], names[:2])
    check_png(figure, tmp_path / "b.png", 7.4, 1 + 2 * 1.74)


def test_horizon_spread_stacks_aleatoric_and_epistemic_std(tmp_path):
    aleatoric, epistemic = np.array([1.0, 4.0, 9.0]), np.array([0.0, 5.0, 16.0])
    error = [0.5, -1.0, 6.0]
    figure = plots.horizon_spread(aleatoric, epistemic, error=error)
    check_png(figure, tmp_path / "a.png", 7.4, 4.4)
    ax = figure.axes[0]
    np.testing.assert_allclose(band(ax, 0)[1:], [[0, 0, 0], [1, 2, 3]])
    np.testing.assert_allclose(band(ax, 1)[1:], [[1, 2, 3], [1, 3, 5]])
    np.testing.assert_allclose(line(ax, "error met")[1], [0.5, 1, 6])
    assert ax.get_title(loc="left") == "64 % of the last step's variance is epistemic"


def test_bars_show_means_intervals_and_seeds(tmp_path):
    values = {"0.5": rng(1).normal(40, 5, 5), "1.5": rng(2).normal(-120, 5, 4)}
    figure = plots.bars(values, title="versions")
    check_png(figure, tmp_path / "a.png", 7.4, 4.4)
    ax = figure.axes[0]
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [statistics.iqm(v) for v in values.values()])
    for container, scores in zip(
        (c for c in ax.containers if hasattr(c, "has_yerr")), values.values(), strict=True
    ):
        (_, low), (_, high) = container.lines[2][0].get_segments()[0]
        expected = statistics.bootstrap_interval(scores, rng=rng())
        np.testing.assert_allclose([low, high], expected[1:])
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    for cloud, scores in zip(dots, values.values(), strict=True):
        np.testing.assert_allclose(np.asarray(cloud.get_offsets())[:, 1], scores)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "1.5"]


def test_grouped_bars_keep_place_and_colour():
    values = {
        "calm": {"open": [1.0, 2.0], "closed": [3.0]},
        "noise": {"closed": [4.0], "open": [0.5]},
    }
    ax = plots.bars(values, title="loops").axes[0]
    assert legend(ax) == ["open", "closed"]
    centre = {bar.get_height(): bar.get_x() + bar.get_width() / 2 for bar in ax.patches[:4]}
    assert centre == pytest.approx({1.5: -0.2, 3.0: 0.2, 4.0: 1.2, 0.5: 0.8})
    colour = {bar.get_height(): bar.get_facecolor() for bar in ax.patches[:4]}
    assert colour[1.5] == colour[0.5] != colour[3.0] == colour[4.0]


def test_frontier_shows_points_with_intervals(tmp_path):
    points = [(50.0, 120.0, 110.0, 125.0), (5.0, 90.0, 70.0, 95.0)]
    figure = plots.frontier({"iCEM": points})
    check_png(figure, tmp_path / "a.png", 7.4, 4.4)
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    curve, _, (bars,) = ax.containers[0].lines
    np.testing.assert_array_equal(curve.get_xydata(), [[5, 90], [50, 120]])
    np.testing.assert_allclose(bars.get_segments(), [[[5, 70], [5, 95]], [[50, 110], [50, 125]]])


def test_the_same_data_give_the_same_bytes(tmp_path):
    runs = [(np.arange(5), v) for v in rng().normal(size=(4, 5))]
    a = plots.save(plots.learning_curve({"a": runs}), tmp_path / "a.png").read_bytes()
    np.random.seed(7)
    assert plots.save(plots.learning_curve({"a": runs}), tmp_path / "b.png").read_bytes() == a


def test_curves_keep_their_colour_in_every_panel(tmp_path):
    values = rng().normal(10, 1, (30, 4))
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    a, b = plots.Curve.quartiles(values), plots.Curve([1, 2], [3.0, 4.0])
    figure = plots.curves(
        {"left": {"a": a, "b": b}, "right": {"b": b}, "below": {"a": a}},
        title="t", xlabel="x", ylabel="y", log="y", columns=2, size=(8, 6), styles={"mean": "--"},
    )  # fmt: skip
    check_png(figure, tmp_path / "a.png", 8, 6)
    left, right, below = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["left", "right", "below"]
    x, *edges = band(left)
    np.testing.assert_array_equal(x, [1, 2, 3, 4])
    np.testing.assert_allclose(edges, [low, high])
    np.testing.assert_allclose(line(left, "a")[1], middle)
    assert not any(isinstance(c, PolyCollection) for c in right.collections)  # no band
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()
    assert below.lines[0].get_color() == left.lines[0].get_color()
    assert (left.get_ylabel(), right.get_ylabel(), below.get_ylabel()) == ("y", "", "y")
    assert (left.get_xlabel(), right.get_xlabel(), below.get_xlabel()) == ("", "x", "x")
    assert left.get_yscale() == "log" and left.get_xscale() == "linear"
    (names,) = figure.legends
    assert [text.get_text() for text in names.get_texts()] == ["a", "b", "mean"]


@pytest.mark.parametrize("span", [(0.85, 1.6), (0.9, 4.0), (0.01, 1.0), (1e-3, 1e3)])
def test_a_logarithmic_axis_has_several_numbers_whatever_it_spans(span):
    figure, (ax,) = plots.panels("title", 1, 1, (6.0, 4.0))
    ax.set(yscale="log", ylim=span)
    plots.plain_log(ax.yaxis)
    figure.canvas.draw()
    inside = [tick for tick in ax.get_yticks() if span[0] <= tick <= span[1]]
    shown = [label.get_text() for label in ax.get_yticklabels() if label.get_text()]
    assert len(inside) >= 3 and {f"{tick:g}" for tick in inside} <= set(shown)


@pytest.mark.parametrize("width", [4.0, 7.0, 14.0])
def test_a_legend_below_has_as_many_columns_as_there_is_room_for(width):
    figure, _ = plots.panels("title", 1, 1, (width, 4.0))
    for number in range(6):
        figure.axes[0].plot([0, 1], label=f"a label of some length {number}")
    plots.legend_below(figure, styles={"dashed": "--"})
    (legend,) = figure.legends
    figure.canvas.draw()
    assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= figure.bbox.width
    assert len(legend.get_texts()) == 7 and legend._ncols == {4.0: 1, 7.0: 3, 14.0: 6}[width]


def test_several_figures_are_saved_side_by_side(tmp_path):
    parts = [plots.bars({"a": [1.0]}, title=title) for title in ("one", "two")]
    parts.append(plots.calibration([0.5], {"a": [0.4]}))
    parts[-1].set_size_inches(3, 4.4)
    with Image.open(plots.save(parts, tmp_path / "all.png")) as image:
        assert image.size == (round(17.8 * plots.DPI), round(4.4 * plots.DPI))
        whole = np.asarray(image)
    with Image.open(plots.save(parts[1], tmp_path / "two.png")) as image:
        two = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(whole[:, two.shape[1] : 2 * two.shape[1]], two)
    assert {path.name for path in tmp_path.iterdir()} == {"all.png", "two.png"}


NAN = [1.0, np.nan]


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda: plots.learning_curve({}), "curves: is empty"),
        (lambda: plots.learning_curve({"a": [([0, 1], NAN)]}), r"curves\[0\] values: has NaN"),
        (lambda: plots.learning_curve({"a": []}), "curves: want at least one run"),
        (lambda: plots.learning_curve({"a": [([0], [1])]}, references={"r": np.nan}), "'r'"),
        (lambda: plots.model_error({}), "horizon_errors: is empty"),
        (lambda: plots.model_error({"pets": np.ones(3)}), r"pets: want 2 .* got shape \(3,\)"),
        (lambda: plots.open_loop(np.ones((3, 2)), np.ones((3, 1)), context=1), "predicted: want"),
        (lambda: plots.open_loop(np.ones((3, 2)), np.ones((3, 2)), context=3), "want 1 to 2 steps"),
        (lambda: plots.predicted_return([1.0], [1.0]), "at least 2, got 1 and 1"),
        (lambda: plots.predicted_return([1.0, 2.0], NAN), "realised: has NaN"),
        (lambda: plots.calibration([0.5], {}), "observed: is empty"),
        (lambda: plots.calibration([0.5, 0.2], {"a": [0, 1]}), "levels: want them rising"),
        (lambda: plots.calibration([0.5], {"a": [0, 1]}), "a: want one frequency .* 1 levels"),
        (lambda: plots.spread([0], [[1, 1]], [[1]], [[0]], ["x"]), r"aleatoric: .*\(1, 1\)"),
        (lambda: plots.spread([0], [[-1]], [[1]], [[0]], ["x"]), "want variances"),
        (lambda: plots.horizon_spread([1, 2], [1]), "epistemic: want the shape"),
        (lambda: plots.horizon_spread([1], [1], error=[1, 2]), "error: want the shape"),
        (lambda: plots.bars({}, title=""), "values: is empty"),
        (lambda: plots.bars({"a": [], "b": [1]}, title=""), "a: is empty"),
        (lambda: plots.bars({"a": {}, "b": {"c": [1]}}, title=""), "a: is empty"),
        (lambda: plots.bars({"a": {"c": NAN}}, title=""), "a, c: has NaN"),
        (lambda: plots.bars({"a": [1], "b": {"c": [1]}}, title=""), "for every label"),
        (lambda: plots.curves({}, title="", xlabel=""), "each: is empty"),
        (lambda: plots.curves({"a": {}}, title="", xlabel=""), "a: is empty"),
        (lambda: plots.frontier({"a": [(0, 1, 1, 1)]}), "a: want .milliseconds > 0"),
        (lambda: plots.frontier({"a": [(1, 1, 2, 3)]}), "a: want low <= return"),
    ],
)
def test_bad_input_is_refused_by_name(call, culprit):
    with pytest.raises(ValueError, match=culprit):
        call()


def test_a_run_of_one_episode_is_drawn_as_a_point():
    figure = plots.learning_curve({"one": [([150], [3.0])]})
    marked = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(marked) == 1 and marked[0].get_xydata().tolist() == [[150.0, 3.0]]
