"""The study of regression on tables, and the tables themselves."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import integrate, stats

from experiments.cli.command import run
from experiments.studies import STUDIES, regression, tables
from experiments.studies.tables import Table
from mbrl.dynamics.table import MODELS as ALL

TINY = regression.fast(regression.SETTINGS["laplace"])


@pytest.fixture
def small():
    """40 rows of two inputs, and two splits."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(40, 2))
    target = inputs @ [1.0, -2.0] + 0.1 * rng.normal(size=40)
    return Table("small", inputs, target, (np.arange(8), np.arange(8, 16)))


MODELS = {name: kind for name, kind in ALL.items() if name != "conditional-vae"}
"""Conditional autoencoders are models of dynamics alone."""


def arrays(table, **changes):
    """The arrays of a table's file."""
    tests = {f"test_{k}": rows for k, rows in enumerate(table.tests)}
    return {"inputs": table.inputs, "target": table.target, **tests, **changes}


@pytest.fixture
def folder(tmp_path, small):
    """A folder with two tables of the same numbers."""
    path = tmp_path / "data"
    path.mkdir()
    for name in ("one", "two"):
        np.savez(path / f"{name}.npz", **arrays(small))
    return path


def test_every_model_of_the_library_has_settings_and_is_that_model():
    assert {name: type(config) for name, config in regression.SETTINGS.items()} == dict(MODELS)
    assert set(regression.DRAWS) <= set(MODELS)


def test_scores_of_a_mixture_equal_densities_and_integrals_by_scipy():
    mean, std, target = [0.3, -1.0, 2.0], [0.5, 1.0, 0.2], 0.8
    column = [torch.tensor(part, dtype=torch.float64).view(-1, 1, 1) for part in (mean, std)]
    got = regression.scores(*column, torch.tensor([[target]], dtype=torch.float64))
    parts = [stats.norm(*part) for part in zip(mean, std, strict=True)]
    middle = np.mean(mean)
    deviation = np.sqrt(np.mean(np.square(std) + np.square(mean)) - middle**2)
    below, _ = integrate.quad(lambda t: np.mean([p.cdf(t) for p in parts]) ** 2, -12, target)
    above, _ = integrate.quad(lambda t: np.mean([p.sf(t) for p in parts]) ** 2, target, 12)
    assert got["rmse"] == pytest.approx(abs(middle - target))
    assert got["nll"] == pytest.approx(-np.log(np.mean([p.pdf(target) for p in parts])))
    assert got["nll_gaussian"] == pytest.approx(-stats.norm(middle, deviation).logpdf(target))
    assert got["crps"] == pytest.approx(below + above, rel=1e-6)
    # the one target is inside a central interval from its own level on
    level = abs(2 * np.mean([p.cdf(target) for p in parts]) - 1)
    share = np.where(level <= regression.LEVELS, 1.0, 0.0)
    assert got["calibration"] == pytest.approx(np.abs(share - regression.LEVELS).mean())


def test_measures_are_in_the_units_of_the_target(small):
    """Of a target 1024 times as large, errors are too, and densities a 1024th."""
    large = replace(small, target=1024 * small.target)
    one, other = (regression.measure(TINY, 2, table, 0) for table in (small, large))
    assert other["rmse"] == pytest.approx(1024 * one["rmse"])
    assert other["crps"] == pytest.approx(1024 * one["crps"])
    assert other["nll"] == pytest.approx(one["nll"] + np.log(1024))
    assert other["nll_gaussian"] == pytest.approx(one["nll_gaussian"] + np.log(1024))
    assert other["calibration"] == one["calibration"]


def test_predictions_do_not_depend_on_the_targets_of_the_test_rows(small):
    """Then (y + c - m)² + (y - c - m)² = 2 (y - m)² + 2 c²."""
    errors = []
    for shift in (-5.0, 0.0, 5.0):
        target = small.target.copy()
        target[small.tests[1]] += shift
        errors.append(regression.measure(TINY, 1, replace(small, target=target), 1)["rmse"] ** 2)
    assert errors[0] + errors[2] == pytest.approx(2 * errors[1] + 50)


def test_a_model_that_draws_anew_predicts_with_the_samples_of_all_draws(small):
    config = replace(regression.fast(regression.SETTINGS["dropout"]), dropout=0.5)
    g = torch.Generator().manual_seed(0)
    model = regression.Regression(2, 1, config, generator=g)
    x = torch.from_numpy(small.inputs).float()
    mean, std = regression.predicted(model, x, 7, generator=g)
    assert mean.shape == std.shape == (7 * config.members, 40, 1)
    assert len(mean[:, 0, 0].unique()) > config.members


def test_a_fit_that_ends_in_nan_is_reported_and_not_scored(small):
    wild = replace(regression.fast(regression.SETTINGS["swag"]), swag_learning_rate=1e12)
    assert "diverged" in regression.measure(wild, 1, small, 0)["failed"]


def test_tables_of_packages_are_read_without_running_the_package(tmp_path, monkeypatch):
    data = tmp_path / "bde" / "data"
    data.mkdir(parents=True)
    (tmp_path / "bde" / "__init__.py").write_text("raise RuntimeError")
    rows = np.random.default_rng(0).normal(2, 3, (50, 4)).round(3)
    np.savetxt(data / "concrete.data", rows)
    np.savetxt(data / "airfoil.csv", rows, delimiter=",", header="a,b,c,target", comments="")
    monkeypatch.syspath_prepend(tmp_path)
    found = tables.shipped(3)
    concrete, airfoil = found["concrete"](), found["airfoil"]()
    assert np.array_equal(np.c_[concrete.inputs, concrete.target], rows)
    assert [len(test) for test in concrete.tests] == [5, 5, 5]
    training, (test,) = airfoil.training(0), airfoil.tests
    selection = pytest.importorskip("sklearn.model_selection")
    wanted = selection.train_test_split(np.arange(50), test_size=0.2, random_state=0)
    assert [sorted(part) for part in wanted] == [training.tolist(), sorted(test)]
    assert abs(airfoil.target[training].mean()) < 1e-12
    assert airfoil.target[training].std() == pytest.approx(1)
    assert np.corrcoef(airfoil.target, rows[:, 3])[0, 1] == pytest.approx(1)


def test_scikit_learn_ships_a_table():
    datasets = pytest.importorskip("sklearn.datasets")
    table = tables.shipped(2)["diabetes"]()
    assert np.array_equal(table.target, datasets.load_diabetes().target)
    assert not np.array_equal(*table.tests) and len(table.tests[0]) == 44


def test_the_noise_of_the_synthetic_table_is_what_it_says():
    table = tables.synthetic(1000, 3)
    mean, std = table.truth
    assert stats.kstest((table.target - mean) / std, "norm").pvalue > 0.01
    expected = -stats.norm(mean, std).logpdf(table.target)[table.tests[2]].mean()
    assert regression.true_nll(table, 2) == pytest.approx(expected)
    assert std.max() > 4 * std.min()
    for split, test in enumerate(table.tests):
        assert sorted([*test, *table.training(split)]) == list(range(1000))


def test_a_table_with_another_number_has_another_text(small):
    """The engine finds stored results by it; NumPy's text of an array leaves numbers out."""
    inputs = np.zeros((4000, 2))
    large = replace(small, inputs=inputs, target=np.zeros(4000))
    changed = replace(large, inputs=inputs + np.eye(4000, 2, -2000))
    assert repr(large) == repr(replace(large, inputs=inputs.copy())) != repr(changed)
    assert repr(small) != repr(replace(small, tests=small.tests[:1]))


def test_a_file_is_read_as_it_was_written(folder, small):
    assert list(tables.files(folder)) == ["one", "two"]
    got = tables.read(folder / "one.npz")
    assert (got.name, got.truth) == ("one", None)
    assert np.array_equal(got.inputs, small.inputs) and np.array_equal(got.target, small.target)
    assert [rows.tolist() for rows in got.tests] == [[*range(8)], [*range(8, 16)]]


BAD = {
    "inputs are missing": ({"inputs": None}, "has no array inputs"),
    "target is missing": ({"target": None}, "has no array target"),
    "no test set": ({"test_0": None, "test_1": None}, "has no array test_0"),
    "a test set is skipped": ({"test_0": None}, "has no array test_0"),
    "a strange test set": ({"test_x": np.arange(3)}, "has no array test_2"),
    "inputs of one dimension": ({"inputs": np.zeros(40)}, "shape (N, D), got (40,)"),
    "no rows": ({"inputs": np.zeros((0, 2))}, "shape (N, D), got (0, 2)"),
    "a short target": ({"target": np.zeros(39)}, "target must have shape (40,), got (39,)"),
    "NaN": ({"target": np.full(40, np.nan)}, "target holds a number that is not finite"),
    "infinity": ({"inputs": np.full((40, 2), np.inf)}, "inputs holds a number that is not finite"),
    "text": ({"target": np.full(40, "x")}, "target must hold numbers, got <U1"),
    "objects": ({"target": np.full(40, None)}, "cannot be read as NumPy arrays: Object arrays"),
    "a row too far": ({"test_1": np.array([3, 40])}, "must have row numbers in 0..39, got 40"),
    "a negative row": ({"test_1": np.array([-1])}, "must have row numbers in 0..39, got -1"),
    "a row twice": ({"test_1": np.array([3, 3])}, "test_1 has a row number twice"),
    "rows that are no integers": ({"test_1": np.ones(3)}, "test_1 must be a vector of row numbers"),
    "an empty test set": ({"test_1": np.arange(0)}, "test_1 must be a vector of row numbers"),
    "no training rows": ({"test_1": np.arange(39)}, "test_1 must leave two rows or more"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "says"), BAD.values(), ids=BAD)
def test_a_bad_table_is_refused_in_one_line_that_names_the_file(tmp_path, small, changes, says):
    path = tmp_path / "bad.npz"
    found = arrays(small, **changes)
    np.savez(path, **{k: v for k, v in found.items() if v is not None})
    with pytest.raises(ValueError) as refused:
        tables.read(path)
    assert str(path) in str(refused.value) and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_a_file_that_is_cut_or_no_archive_is_refused(folder, cut):
    path = folder / "one.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="one.npz cannot be read as NumPy arrays"):
        tables.read(path)
    np.save(folder / "single.npy", np.zeros(3))
    single = (folder / "single.npy").rename(folder / "single.npz")
    with pytest.raises(ValueError, match="it holds a single array"):
        tables.read(single)


def test_the_study_makes_the_chosen_models_and_tables_of_a_folder(tmp_path, folder, inline):
    (folder / "two.npz").write_text("not chosen, so not read")
    made = STUDIES["regression"](
        tmp_path, fast=True, seeds=9, data=folder, say=lambda _: None,
        only=("laplace one", "ensemble one", "normed-ensemble one"),
    )  # fmt: skip
    numbers = json.loads((made / "results.json").read_text())["numbers"]
    names = ["ensemble one", "normed-ensemble one", "laplace one"]
    assert list(numbers["results"]) == names
    rows = list(csv.DictReader((made / "table.csv").open()))
    assert [f"{row['model']} {row['table']}" for row in rows] == names
    own = [each["nll"] for each in numbers["results"]["laplace one"]["each"]]
    assert len(own) == 2  # the file has two splits
    assert float(rows[2]["nll"]) == pytest.approx(np.mean(own))
    assert float(rows[2]["nll_error"]) == pytest.approx(stats.sem(own))
    assert numbers["published"] == {}


def test_the_study_without_data_has_a_table_whose_truth_is_known(tmp_path, inline):
    made = STUDIES["regression"](tmp_path, fast=True, say=lambda _: None)
    numbers = json.loads((made / "results.json").read_text())["numbers"]
    assert {one["model"] for one in numbers["results"].values()} == set(MODELS)
    page = (made / "table.md").read_text()
    assert f"| truth | {numbers['truth']['synthetic']['mean']:.2f} |" in page
    assert Image.open(made / "regression.png").size[0] > 1000


def test_fits_that_failed_are_left_out_and_named(tmp_path, folder, inline, monkeypatch):
    def measure(config, draws, table, split):
        if table.name == "one" and split == 0:
            return {"failed": "a loss that is not finite"}
        return dict.fromkeys(regression.MEASURES, 2.0 + split)

    monkeypatch.setattr(regression, "measure", measure)
    made = STUDIES["regression"](tmp_path, seeds=2, data=folder, only=("swag",), say=lambda _: None)
    page = (made / "table.md").read_text()
    assert "The fit of swag one, split 0, diverged and is left out: a loss" in page
    assert "| swag | 3.00 | 2.50 ± 0.50 |" in page


def test_published_numbers_are_beside_tables_of_that_name(tmp_path, folder, inline):
    (folder / "one.npz").rename(folder / "yacht.npz")
    made = STUDIES["regression"](
        tmp_path, fast=True, data=folder, only=("laplace",), say=lambda _: None
    )
    assert "| best published |  | 0.90 |" in (made / "table.md").read_text()


def test_wrong_data_ends_the_command_with_one_line(tmp_path, folder, capsys):
    def said(*args):
        assert run(["study", *args, "--fast", "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err.strip()

    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    assert said("regression", "--data", str(missing)).endswith("want one with tables NAME.npz")
    assert said("regression", "--data", str(empty)).endswith("has no tables; want files NAME.npz")
    assert "no run has 'three'" in said("regression", "--data", str(folder), "--only", "three")
    assert "reads no data, got the folder" in said("bandits", "--data", str(folder))
    assert not (tmp_path / "out").exists()
