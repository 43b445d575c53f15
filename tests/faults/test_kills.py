"""A few kill points of kills.py, which has a command for many."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests.faults.kills import (
    VICTIMS,
    Study,
    Victim,
    Workspace,
    differences,
    doctor,
    make_server,
    run_undisturbed,
    run_with_kills,
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEED = int(os.environ.get("LAS_TUNE_KILL_SEED", "0"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def undisturbed(workspace: Workspace) -> tuple[dict[str, Any], float]:
    return run_undisturbed(workspace)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_process_loses_and_duplicates_nothing(
    workspace: Workspace, undisturbed: tuple[dict[str, Any], float], victim: Victim
) -> None:
    print("seed of the kills:", SEED)
    expected, took = undisturbed
    moment = random.Random(f"{SEED} {victim}").uniform(0.4, 0.9) * took
    study = Study(workspace, victim)
    with make_server(study.results) as server:
        run_with_kills(study, victim, [moment], server)
        assert "consistent" in doctor(study, server.uri)
        found = study.numbers(server.uri)
    assert found == expected, differences(expected, found)
