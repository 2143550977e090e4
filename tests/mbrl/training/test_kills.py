from mbrl.training.checkpoint import STATE
from tests import kills


def test_runs_killed_at_ten_random_moments_leave_the_same_bytes(tmp_path):
    assert sum(kills.check(tmp_path, 10)) == 10
    assert (
        len(kills.left(tmp_path / "whole")) == 5
    )  # config, metrics and a checkpoint's three files


def test_a_changed_byte_is_detected(tmp_path):
    kills.train(tmp_path / "run")
    whole = kills.left(tmp_path / "run")
    name = next(name for name in whole if name.endswith(STATE))
    for other in (
        whole | {name: whole[name] + b"x"},
        {k: v for k, v in whole.items() if k != name},
    ):
        try:
            kills._compare(other, whole)
        except AssertionError as error:
            assert name in str(error)
        else:
            raise AssertionError("nothing was noticed")
