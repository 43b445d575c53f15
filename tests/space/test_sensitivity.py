"""Every knob of every shipped space moves something; one that does not is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.config.train_spec import tunable_names
from las_tune.errors import SpaceError
from las_tune.space.search_space import load_space
from las_tune.space.sensitivity import knob_effects, require_effects

MASKS, IMAGES, LABELS = "masks", "images", "labels"
MOVES = {
    "adaptor_lr": set(), "discriminator_lr": set(), "alpha": {MASKS, IMAGES, LABELS}, "beta_mean": {IMAGES},
    "beta_std": {IMAGES}, "beta_min": {IMAGES}, "beta_max": {IMAGES},
    "perlin_max_exponent": {MASKS, IMAGES, LABELS}, "foreground": {MASKS, IMAGES, LABELS},
    "focal_gamma": set(), "hard_share": set(), "weight_decay": set(), "hidden_width": set(), "use_adaptor": set(),
    "batch_size": set(),
}  # fmt: skip
"""What a knob moves besides the loss."""


def write(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_extended_holds_every_knob_there_is() -> None:
    assert MOVES.keys() == load_space("extended").knobs.keys() == set(tunable_names())


@pytest.mark.parametrize(
    "name",
    ["core", "extended", *(pytest.param(name, marks=pytest.mark.slow) for name in MPDD_CATEGORIES)],
)
def test_every_knob_of_a_shipped_space_is_alive(name: str) -> None:
    space = load_space(name)
    effects = knob_effects(space)
    require_effects(space, effects)
    assert [effect.knob for effect in effects] == list(space.knobs)
    for effect in effects:
        moved = {part for part in (MASKS, IMAGES, LABELS) if getattr(effect, part)}
        assert moved == MOVES[effect.knob], effect
        assert effect.loss > 0, effect


@pytest.mark.parametrize(
    "text",
    [
        "[adaptor_lr]\nlow = 1e-5\nhigh = 1e-3\nseed = 1e-4\nreason = 'r'\nwhen = { use_adaptor = true }\n",
        "[adaptor_lr]\nlow = 1e-4\nhigh = 1e-3\nseed = 1e-4\nreason = 'r'\n",
    ],
    ids=["on", "always"],
)
def test_a_knob_moves_where_its_condition_holds(text: str, tmp_path: Path) -> None:
    """Without an adaptor its rate moves nothing; the baseline has one, and so have the places that are tried."""
    space = load_space(write(tmp_path, text + "[use_adaptor]\nvalues = [true, false]\nseed = true\nreason = 'r'\n"))
    assert all(effect.loss > 0 and not effect.masks for effect in knob_effects(space))


def test_a_condition_that_the_baseline_does_not_fulfil_is_fulfilled(tmp_path: Path) -> None:
    """A dead knob is dead there too; a live one moves the loss though the baseline does not have it."""
    text = """
        [hidden_width]
        values = [256, 768]
        seed = 768
        reason = "r"
        when = { use_adaptor = false }
        [adaptor_lr]
        low = 1e-5
        high = 1e-3
        seed = 1e-4
        reason = "r"
        when = { use_adaptor = false }
        [use_adaptor]
        values = [true, false]
        seed = true
        reason = "r"
    """
    space = load_space(write(tmp_path, text))
    assert space.baseline == {"use_adaptor": True}
    alive = {effect.knob: effect.is_any for effect in knob_effects(space)}
    assert alive == {"adaptor_lr": False, "hidden_width": True, "use_adaptor": True}


def test_batches_above_the_number_of_images_are_told_apart(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "[batch_size]\nvalues = [8, 16, 32]\nseed = 8\nreason = 'r'\n"))
    (effect,) = knob_effects(space)
    assert effect.loss > 0 and not effect.masks and not effect.images


@pytest.mark.parametrize(
    "knob",
    [
        "[focal_gamma]\nlow = 2.0\nhigh = 2.000000000001\nseed = 2.0",
        "[beta_mean]\nvalues = [0.5]\nseed = 0.5",
        "[beta_max]\nlow = 0.8\nhigh = 1.0\nseed = 0.8\nreason = 'r'\n[beta_std]\nvalues = [0.1]\nseed = 0.1",
    ],
    ids=["narrow", "single", "single beside another"],
)
def test_a_dead_knob_is_an_error(knob: str, tmp_path: Path) -> None:
    space = load_space(write(tmp_path, knob + '\nreason = "r"\n'))
    with pytest.raises(SpaceError, match=r"mine.toml: every knob must move .*, got .* from .*widen it, or drop it"):
        require_effects(space, knob_effects(space))
