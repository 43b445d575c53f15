from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.config.train_spec import TrainSpec, tunable_names
from las_tune.errors import SpaceError
from las_tune.space import search_space as module
from las_tune.space.knobs import Choice, Range
from las_tune.space.search_space import GENERAL_SPACES, Space, known_spaces, load_space, space_for, spaces_folder

RATE = "[adaptor_lr]\nlow = 1e-5\nhigh = 1e-3\nlog = true\nseed = 1e-4\nreason = 'r'\n"
ADAPTOR = "[use_adaptor]\nvalues = [true, false]\nseed = true\nreason = 'r'\n"
STD = "[beta_std]\nlow = 0.0\nhigh = 0.3\nseed = 0.1\nreason = 'r'\n"


def table(name: str, **keys: str) -> str:
    """A table with a reason; values are TOML text."""
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in ({"reason": "'r'"} | keys).items())


def load_text(folder: Path, text: str | bytes, name: str = "my.toml") -> Space:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_space(str(path))


# --- shipped spaces ---


@pytest.mark.parametrize("name", known_spaces())
def test_shipped_space_holds_the_seed_program(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.baseline == {knob: getattr(TrainSpec(), knob) for knob in space.knobs}, "all conditions hold"
    assert list(space.knobs) == [knob for knob in tunable_names() if knob in space.knobs]
    for knob_name, knob in space.knobs.items():
        assert knob.contains(space.baseline[knob_name])
        assert len(knob.reason) > 40
    for end in ("low", "high"):
        ends = {n: getattr(knob, end) for n, knob in space.knobs.items() if isinstance(knob, Range)}
        TrainSpec().replace(**ends)


def test_every_mpdd_category_has_its_own_space_over_the_default() -> None:
    assert set(known_spaces()) == {*GENERAL_SPACES, *MPDD_CATEGORIES}
    fingerprints = {load_space(name).fingerprint() for name in known_spaces()}
    assert len(fingerprints) == len(known_spaces()) - 1, "default is core"
    for category in MPDD_CATEGORIES:
        names = [path.name for path in space_for(category).sources]
        assert names == ["core.toml", "default.toml", f"{category}.toml"]


def test_shipped_files_say_that_reasons_are_priors() -> None:
    for name in set(known_spaces()) - {"default"}:
        text = " ".join((spaces_folder() / f"{name}.toml").read_text().replace("#", "").split()).lower()
        assert "priors, not measurements" in text


def test_a_category_without_a_file_gets_the_default() -> None:
    for category in ("screws", *GENERAL_SPACES):  # a category may have one of these names
        assert space_for(category).name == "default"
    assert space_for("../default").name == "default"


def test_default_is_core_and_nothing_more() -> None:
    lines = (spaces_folder() / "default.toml").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['extends = "core"']
    assert load_space("default").knobs == load_space("core").knobs


def test_extended_is_everything() -> None:
    core, extended = load_space("core"), load_space("extended")
    assert tuple(extended.knobs) == tunable_names()
    assert {name for name, knob in extended.knobs.items() if knob.when} == {"adaptor_lr"}
    assert extended.knobs["adaptor_lr"].when == {"use_adaptor": (True,)}
    for name in set(core.knobs) - {"adaptor_lr"}:
        assert extended.knobs[name] == core.knobs[name]


def test_core_space() -> None:
    space = load_space("core")
    assert list(space.knobs) == ["adaptor_lr", "discriminator_lr", "alpha", "beta_mean", "beta_std"]
    assert space.baseline["alpha"] == 1 / 3
    alpha = space.knobs["alpha"]
    assert isinstance(alpha, Range) and (alpha.low, alpha.high, alpha.log) == (0, 0.5, False)


def test_packaged_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "las_tune" / "tuning" / "space.py"
    monkeypatch.setattr(module, "__file__", str(code))
    assert spaces_folder() == tmp_path / "search_spaces"
    (tmp_path / "las_tune" / "search_spaces").mkdir(parents=True)
    assert spaces_folder() == tmp_path / "las_tune" / "search_spaces"


def test_neither_ray_nor_optuna_is_imported() -> None:
    code = "import sys, las_tune.space.search_space; print({'ray', 'optuna', 'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- knobs ---


@pytest.mark.parametrize(
    ("knob", "value", "inside"),
    [
        (Range(0.0, 0.5), 0.0, True),
        (Range(0.0, 0.5), 0.5, True),
        (Range(0.0, 0.5), 0.51, False),
        (Range(0.0, 1.0), True, False),
        (Range(0.0, 1.0), "0.5", False),
        (Range(0.0, 1.0), None, False),
        (Range(0.0, 1.0), math.nan, False),
        (Range(2, 5, integer=True), 3, True),
        (Range(2, 5, integer=True), 3.5, False),
        (Choice(("otsu", "none")), "none", True),
        (Choice(("otsu", "none")), "all", False),
        (Choice(("otsu", "none")), [], False),
        (Choice((True, False)), False, True),
        (Choice((True, False)), 0, False),
        (Choice((0.0, 1.0)), True, False),
        (Choice((0.0, 1.0)), 1, True),
    ],
)
def test_contains(knob: Range | Choice, value: Any, inside: bool) -> None:
    assert knob.contains(value) is inside


def test_values_take_the_type_of_the_field(tmp_path: Path) -> None:
    text = table("alpha", low="0", high="0.5", seed="0.3333333333333333")
    text += table("hidden_width", low="64", high="2048.0", log="true", seed="768")
    text += table("focal_gamma", values="[0, 2, 4.0]", seed="2")
    knobs = load_text(tmp_path, text).knobs
    assert knobs["hidden_width"] == Range(64, 2048, log=True, integer=True, reason="r")
    assert knobs["focal_gamma"] == Choice((0.0, 2.0, 4.0), "r")
    assert [type(end) for end in (*knobs["alpha"].ends, *knobs["hidden_width"].ends)] == [
        float,
        float,
        int,
        int,
    ]


def test_baseline_is_the_default_itself(tmp_path: Path) -> None:
    space = load_text(tmp_path, table("alpha", low="0.1", high="0.5", seed="0.3333333333"))
    assert space.baseline == {"alpha": 1 / 3}


def test_booleans_are_values_of_a_bool(tmp_path: Path) -> None:
    space = load_text(tmp_path, ADAPTOR)
    assert space.knobs == {"use_adaptor": Choice((True, False), "r")} and space.baseline == {"use_adaptor": True}


# --- conditions ---


def test_a_condition_is_a_value_or_a_list_of_them(tmp_path: Path) -> None:
    foreground = table("foreground", values="['otsu', 'none']", seed="'otsu'")
    text = RATE + "when = { use_adaptor = true, foreground = ['otsu', 'none'] }\n" + ADAPTOR + foreground
    space = load_text(tmp_path, text)
    rate = space.knobs["adaptor_lr"]
    assert rate == Range(1e-5, 1e-3, True, reason="r", when={"use_adaptor": (True,), "foreground": ("none", "otsu")})
    assert not load_text(tmp_path, RATE).knobs["adaptor_lr"].when


def test_a_trial_has_the_knobs_whose_conditions_hold(tmp_path: Path) -> None:
    width = table("hidden_width", values="[64, 768]", seed="768", when="{ use_adaptor = false, batch_size = [4, 16] }")
    batch = table("batch_size", values="[4, 8, 16]", seed="8")
    space = load_text(tmp_path, RATE + "when = { use_adaptor = true }\n" + ADAPTOR + width + batch)
    assert space.baseline == {"adaptor_lr": 1e-4, "use_adaptor": True, "batch_size": 8}
    for adaptor, size, names in [(True, 4, {"adaptor_lr"}), (False, 8, set()), (False, 16, {"hidden_width"})]:
        values = {"adaptor_lr": 1e-5, "hidden_width": 64, "use_adaptor": adaptor, "batch_size": size}
        assert space.active(values).keys() == {"use_adaptor", "batch_size", *names}


def test_a_child_may_replace_the_condition_and_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text(RATE + "when = { use_adaptor = true }\n" + ADAPTOR)
    inherited = load_text(tmp_path, "extends = './parent.toml'\n" + STD)
    assert inherited.knobs["adaptor_lr"].when == {"use_adaptor": (True,)}
    replaced = load_text(tmp_path, "extends = './parent.toml'\n" + RATE)
    assert not any(knob.when for knob in replaced.knobs.values())
    both = load_text(tmp_path, "extends = './parent.toml'\ndrop = ['use_adaptor', 'adaptor_lr']\n" + STD)
    assert list(both.knobs) == ["beta_std"]


# --- inheritance ---


def test_tables_replace_and_drop_removes(tmp_path: Path) -> None:
    text = "extends = 'default'\ndrop = ['beta_std']\n" + table(
        "alpha", low="0.2", high="0.4", seed="0.3333333333333333"
    )
    space = load_text(tmp_path, text)
    assert list(space.knobs) == ["adaptor_lr", "discriminator_lr", "alpha", "beta_mean"]
    assert space.knobs["alpha"] == Range(0.2, 0.4, reason="r")
    assert space.knobs["beta_mean"] == load_space("default").knobs["beta_mean"]
    assert space.sources == (spaces_folder() / "core.toml", spaces_folder() / "default.toml", tmp_path / "my.toml")


def test_extends_is_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "parent.toml").write_text(RATE)
    (tmp_path / "sub/child.toml").write_text("extends = '../parent.toml'\n" + STD)
    monkeypatch.chdir(tmp_path)
    space = load_space("sub/child.toml")
    assert space.name == "child"
    assert list(space.knobs) == ["adaptor_lr", "beta_std"]


# --- fingerprint ---


def test_fingerprint_ignores_reasons_order_and_spelling(tmp_path: Path) -> None:
    first = load_text(tmp_path, RATE + STD, "first.toml")
    again = STD.replace("'r'", "'other words'").replace("0.3", "3e-1") + RATE
    assert load_text(tmp_path, again, "again.toml").fingerprint() == first.fingerprint()
    assert len(first.fingerprint()) == 64


def test_fingerprint_tells_conditions_apart(tmp_path: Path) -> None:
    batch = table("batch_size", values="[4, 8, 16]", seed="8")
    conditions = ["", "when = { batch_size = 4 }", "when = { batch_size = [4, 8] }", "when = { batch_size = 8 }"]
    prints = [load_text(tmp_path, RATE + when + "\n" + batch).fingerprint() for when in conditions]
    assert len(set(prints)) == 4
    assert load_text(tmp_path, RATE + "when = { batch_size = [8, 4] }\n" + batch).fingerprint() == prints[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [("high = 0.3", "high = 0.4"), ("log = true", "log = false"), ("low = 1e-5", "low = 2e-5"), (STD, "")],
)
def test_fingerprint_tells_spaces_apart(tmp_path: Path, old: str, new: str) -> None:
    changed = load_text(tmp_path, (RATE + STD).replace(old, new), "changed.toml")
    assert changed.fingerprint() != load_text(tmp_path, RATE + STD).fingerprint()


def test_fingerprint_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """A change here makes running studies unrecognizable: say so in the change."""
    expected = "aea733f0017794f2af81b9d19b7ed978fc757ed4dbab5bc522c6a59a0df432f9"
    assert load_text(tmp_path, RATE + STD).fingerprint() == expected


# --- errors: the place, the rule, the value, what to do ---

ERRORS: dict[str, tuple[str | bytes, list[str]]] = {
    "not TOML": ("[adaptor_lr]\nlow = = 1\n", ["must be TOML", "line 2"]),
    "not text": (b"\xff\xfe", ["must be TOML"]),
    "nested too deep": ("x = " + "[" * 100_000, ["must be TOML"]),
    "endless number": (table("alpha", low="0x" + "f" * 5000, high="1", seed="0"), ["must be TOML"]),
    "no knobs": ("", ["must hold a knob", "got 0", "Write extends"]),
    "all dropped": (
        "extends = 'metal_plate'\ndrop = ['adaptor_lr', 'discriminator_lr', 'alpha', 'beta_mean', "
        "'beta_std', 'perlin_max_exponent']",
        ["must hold a knob"],
    ),
    "unknown knob": (
        "[adapter_lr]",
        ["every knob must be a tunable field", "'adapter_lr'", "Did you mean adaptor_lr?", "hidden_width"],
    ),
    "a field that is not tunable": (
        table("epochs", low="1", high="9", seed="50"),
        ["'epochs'", "Known: adaptor_lr"],
    ),
    "not a table": ("alpha = 0.3", ["[alpha] must be a table", "got 0.3", "Write [alpha]"]),
    "unknown key": (
        table("alpha", lower="0", high="0.5", seed="0.3333333333333333"),
        [
            "[alpha] must hold known keys only",
            "'lower'",
            "Did you mean low?",
            "Known: low, high, log, seed, reason, when",
        ],
    ),
    "both forms": (table("alpha", values="[0]", low="0"), ["'low'", "Known: values, seed, reason, when"]),
    "no low": (table("alpha", high="0.5", seed="0.3"), ["[alpha] must hold low", "'high'", "Add low = ..."]),
    "no high": (table("alpha", low="0", seed="0.3"), ["[alpha] must hold high"]),
    "no seed": (table("alpha", low="0", high="0.5"), ["[alpha] must hold seed"]),
    "no reason": ("[alpha]\nlow = 0\nhigh = 0.5\nseed = 0.3", ["[alpha] must hold reason"]),
    "no seed of a choice": (table("foreground", values="['otsu']"), ["[foreground] must hold seed"]),
    "empty reason": (
        table("alpha", low="0", high="0.5", seed="0.3", reason="' '"),
        ["reason must be a text", "' '"],
    ),
    "reason no text": (
        table("alpha", low="0", high="0.5", seed="0.3", reason="3"),
        ["reason must be a text", "got 3"],
    ),
    "low = high": (
        table("alpha", low="0.5", high="0.5", seed="0.3"),
        ["low must be below high", "(0.5, 0.5)"],
    ),
    "low > high": (
        table("alpha", low="0.5", high="0.1", seed="0.3"),
        ["low must be below high", "(0.5, 0.1)"],
    ),
    "log from 0": (
        table("alpha", low="0", high="0.5", log="true", seed="0.3"),
        ["low must be above 0", "got 0.0"],
    ),
    "log no bool": (
        table("alpha", low="0", high="0.5", log="1", seed="0.3"),
        ["log must be true or false", "got 1"],
    ),
    "low text": (
        table("alpha", low="'0'", high="0.5", seed="0.3"),
        ["[alpha] low must be a finite number", "'0'"],
    ),
    "low bool": (
        table("alpha", low="false", high="0.5", seed="0.3"),
        ["low must be a finite number", "got False"],
    ),
    "high inf": (
        table("alpha", low="0", high="inf", seed="0.3"),
        ["high must be a finite number", "got inf"],
    ),
    "high nan": (
        table("alpha", low="0", high="nan", seed="0.3"),
        ["high must be a finite number", "got nan"],
    ),
    "high huge": (
        table("alpha", low="0", high="1" + "0" * 400, seed="0.3"),
        ["high must be a finite number", "got 1000"],
    ),
    "fraction": (
        table("perlin_max_exponent", low="1.5", high="6", seed="5"),
        ["[perlin_max_exponent] low must be a whole number", "got 1.5"],
    ),
    "beyond TrainSpec": (
        table("alpha", low="0", high="0.7", seed="0.3333333333333333"),
        ["[alpha] alpha must lie in [0, 1/2]", "got 0.7", "the seed's value is 1/3"],
    ),
    "choice beyond TrainSpec": (
        table("foreground", values="['otsu', 'sam']", seed="'otsu'"),
        ["[foreground] foreground must be otsu or none", "got 'sam'"],
    ),
    "range of a text": (
        table("foreground", low="0", high="1", seed="'otsu'"),
        ["[foreground] must hold values"],
    ),
    "values no list": (
        table("foreground", values="'otsu'", seed="'otsu'"),
        ["values must be a list", "'otsu'"],
    ),
    "values empty": (
        table("foreground", values="[]", seed="'otsu'"),
        ["values must be a list, not empty", "got []"],
    ),
    "values of a wrong type": (
        table("foreground", values="[1]", seed="'otsu'"),
        ["values must be text", "got 1"],
    ),
    "values twice": (table("foreground", values="['otsu', 'otsu']", seed="'otsu'"), ["values must differ"]),
    "numbers twice": (
        table("focal_gamma", values="[2, 2.0]", seed="2"),
        ["values must differ", "(2.0, 2.0)"],
    ),
    "another seed": (
        table("adaptor_lr", low="1e-5", high="1e-3", seed="2e-4"),
        ["[adaptor_lr] seed must be the seed program's value", "got 0.0002", "Write seed = 0.0001"],
    ),
    "another text as seed": (
        table("foreground", values="['otsu', 'none']", seed="'none'"),
        ['Write seed = "otsu"'],
    ),
    "seed of a wrong type": (
        table("foreground", values="['otsu']", seed="1"),
        ["seed must be text", "got 1"],
    ),
    "baseline outside": (
        table("beta_mean", low="0.6", high="0.8", seed="0.5"),
        ["[beta_mean] must contain the baseline's 0.5", "(0.6, 0.8)", "Widen it"],
    ),
    "baseline no choice": (
        table("foreground", values="['none']", seed="'otsu'"),
        ['[foreground] must contain the baseline\'s "otsu"', "('none',)"],
    ),
    "corner": (
        table("beta_min", low="0.0", high="0.7", seed="0.2") + table("beta_max", low="0.6", high="1.0", seed="0.8"),
        ["[beta_min] and [beta_max]", "0 <= beta_min <= beta_max <= 1", "(0.7, 0.6)"],
    ),
    "bool of a number": (
        table("batch_size", values="[true]", seed="8"),
        ["values must be a finite number", "got True"],
    ),
    "number of a bool": (
        table("use_adaptor", values="[1, 0]", seed="true"),
        ["[use_adaptor] values must be true or false", "got 1"],
    ),
    "text of a bool": (table("use_adaptor", values="['true']", seed="true"), ["must be true or false", "'true'"]),
    "range of a bool": (table("use_adaptor", low="0", high="1", seed="true"), ["[use_adaptor] must hold values"]),
    "another bool as seed": (ADAPTOR.replace("seed = true", "seed = false"), ["Write seed = true"]),
    "batch of none": (table("batch_size", low="0", high="16", seed="8"), ["[batch_size]", "at least 1", "got 0"]),
    "when no table": (RATE + "when = 'use_adaptor'", ["[adaptor_lr] when must be a table, not empty", "'use_adaptor'"]),
    "when empty": (RATE + "when = {}", ["when must be a table, not empty", "got {}", "Write when = { use_adaptor"]),
    "when of an unknown field": (
        RATE + "when = { use_adapter = true }",
        ["[adaptor_lr] when must name tunable fields", "'use_adapter'", "Did you mean use_adaptor?"],
    ),
    "when of no knob": (
        RATE + "when = { use_adaptor = true }",
        ["[adaptor_lr] when must name other knobs with values", "'use_adaptor'", "Known: none"],
    ),
    "when of a dropped knob": (
        "extends = 'extended'\ndrop = ['use_adaptor']",
        ["[adaptor_lr] when must name other knobs with values", "'use_adaptor'", "Known: foreground"],
    ),
    "when of a range": (
        RATE + "when = { beta_std = 0.1 }\n" + STD,
        ["must name other knobs with values", "'beta_std'"],
    ),
    "when of itself": (
        ADAPTOR + "when = { use_adaptor = true }",
        ["[use_adaptor] when must name other knobs with values", "'use_adaptor'"],
    ),
    "when of no value": (
        RATE + "when = { use_adaptor = [] }\n" + ADAPTOR,
        ["when use_adaptor must be a list, not empty"],
    ),
    "when of a wrong type": (
        RATE + "when = { use_adaptor = 1 }\n" + ADAPTOR,
        ["[adaptor_lr] when use_adaptor must be true or false", "got 1"],
    ),
    "when of a value twice": (
        RATE + "when = { use_adaptor = [true, true] }\n" + ADAPTOR,
        ["when use_adaptor must differ"],
    ),
    "when of a value that the knob has not": (
        RATE + "when = { batch_size = [8, 32] }\n" + table("batch_size", values="[4, 8]", seed="8"),
        ["[adaptor_lr] when batch_size must be among the values of [batch_size]", "got 32", "Known: [4, 8]"],
    ),
    "when of when": (
        RATE
        + "when = { use_adaptor = true }\n"
        + ADAPTOR
        + "when = { batch_size = 8 }\n"
        + table("batch_size", values="[4, 8]", seed="8"),
        ["[adaptor_lr] when must name knobs without a when", "'use_adaptor'", "Drop the when of [use_adaptor]"],
    ),
    "when in a circle": (
        ADAPTOR
        + "when = { batch_size = 8 }\n"
        + table("batch_size", values="[4, 8]", seed="8", when="{ use_adaptor = true }"),
        ["when must name knobs without a when"],
    ),
    "drop of an unknown knob": (
        "extends = 'default'\ndrop = ['beta_sd']",
        ["drop must name knobs of the parent", "'beta_sd'", "Did you mean beta_std?"],
    ),
    "drop without a parent": ("drop = ['alpha']", ["drop must name knobs of the parent", "Known: none"]),
    "drop no list": ("drop = 'alpha'", ["drop must be a list", "'alpha'"]),
    "drop of no text": ("extends = 'default'\ndrop = [[1]]", ["drop must name knobs", "got [1]"]),
    "drop and move": (
        "extends = 'default'\ndrop = ['beta_std']\n" + STD,
        ["drop must not name a knob of this file"],
    ),
    "extends no text": (
        "extends = 3",
        ["extends must be the name of a space", "got 3", "Known: bracket_black"],
    ),
    "extends nothing": (
        "extends = 'metal_plates'",
        ["extends must be the name", "Did you mean metal_plate?"],
    ),
    "extends no file": ("extends = 'no/such.toml'", ["extends must be", "'no/such.toml'"]),
    "extends no file name": ('extends = "a\\u0000.toml"', ["extends must be"]),
    "extends itself": ("extends = 'my.toml'", ["must not lead in a circle", "my.toml -> my.toml"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error(tmp_path: Path, case: str) -> None:
    text, parts = ERRORS[case]
    with pytest.raises(SpaceError) as caught:
        load_text(tmp_path, text)
    message = str(caught.value)
    for part in (str(tmp_path / "my.toml"), *parts):
        assert part in message
    assert "\n" not in message and message.endswith(".") and len(message) < 600


def test_longer_circle(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("extends = './my.toml'")
    with pytest.raises(SpaceError, match=r"circle, got 'my.toml -> other.toml -> my.toml'"):
        load_text(tmp_path, "extends = 'other.toml'")


def test_an_error_of_the_parent_names_the_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text("[nonsense]")
    with pytest.raises(SpaceError, match=r"parent\.toml: every knob"):
        load_text(tmp_path, "extends = 'parent.toml'")


@pytest.mark.parametrize("name", ["tube", "no/such.toml", "", "..", "a\0b.toml", "x" * 5000, "\ud800"])
def test_a_missing_space_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        SpaceError, match=r"^--space must be the name .* that exists, got .*Known: bracket_black, .*tubes"
    ):
        load_space(name)


def test_the_closest_name_is_suggested() -> None:
    with pytest.raises(SpaceError, match=r"Did you mean tubes\?"):
        load_space("tube")


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="must be a file that can be read, got Is a directory"):
        load_space(f"{tmp_path}/")


# --- whatever a file holds, it is a space or a SpaceError ---

SCALARS = (
    st.sampled_from(["0.1", "1e-4", "5", "0.5", "0.3333333333333333", "-1", "inf", "nan", "true", "'otsu'"])
    | st.floats().map(repr)
    | st.integers(-(10**30), 10**30).map(str)
    | st.sampled_from(["{ use_adaptor = true }", "{ foreground = ['otsu'] }", "{ alpha = 0.1 }"])
    | st.sampled_from(["1979-05-27", "[]", "{}", "['otsu', 'none']", "[1, 2]", "[[1], {a = 1}]", "''", "'why'"])
)
NAMES = st.sampled_from([*tunable_names(), "epochs", "nonsense"])
KEYS = st.sampled_from(["low", "high", "log", "seed", "reason", "values", "when", "x"])
SENSIBLE = st.builds(
    lambda name, low, high: table(name, low=repr(low), high=repr(high), seed=repr(getattr(TrainSpec(), name))),
    st.sampled_from([name for name in tunable_names() if name not in ("foreground", "use_adaptor")]),
    st.sampled_from([0, 0.0, 1e-5, 0.1, 0.2, 1, 2]),
    st.sampled_from([0.5, 0.6, 0.8, 0.9, 1, 1.0, 5, 7, 1000]),
)
TABLES = st.builds(
    lambda name, keys: f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()),
    NAMES,
    st.dictionaries(KEYS, SCALARS),
)


def title(text: str) -> str:
    return text.splitlines()[0]


HEADS = st.sampled_from(
    [
        "",
        "extends = 'default'\n",
        "extends = 'extended'\n",
        "drop = ['alpha']\n",
        "extends = 'tubes'\ndrop = ['alpha']\n",
    ]
)
TABLE_LISTS = st.lists(SENSIBLE, max_size=4, unique_by=title) | st.lists(TABLES, max_size=4, unique_by=title)
DOCUMENTS = st.builds(lambda head, tables: head + "\n".join(tables), HEADS, TABLE_LISTS)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=DOCUMENTS | st.text() | st.binary())
def test_any_file_is_a_space_or_a_space_error(tmp_path: Path, text: str | bytes) -> None:
    text = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        space = load_text(tmp_path, text)
    except SpaceError as error:
        assert "\n" not in str(error)
        return
    assert tomllib.loads(text.decode())
    assert space.knobs and space.baseline.keys() <= space.knobs.keys()
    assert any(knob.when for knob in space.knobs.values()) or space.baseline.keys() == space.knobs.keys()
    for name, knob in space.knobs.items():
        assert knob.contains(getattr(TrainSpec(), name))
        for end in knob.ends:
            TrainSpec().replace(**{name: end})
    assert space.fingerprint() == load_text(tmp_path, text).fingerprint()


@settings(max_examples=200, deadline=None)
@given(name=st.text())
def test_any_name_is_a_space_or_a_space_error(name: str) -> None:
    try:
        assert load_space(name).knobs
    except SpaceError as error:
        assert "\n" not in str(error)
