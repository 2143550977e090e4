"""Fixtures for tests of environments."""

from __future__ import annotations

import pytest

import envs


@pytest.fixture(params=list(envs.TASKS), ids=str)
def task(request: pytest.FixtureRequest) -> envs.Task:
    """Each of the library's tasks."""
    return envs.TASKS[request.param]
