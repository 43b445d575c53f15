"""Every parameter of every included space has an effect; a parameter without effect is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.config.train_spec import tunable_names
from las_tune.errors import SpaceError
from las_tune.space.search_space import load_space
from las_tune.space.sensitivity import measure_sensitivity, require_effects

MASKS, IMAGES, LABELS = "masks", "images", "labels"
CHANGED = {
    "adaptor_lr": set(), "discriminator_lr": set(), "alpha": {MASKS, IMAGES, LABELS}, "beta_mean": {IMAGES},
    "beta_std": {IMAGES}, "beta_min": {IMAGES}, "beta_max": {IMAGES},
    "perlin_max_exponent": {MASKS, IMAGES, LABELS}, "foreground": {MASKS, IMAGES, LABELS},
    "focal_gamma": set(), "hard_share": set(), "weight_decay": set(), "hidden_width": set(), "use_adaptor": set(),
    "batch_size": set(),
}  # fmt: skip
"""What a parameter changes in addition to the loss."""


def write(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_every_tunable_parameter_has_an_expected_effect() -> None:
    assert CHANGED.keys() == load_space("extended").parameters.keys() == set(tunable_names())


@pytest.mark.parametrize(
    "name",
    ["core", "extended", *(pytest.param(name, marks=pytest.mark.slow) for name in MPDD_CATEGORIES)],
)
def test_every_parameter_of_an_included_space_has_its_expected_effect(name: str) -> None:
    space = load_space(name)
    effects = measure_sensitivity(space)
    require_effects(space, effects)
    assert [effect.parameter for effect in effects] == list(space.parameters)
    for effect in effects:
        changed = {part for part in (MASKS, IMAGES, LABELS) if getattr(effect, part)}
        assert changed == CHANGED[effect.parameter], effect
        assert effect.loss > 0, effect


@pytest.mark.parametrize(
    "text",
    [
        "[adaptor_lr]\nlow = 1e-5\nhigh = 1e-3\nbaseline = 1e-4\nreason = 'r'\nwhen = { use_adaptor = true }\n",
        "[adaptor_lr]\nlow = 1e-4\nhigh = 1e-3\nbaseline = 1e-4\nreason = 'r'\n",
    ],
    ids=["conditional", "unconditional"],
)
def test_conditional_parameter_is_measured_where_its_condition_holds(text: str, tmp_path: Path) -> None:
    """The rate has no effect without an adaptor, so it must be measured with one."""
    space = load_space(write(tmp_path, text + "[use_adaptor]\nvalues = [true, false]\nbaseline = true\nreason = 'r'\n"))
    assert all(effect.loss > 0 and not effect.masks for effect in measure_sensitivity(space))


def test_condition_that_does_not_hold_at_the_baseline_is_set(tmp_path: Path) -> None:
    """adaptor_lr has no effect without an adaptor; hidden_width has one although it is inactive at the baseline."""
    text = """
        [hidden_width]
        values = [256, 768]
        baseline = 768
        reason = "r"
        when = { use_adaptor = false }
        [adaptor_lr]
        low = 1e-5
        high = 1e-3
        baseline = 1e-4
        reason = "r"
        when = { use_adaptor = false }
        [use_adaptor]
        values = [true, false]
        baseline = true
        reason = "r"
    """
    space = load_space(write(tmp_path, text))
    assert space.baseline == {"use_adaptor": True}
    has_effect = {effect.parameter: effect.is_any for effect in measure_sensitivity(space)}
    assert has_effect == {"adaptor_lr": False, "hidden_width": True, "use_adaptor": True}


def test_batch_sizes_above_the_minimum_number_of_images_differ(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "[batch_size]\nvalues = [8, 16, 32]\nbaseline = 8\nreason = 'r'\n"))
    (effect,) = measure_sensitivity(space)
    assert effect.loss > 0 and not effect.masks and not effect.images


@pytest.mark.parametrize(
    "parameter",
    [
        "[focal_gamma]\nlow = 2.0\nhigh = 2.000000000001\nbaseline = 2.0",
        "[beta_mean]\nvalues = [0.5]\nbaseline = 0.5",
        "[beta_max]\nlow = 0.8\nhigh = 1.0\nbaseline = 0.8\nreason = 'r'\n[beta_std]\nvalues = [0.1]\nbaseline = 0.1",
    ],
    ids=["narrow range", "single value", "single value and another parameter"],
)
def test_parameter_without_effect_is_an_error(parameter: str, tmp_path: Path) -> None:
    space = load_space(write(tmp_path, parameter + '\nreason = "r"\n'))
    with pytest.raises(
        SpaceError, match=r"mine.toml: no effect on .* \(.* to .*\)\. Widen the range, or drop the parameter\.$"
    ):
        require_effects(space, measure_sensitivity(space))
