import re
from pathlib import Path

import pytest

from experiments.cli.command import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_picture_is_there():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).exists(), picture


def test_every_make_target_it_names_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\S+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_driving_example_runs_as_written(capsys):
    example, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    earned, milliseconds, *shape = capsys.readouterr().out.split()
    assert float(earned) > 115 and float(milliseconds) > 0 and shape == ["(150,", "1)"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_example_runs_as_written(capsys):
    _, example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    learning, evaluation = map(eval, capsys.readouterr().out.splitlines())
    assert len(learning) == 6 and min(evaluation) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_swings_up_within_six_episodes(seed, tmp_path, capsys):
    path = str(tmp_path / "run")
    assert run(["train", "pets", "--seed", str(seed), "--run", path, "--json"]) == 0
    assert eval(capsys.readouterr().out)["best_return"] >= 115
