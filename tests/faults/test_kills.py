"""A handful of the kill points of kills.py; the whole set runs by its own command."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kills import VICTIMS, Place, Study, Victim, differences, doctor, hit, make_server, untouched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEED = int(os.environ.get("LAS_TUNE_KILL_SEED", "0"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def whole(place: Place) -> tuple[dict[str, Any], float]:
    return untouched(place)


@pytest.mark.parametrize("victim", VICTIMS)
def test_whatever_is_killed_nothing_is_lost_or_doubled(
    place: Path, whole: tuple[dict[str, Any], float], victim: Victim
) -> None:
    print("seed of the kills:", SEED)
    expected, took = whole
    moment = random.Random(f"{SEED} {victim}").uniform(0.4, 0.9) * took
    study = Study(place, victim)
    with make_server(study.results) as server:
        hit(study, victim, [moment], server)
        assert "clean" in doctor(study, server.uri)
        found = study.numbers(server.uri)
    assert found == expected, differences(expected, found)
