"""Conditions under which the alias champion moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.interval import Interval
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.selection.alias import settings_tag, why_alias_stays
from las_tune.selection.promotion import Decision

HERE = Path("/")


def spec(epochs: int = 10, backbone: str = "resnet18", **fields: Any) -> StudySpec:
    train = TrainSpec(epochs=epochs, backbone=backbone)
    return StudySpec(category="part", study="s", train=train, data_root=HERE, textures=HERE, results=HERE, **fields)


def decision(promoted: bool) -> Decision:
    return Decision("trial 1" if promoted else "baseline", "trial 1", promoted, Interval(0.1, 0.0, 0.2), None, (), "")


def registered_tags(demo: bool = False, **changes: Any) -> dict[str, str]:
    settings = json.loads(settings_tag(spec())) | changes
    return {"demo": str(demo).lower(), "settings": json.dumps(settings)}


@pytest.mark.parametrize("promoted", [True, False])
def test_first_champion_always_gets_the_alias(promoted: bool) -> None:
    assert why_alias_stays(spec(), decision(promoted), {}) == ""


def test_only_a_promoted_champion_moves_the_alias() -> None:
    assert why_alias_stays(spec(), decision(True), registered_tags()) == ""
    assert why_alias_stays(spec(), decision(False), registered_tags()) == "the registered champion stays"


def test_demo_never_replaces_a_champion_of_real_images() -> None:
    assert "a demo" in why_alias_stays(spec(demo=True), decision(True), registered_tags())
    assert why_alias_stays(spec(demo=True), decision(True), registered_tags(demo=True)) == ""
    assert why_alias_stays(spec(), decision(False), registered_tags(demo=True)) == ""


def test_test_selected_study_never_moves_the_alias() -> None:
    assert "selected on the test images" in why_alias_stays(spec(protocol="paper"), decision(True), {})


@pytest.mark.parametrize(
    ("new_study", "stays"),
    [
        (spec(), False),
        (spec(epochs=20), False),
        (spec(epochs=9), True),
        (spec(backbone="resnet50"), True),
    ],
    ids=["same", "longer", "shorter", "another network"],
)
def test_study_with_fewer_epochs_or_another_network_does_not_move_the_alias(new_study: StudySpec, stays: bool) -> None:
    """A gain over a champion retrained with the settings of this study is no gain over the registered model."""
    reason = why_alias_stays(new_study, decision(True), registered_tags())
    assert bool(reason) is stays
    assert not stays or "other settings (backbone resnet18, backbone_weights imagenet, image_size 288" in reason
