from __future__ import annotations

import math
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.config.train_spec import TrainSpec, tunable_names
from las_tune.errors import SpaceError
from las_tune.space import search_space as module
from las_tune.space.parameters import Choice, Range
from las_tune.space.search_space import GENERAL_SPACES, Space, known_spaces, load_space, space_for, spaces_folder

RATE = "[adaptor_lr]\nlow = 1e-5\nhigh = 1e-3\nlog = true\nbaseline = 1e-4\nreason = 'r'\n"
ADAPTOR = "[use_adaptor]\nvalues = [true, false]\nbaseline = true\nreason = 'r'\n"
STD = "[beta_std]\nlow = 0.0\nhigh = 0.3\nbaseline = 0.1\nreason = 'r'\n"


def table(name: str, **keys: str) -> str:
    """A table with a reason; values are TOML text."""
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in ({"reason": "'r'"} | keys).items())


def load_text(folder: Path, text: str | bytes, name: str = "my.toml") -> Space:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_space(str(path))


# --- included spaces ---


@pytest.mark.parametrize("name", known_spaces())
def test_included_space_contains_the_baseline(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.baseline == {key: getattr(TrainSpec(), key) for key in space.parameters}, "all conditions hold"
    assert list(space.parameters) == [parameter for parameter in tunable_names() if parameter in space.parameters]
    for key, parameter in space.parameters.items():
        assert parameter.contains(space.baseline[key])
        assert len(parameter.reason) > 40
    for end in ("low", "high"):
        ends = {n: getattr(parameter, end) for n, parameter in space.parameters.items() if isinstance(parameter, Range)}
        TrainSpec().replace(**ends)


def test_every_mpdd_category_has_a_space_that_extends_the_default() -> None:
    assert set(known_spaces()) == {*GENERAL_SPACES, *MPDD_CATEGORIES}
    fingerprints = {load_space(name).fingerprint() for name in known_spaces()}
    assert len(fingerprints) == len(known_spaces()) - 1, "default is core"
    for category in MPDD_CATEGORIES:
        names = [path.name for path in space_for(category).sources]
        assert names == ["core.toml", "default.toml", f"{category}.toml"]


def test_included_files_describe_their_bounds_as_priors() -> None:
    for name in set(known_spaces()) - {"default"}:
        text = " ".join((spaces_folder() / f"{name}.toml").read_text().replace("#", "").split()).lower()
        assert "priors, not measurements" in text


def test_category_without_a_file_uses_the_default() -> None:
    for category in ("screws", *GENERAL_SPACES):  # a category may have one of these names
        assert space_for(category).name == "default"
    assert space_for("../default").name == "default"


def test_default_equals_core() -> None:
    lines = (spaces_folder() / "default.toml").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['extends = "core"']
    assert load_space("default").parameters == load_space("core").parameters


def test_extended_contains_every_tunable_hyperparameter() -> None:
    core, extended = load_space("core"), load_space("extended")
    assert tuple(extended.parameters) == tunable_names()
    assert {name for name, parameter in extended.parameters.items() if parameter.when} == {"adaptor_lr"}
    assert extended.parameters["adaptor_lr"].when == {"use_adaptor": (True,)}
    for name in set(core.parameters) - {"adaptor_lr"}:
        assert extended.parameters[name] == core.parameters[name]


def test_core_space_has_the_published_parameters() -> None:
    space = load_space("core")
    assert list(space.parameters) == ["adaptor_lr", "discriminator_lr", "alpha", "beta_mean", "beta_std"]
    assert space.baseline["alpha"] == 1 / 3
    alpha = space.parameters["alpha"]
    assert isinstance(alpha, Range) and (alpha.low, alpha.high, alpha.log) == (0, 0.5, False)


def test_packaged_folder_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "las_tune" / "space" / "search_space.py"
    monkeypatch.setattr(module, "__file__", str(code))
    assert spaces_folder() == tmp_path / "search_spaces"
    (tmp_path / "las_tune" / "search_spaces").mkdir(parents=True)
    assert spaces_folder() == tmp_path / "las_tune" / "search_spaces"


def test_spaces_import_no_ray_optuna_torch_or_mlflow() -> None:
    code = "import sys, las_tune.space.search_space; print({'ray', 'optuna', 'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- parameters ---


@pytest.mark.parametrize(
    ("parameter", "value", "inside"),
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
def test_contains_checks_range_and_type(parameter: Range | Choice, value: Any, inside: bool) -> None:
    assert parameter.contains(value) is inside


def test_values_are_converted_to_the_type_of_the_field(tmp_path: Path) -> None:
    text = table("alpha", low="0", high="0.5", baseline="0.3333333333333333")
    text += table("hidden_width", low="64", high="2048.0", log="true", baseline="768")
    text += table("focal_gamma", values="[0, 2, 4.0]", baseline="2")
    parameters = load_text(tmp_path, text).parameters
    assert parameters["hidden_width"] == Range(64, 2048, log=True, integer=True, reason="r")
    assert parameters["focal_gamma"] == Choice((0.0, 2.0, 4.0), "r")
    assert [type(end) for end in (*parameters["alpha"].ends, *parameters["hidden_width"].ends)] == [
        float,
        float,
        int,
        int,
    ]


def test_baseline_is_the_exact_default(tmp_path: Path) -> None:
    space = load_text(tmp_path, table("alpha", low="0.1", high="0.5", baseline="0.3333333333"))
    assert space.baseline == {"alpha": 1 / 3}


def test_boolean_hyperparameter_takes_booleans(tmp_path: Path) -> None:
    space = load_text(tmp_path, ADAPTOR)
    assert space.parameters == {"use_adaptor": Choice((True, False), "r")} and space.baseline == {"use_adaptor": True}


# --- conditions ---


def test_condition_takes_a_value_or_a_list_of_values(tmp_path: Path) -> None:
    foreground = table("foreground", values="['otsu', 'none']", baseline="'otsu'")
    text = RATE + "when = { use_adaptor = true, foreground = ['otsu', 'none'] }\n" + ADAPTOR + foreground
    space = load_text(tmp_path, text)
    rate = space.parameters["adaptor_lr"]
    assert rate == Range(1e-5, 1e-3, True, reason="r", when={"use_adaptor": (True,), "foreground": ("none", "otsu")})
    assert not load_text(tmp_path, RATE).parameters["adaptor_lr"].when


def test_trial_has_only_active_parameters(tmp_path: Path) -> None:
    width = table(
        "hidden_width", values="[64, 768]", baseline="768", when="{ use_adaptor = false, batch_size = [4, 16] }"
    )
    batch = table("batch_size", values="[4, 8, 16]", baseline="8")
    space = load_text(tmp_path, RATE + "when = { use_adaptor = true }\n" + ADAPTOR + width + batch)
    assert space.baseline == {"adaptor_lr": 1e-4, "use_adaptor": True, "batch_size": 8}
    for adaptor, size, names in [(True, 4, {"adaptor_lr"}), (False, 8, set()), (False, 16, {"hidden_width"})]:
        values = {"adaptor_lr": 1e-5, "hidden_width": 64, "use_adaptor": adaptor, "batch_size": size}
        assert space.active(values).keys() == {"use_adaptor", "batch_size", *names}


def test_extending_file_may_replace_a_condition_and_its_parameters(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text(RATE + "when = { use_adaptor = true }\n" + ADAPTOR)
    inherited = load_text(tmp_path, "extends = './parent.toml'\n" + STD)
    assert inherited.parameters["adaptor_lr"].when == {"use_adaptor": (True,)}
    replaced = load_text(tmp_path, "extends = './parent.toml'\n" + RATE)
    assert not any(parameter.when for parameter in replaced.parameters.values())
    both = load_text(tmp_path, "extends = './parent.toml'\ndrop = ['use_adaptor', 'adaptor_lr']\n" + STD)
    assert list(both.parameters) == ["beta_std"]


# --- inheritance ---


def test_tables_replace_inherited_ones_and_drop_removes_them(tmp_path: Path) -> None:
    text = "extends = 'default'\ndrop = ['beta_std']\n" + table(
        "alpha", low="0.2", high="0.4", baseline="0.3333333333333333"
    )
    space = load_text(tmp_path, text)
    assert list(space.parameters) == ["adaptor_lr", "discriminator_lr", "alpha", "beta_mean"]
    assert space.parameters["alpha"] == Range(0.2, 0.4, reason="r")
    assert space.parameters["beta_mean"] == load_space("default").parameters["beta_mean"]
    assert space.sources == (spaces_folder() / "core.toml", spaces_folder() / "default.toml", tmp_path / "my.toml")


def test_extends_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "parent.toml").write_text(RATE)
    (tmp_path / "sub/child.toml").write_text("extends = '../parent.toml'\n" + STD)
    monkeypatch.chdir(tmp_path)
    space = load_space("sub/child.toml")
    assert space.name == "child"
    assert list(space.parameters) == ["adaptor_lr", "beta_std"]


# --- the key of version 0.1.0 ---


def test_deprecated_key_seed_is_read_with_one_warning(tmp_path: Path) -> None:
    text = RATE + ADAPTOR
    expected = load_text(tmp_path, text, "new.toml")
    with pytest.warns(FutureWarning, match=r"old\.toml: the key seed is deprecated\. Rename it to baseline") as caught:
        space = load_text(tmp_path, text.replace("baseline", "seed"), "old.toml")
    assert len(caught) == 1
    assert space.parameters == expected.parameters and space.fingerprint() == expected.fingerprint()


def test_included_spaces_use_no_deprecated_key() -> None:
    with warnings.catch_warnings(action="error"):
        for name in known_spaces():
            load_space(name)


# --- fingerprint ---


def test_fingerprint_ignores_reasons_order_and_spelling(tmp_path: Path) -> None:
    first = load_text(tmp_path, RATE + STD, "first.toml")
    again = STD.replace("'r'", "'another reason'").replace("0.3", "3e-1") + RATE
    assert load_text(tmp_path, again, "again.toml").fingerprint() == first.fingerprint()
    assert len(first.fingerprint()) == 64


def test_fingerprint_depends_on_conditions(tmp_path: Path) -> None:
    batch = table("batch_size", values="[4, 8, 16]", baseline="8")
    conditions = ["", "when = { batch_size = 4 }", "when = { batch_size = [4, 8] }", "when = { batch_size = 8 }"]
    prints = [load_text(tmp_path, RATE + when + "\n" + batch).fingerprint() for when in conditions]
    assert len(set(prints)) == 4
    assert load_text(tmp_path, RATE + "when = { batch_size = [8, 4] }\n" + batch).fingerprint() == prints[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [("high = 0.3", "high = 0.4"), ("log = true", "log = false"), ("low = 1e-5", "low = 2e-5"), (STD, "")],
)
def test_fingerprint_depends_on_the_space(tmp_path: Path, old: str, new: str) -> None:
    changed = load_text(tmp_path, (RATE + STD).replace(old, new), "changed.toml")
    assert changed.fingerprint() != load_text(tmp_path, RATE + STD).fingerprint()


def test_fingerprint_is_stable(tmp_path: Path) -> None:
    """A new fingerprint prevents earlier studies from resuming, so a change of it must be intended."""
    expected = "aea733f0017794f2af81b9d19b7ed978fc757ed4dbab5bc522c6a59a0df432f9"
    assert load_text(tmp_path, RATE + STD).fingerprint() == expected


# --- errors: location, problem, value, remedy ---

ERRORS: dict[str, tuple[str | bytes, list[str]]] = {
    "not TOML": ("[adaptor_lr]\nlow = = 1\n", ["is not valid TOML", "line 2"]),
    "not text": (b"\xff\xfe", ["is not valid TOML"]),
    "nested too deep": ("x = " + "[" * 100_000, ["is not valid TOML"]),
    "endless number": (table("alpha", low="0x" + "f" * 5000, high="1", baseline="0"), ["is not valid TOML"]),
    "no parameters": ("", ["the search space has no parameter", "Write extends"]),
    "all dropped": (
        "extends = 'metal_plate'\ndrop = ['adaptor_lr', 'discriminator_lr', 'alpha', 'beta_mean', "
        "'beta_std', 'perlin_max_exponent']",
        ["the search space has no parameter"],
    ),
    "unknown parameter": (
        "[adapter_lr]",
        ["[adapter_lr] is not a tunable hyperparameter", "Did you mean adaptor_lr?", "hidden_width"],
    ),
    "a field that is not tunable": (
        table("epochs", low="1", high="9", baseline="50"),
        ["[epochs] is not a tunable", "Known: adaptor_lr"],
    ),
    "not a table": ("alpha = 0.3", ["[alpha] must be a table", "got 0.3", "Write [alpha]"]),
    "unknown key": (
        table("alpha", lower="0", high="0.5", baseline="0.3333333333333333"),
        [
            "[alpha] has an unknown key",
            "'lower'",
            "Did you mean low?",
            "Known: low, high, log, baseline, reason, when",
        ],
    ),
    "both forms": (table("alpha", values="[0]", low="0"), ["'low'", "Known: values, baseline, reason, when"]),
    "no low": (table("alpha", high="0.5", baseline="0.3"), ["[alpha] has no key low", "'high'", "Add low = ..."]),
    "no high": (table("alpha", low="0", baseline="0.3"), ["[alpha] has no key high"]),
    "no baseline": (table("alpha", low="0", high="0.5"), ["[alpha] has no key baseline"]),
    "both names of the baseline": (
        table("alpha", low="0", high="0.5", baseline="0.3", seed="0.3"),
        ["[alpha] has both baseline and seed", "Remove seed, the old name"],
    ),
    "no reason": ("[alpha]\nlow = 0\nhigh = 0.5\nbaseline = 0.3", ["[alpha] has no key reason"]),
    "no baseline of a choice": (table("foreground", values="['otsu']"), ["[foreground] has no key baseline"]),
    "empty reason": (
        table("alpha", low="0", high="0.5", baseline="0.3", reason="' '"),
        ["reason must be text", "' '"],
    ),
    "reason no text": (
        table("alpha", low="0", high="0.5", baseline="0.3", reason="3"),
        ["reason must be text", "got 3"],
    ),
    "low = high": (
        table("alpha", low="0.5", high="0.5", baseline="0.3"),
        ["low must be below high", "(0.5, 0.5)"],
    ),
    "low > high": (
        table("alpha", low="0.5", high="0.1", baseline="0.3"),
        ["low must be below high", "(0.5, 0.1)"],
    ),
    "log from 0": (
        table("alpha", low="0", high="0.5", log="true", baseline="0.3"),
        ["low must be above 0", "got 0.0"],
    ),
    "log no bool": (
        table("alpha", low="0", high="0.5", log="1", baseline="0.3"),
        ["log must be true or false", "got 1"],
    ),
    "low text": (
        table("alpha", low="'0'", high="0.5", baseline="0.3"),
        ["[alpha] low must be a finite number", "'0'"],
    ),
    "low bool": (
        table("alpha", low="false", high="0.5", baseline="0.3"),
        ["low must be a finite number", "got False"],
    ),
    "high inf": (
        table("alpha", low="0", high="inf", baseline="0.3"),
        ["high must be a finite number", "got inf"],
    ),
    "high nan": (
        table("alpha", low="0", high="nan", baseline="0.3"),
        ["high must be a finite number", "got nan"],
    ),
    "huge high": (
        table("alpha", low="0", high="1" + "0" * 400, baseline="0.3"),
        ["high must be a finite number", "got 1000"],
    ),
    "fraction": (
        table("perlin_max_exponent", low="1.5", high="6", baseline="5"),
        ["[perlin_max_exponent] low must be an integer", "got 1.5"],
    ),
    "beyond TrainSpec": (
        table("alpha", low="0", high="0.7", baseline="0.3333333333333333"),
        ["[alpha] alpha must be in [0, 1/2]", "got 0.7"],
    ),
    "choice beyond TrainSpec": (
        table("foreground", values="['otsu', 'sam']", baseline="'otsu'"),
        ["[foreground] foreground must be one of otsu, none", "got 'sam'"],
    ),
    "range of a text": (
        table("foreground", low="0", high="1", baseline="'otsu'"),
        ["[foreground] needs values instead of low and high"],
    ),
    "values no list": (
        table("foreground", values="'otsu'", baseline="'otsu'"),
        ["values must be a non-empty list", "'otsu'"],
    ),
    "values empty": (
        table("foreground", values="[]", baseline="'otsu'"),
        ["values must be a non-empty list", "got []"],
    ),
    "values of a wrong type": (
        table("foreground", values="[1]", baseline="'otsu'"),
        ["values must be text", "got 1"],
    ),
    "values twice": (table("foreground", values="['otsu', 'otsu']", baseline="'otsu'"), ["values must be distinct"]),
    "numbers twice": (
        table("focal_gamma", values="[2, 2.0]", baseline="2"),
        ["values must be distinct", "(2.0, 2.0)"],
    ),
    "another baseline": (
        table("adaptor_lr", low="1e-5", high="1e-3", baseline="2e-4"),
        [
            "[adaptor_lr] baseline must be the value of the reference configuration",
            "got 0.0002",
            "Write baseline = 0.0001",
        ],
    ),
    "another text as baseline": (
        table("foreground", values="['otsu', 'none']", baseline="'none'"),
        ['Write baseline = "otsu"'],
    ),
    "baseline of a wrong type": (
        table("foreground", values="['otsu']", baseline="1"),
        ["baseline must be text", "got 1"],
    ),
    "baseline outside": (
        table("beta_mean", low="0.6", high="0.8", baseline="0.5"),
        ["[beta_mean] must include the baseline value 0.5", "(0.6, 0.8)", "Widen it"],
    ),
    "baseline no choice": (
        table("foreground", values="['none']", baseline="'otsu'"),
        ['[foreground] must include the baseline value "otsu"', "('none',)"],
    ),
    "corner": (
        table("beta_min", low="0.0", high="0.7", baseline="0.2")
        + table("beta_max", low="0.6", high="1.0", baseline="0.8"),
        ["[beta_min] and [beta_max]", "0 <= beta_min <= beta_max <= 1", "got 0.7 and"],
    ),
    "bool of a number": (
        table("batch_size", values="[true]", baseline="8"),
        ["values must be a finite number", "got True"],
    ),
    "number of a bool": (
        table("use_adaptor", values="[1, 0]", baseline="true"),
        ["[use_adaptor] values must be true or false", "got 1"],
    ),
    "text of a bool": (table("use_adaptor", values="['true']", baseline="true"), ["must be true or false", "'true'"]),
    "range of a bool": (
        table("use_adaptor", low="0", high="1", baseline="true"),
        ["[use_adaptor] needs values instead"],
    ),
    "another bool as baseline": (ADAPTOR.replace("baseline = true", "baseline = false"), ["Write baseline = true"]),
    "batch of none": (table("batch_size", low="0", high="16", baseline="8"), ["[batch_size]", "at least 1", "got 0"]),
    "when no table": (RATE + "when = 'use_adaptor'", ["[adaptor_lr] when must be a non-empty table", "'use_adaptor'"]),
    "when empty": (RATE + "when = {}", ["when must be a non-empty table", "got {}", "Write when = { use_adaptor"]),
    "when of an unknown field": (
        RATE + "when = { use_adapter = true }",
        ["[adaptor_lr] when must name tunable hyperparameters", "'use_adapter'", "Did you mean use_adaptor?"],
    ),
    "when of no parameter": (
        RATE + "when = { use_adaptor = true }",
        ["[adaptor_lr] when must name other parameters that have values", "'use_adaptor'", "Known: none"],
    ),
    "when of a dropped parameter": (
        "extends = 'extended'\ndrop = ['use_adaptor']",
        ["[adaptor_lr] when must name other parameters that have values", "'use_adaptor'", "Known: foreground"],
    ),
    "when of a range": (
        RATE + "when = { beta_std = 0.1 }\n" + STD,
        ["must name other parameters that have values", "'beta_std'"],
    ),
    "when of itself": (
        ADAPTOR + "when = { use_adaptor = true }",
        ["[use_adaptor] when must name other parameters that have values", "'use_adaptor'"],
    ),
    "when of no value": (
        RATE + "when = { use_adaptor = [] }\n" + ADAPTOR,
        ["when use_adaptor must be a non-empty list"],
    ),
    "when of a wrong type": (
        RATE + "when = { use_adaptor = 1 }\n" + ADAPTOR,
        ["[adaptor_lr] when use_adaptor must be true or false", "got 1"],
    ),
    "when of a value twice": (
        RATE + "when = { use_adaptor = [true, true] }\n" + ADAPTOR,
        ["when use_adaptor must be distinct"],
    ),
    "when of an unknown value": (
        RATE + "when = { batch_size = [8, 32] }\n" + table("batch_size", values="[4, 8]", baseline="8"),
        ["[adaptor_lr] when batch_size must be one of the values of [batch_size]", "got 32", "Known: [4, 8]"],
    ),
    "when of when": (
        RATE
        + "when = { use_adaptor = true }\n"
        + ADAPTOR
        + "when = { batch_size = 8 }\n"
        + table("batch_size", values="[4, 8]", baseline="8"),
        ["[adaptor_lr] when names use_adaptor, which is itself conditional", "Remove the when of [use_adaptor]"],
    ),
    "conditions in a cycle": (
        ADAPTOR
        + "when = { batch_size = 8 }\n"
        + table("batch_size", values="[4, 8]", baseline="8", when="{ use_adaptor = true }"),
        ["which is itself conditional"],
    ),
    "drop of an unknown parameter": (
        "extends = 'default'\ndrop = ['beta_sd']",
        ["drop must name parameters of the extended file", "'beta_sd'", "Did you mean beta_std?"],
    ),
    "drop without a parent": ("drop = ['alpha']", ["drop must name parameters of the extended file", "Known: none"]),
    "drop no list": ("drop = 'alpha'", ["drop must be a list", "'alpha'"]),
    "drop of no text": ("extends = 'default'\ndrop = [[1]]", ["drop must name parameters", "got [1]"]),
    "drop of a defined parameter": (
        "extends = 'default'\ndrop = ['beta_std']\n" + STD,
        ["drop names beta_std, which this file also defines"],
    ),
    "extends no text": (
        "extends = 3",
        ["extends must be the name of a search space", "got 3", "Known: bracket_black"],
    ),
    "extends nothing": (
        "extends = 'metal_plates'",
        ["extends must be the name", "Did you mean metal_plate?"],
    ),
    "extends no file": ("extends = 'no/such.toml'", ["extends must be", "'no/such.toml'"]),
    "extends no file name": ('extends = "a\\u0000.toml"', ["extends must be"]),
    "extends itself": ("extends = 'my.toml'", ["extends forms a cycle: my.toml -> my.toml"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error_names_file_problem_value_and_remedy(tmp_path: Path, case: str) -> None:
    text, parts = ERRORS[case]
    with pytest.raises(SpaceError) as caught:
        load_text(tmp_path, text)
    message = str(caught.value)
    for part in (str(tmp_path / "my.toml"), *parts):
        assert part in message
    assert "\n" not in message and message.endswith(".") and len(message) < 600


def test_longer_cycle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("extends = './my.toml'")
    with pytest.raises(SpaceError, match=r"cycle: my.toml -> other.toml -> my.toml"):
        load_text(tmp_path, "extends = 'other.toml'")


def test_error_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text("[nonsense]")
    with pytest.raises(SpaceError, match=r"parent\.toml: \[nonsense\] is not a tunable"):
        load_text(tmp_path, "extends = 'parent.toml'")


@pytest.mark.parametrize("name", ["tube", "no/such.toml", "", "..", "a\0b.toml", "x" * 5000, "\ud800"])
def test_missing_space_lists_the_known_spaces(name: str) -> None:
    with pytest.raises(SpaceError, match=r"^--space must be the name .*, got .*Known: bracket_black, .*tubes"):
        load_space(name)


def test_closest_name_is_suggested() -> None:
    with pytest.raises(SpaceError, match=r"Did you mean tubes\?"):
        load_space("tube")


def test_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="Cannot read search space .*: Is a directory"):
        load_space(f"{tmp_path}/")


# --- any file is either a space or a SpaceError ---

SCALARS = (
    st.sampled_from(["0.1", "1e-4", "5", "0.5", "0.3333333333333333", "-1", "inf", "nan", "true", "'otsu'"])
    | st.floats().map(repr)
    | st.integers(-(10**30), 10**30).map(str)
    | st.sampled_from(["{ use_adaptor = true }", "{ foreground = ['otsu'] }", "{ alpha = 0.1 }"])
    | st.sampled_from(["1979-05-27", "[]", "{}", "['otsu', 'none']", "[1, 2]", "[[1], {a = 1}]", "''", "'why'"])
)
NAMES = st.sampled_from([*tunable_names(), "epochs", "nonsense"])
KEYS = st.sampled_from(["low", "high", "log", "baseline", "seed", "reason", "values", "when", "x"])
SENSIBLE = st.builds(
    lambda name, low, high: table(name, low=repr(low), high=repr(high), baseline=repr(getattr(TrainSpec(), name))),
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
    assert space.parameters and space.baseline.keys() <= space.parameters.keys()
    assert (
        any(parameter.when for parameter in space.parameters.values())
        or space.baseline.keys() == space.parameters.keys()
    )
    for name, parameter in space.parameters.items():
        assert parameter.contains(getattr(TrainSpec(), name))
        for end in parameter.ends:
            TrainSpec().replace(**{name: end})
    assert space.fingerprint() == load_text(tmp_path, text).fingerprint()


@settings(max_examples=200, deadline=None)
@given(name=st.text())
def test_any_name_is_a_space_or_a_space_error(name: str) -> None:
    try:
        assert load_space(name).parameters
    except SpaceError as error:
        assert "\n" not in str(error)
