"""Whole runs through the command line, small ones: two categories, the paper's protocol, a synthetic validation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.study_spec import MOST_TRIALS
from tests.parts import SMALL, make_part, make_textures
from tests.study.test_run import Finished, run_in

pytestmark = pytest.mark.slow

CATEGORIES = ("bolt", "nut")
TRIALS = {"both": 2, "paper": 2, "painted": 4}


@dataclass
class Runs:
    """Three runs, one after the other over the same images, store and registry, and what each printed."""

    place: Path
    printed: dict[str, str]

    def study(self, name: str) -> Finished:
        return Finished.read(self.place / "results/las" / name, self.printed[name.split("-")[0]])

    @property
    def overview(self) -> dict[str, Any]:
        return dict(json.loads((self.place / "results/las/both/overview.json").read_text()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in CATEGORIES:
            make_part(Path("parts"), name, train=14)  # its noise is a function of this path
        make_textures(Path("textures"))
    common = f"--data-root parts --textures textures --space default --finalists 1 --seeds 2 {SMALL}"
    commands = {
        "both": "--category all --trials 2 --leakage-gap",
        "paper": "--category bolt --trials 2 --protocol paper",
        "painted": "--category bolt --trials 4 --validation synthetic --warm-start both-nut nut --scheduler none",
    }
    return Runs(
        place, {name: run_in(place, f"{command} --study {name} {common}") for name, command in commands.items()}
    )


def version_of(study: Finished) -> Any:
    """The model version that a study registered."""
    (ours,) = (v for v in study.client.search_model_versions() if v.tags["study"] == study.summary["study"])
    return study.client.get_model_version(ours.name, ours.version)


@pytest.mark.parametrize("name", ["both-bolt", "both-nut", "paper", "painted"])
def test_one_parent_a_study_and_one_child_a_training(runs: Runs, name: str) -> None:
    study = runs.study(name)
    trials = TRIALS[name.split("-")[0]]
    again = [run.data.tags["finalist"] for run in study.children if "finalist_seed" in run.data.tags]
    assert "baseline" in again and len(again) == 2 * len(set(again)), "with two seeds each"
    numbers = sorted(int(run.data.tags["trial"]) for run in study.children)
    assert numbers == [*range(trials), *range(MOST_TRIALS, MOST_TRIALS + len(again))]
    assert {run.info.status for run in (study.parent, *study.children)} == {"FINISHED"}
    assert {run.data.tags["study"] for run in (study.parent, *study.children)} == {name}


# --- two categories in one run ---


def test_two_categories_are_two_studies_of_one_run(runs: Runs) -> None:
    studies = [runs.study(f"both-{name}") for name in CATEGORIES]
    assert [study.parent.data.tags["category"] for study in studies] == list(CATEGORIES)
    assert {study.parent.data.tags["run"] for study in studies} == {"both"}
    assert runs.overview["studies"] == [study.summary for study in studies]
    for study, name in zip(studies, CATEGORIES, strict=True):
        assert version_of(study).name == f"las-{name}"


def test_the_best_of_each_category_is_trained_in_the_other(runs: Runs) -> None:
    for name, other in (CATEGORIES, CATEGORIES[::-1]):
        again = [run for run in runs.study(f"both-{name}").children if "finalist_seed" in run.data.tags]
        assert {run.data.tags["finalist"] for run in again} == {"baseline", "trial 1", f"best of {other}"}
        theirs = runs.study(f"both-{other}").summary["best_trial"]["params"]
        for run in again:
            if run.data.tags["finalist"] == f"best of {other}":
                assert run.data.params == {key: str(value) for key, value in theirs.items()}


def test_the_shared_configuration_is_told_with_a_regret_for_each_category(runs: Runs) -> None:
    shared = runs.overview["shared_configuration"]
    means: dict[str, dict[str, float]] = {}
    for name in CATEGORIES:
        objectives: dict[str, list[float]] = {}
        for run in runs.study(f"both-{name}").children:
            if "finalist_seed" in run.data.tags:
                who = run.data.tags["finalist"].replace("trial 1", f"best of {name}")
                objectives.setdefault(who, []).append(run.data.metrics["best/objective"])
        means[name] = {who: sum(values) / 2 for who, values in objectives.items()}
    assert shared["regret"] == pytest.approx(
        {name: max(means[name].values()) - means[name][shared["from"]] for name in CATEGORIES}
    )
    assert shared["mean_regret"] == pytest.approx(sum(shared["regret"].values()) / 2)
    assert shared["mean_regret"] == min(shared["mean_regret_of_all"].values())


def test_the_overview_is_printed(runs: Runs) -> None:
    printed, shared = runs.printed["both"], runs.overview["shared_configuration"]
    table = printed[printed.index("regret of the shared") :]
    for summary in runs.overview["studies"]:
        row = next(line for line in table.split("\n") if f"│ {summary['category']} " in line)
        bank = summary["reference"]["memory_bank"]
        assert f"{bank:.4f}" in row and f"{shared['regret'][summary['category']]:.4f}" in row
        assert f"{summary['cost']['cpu_seconds']:.0f}" in row
    assert f"one configuration for all: {shared['from']}, mean regret {shared['mean_regret']:.4f}" in table
    assert f"overview: {runs.place / 'results/las/both/overview.json'}" in printed


@pytest.mark.parametrize("name", CATEGORIES)
def test_the_leakage_gap_is_told(runs: Runs, name: str) -> None:
    study = runs.study(f"both-{name}")
    gap = study.summary["leakage_gap"]
    searched = [run.data.metrics for run in study.children if "finalist_seed" not in run.data.tags]
    assert gap["paper"] == pytest.approx(max(metrics["whole/objective"] for metrics in searched))
    chosen = [max(searched, key=lambda metrics: metrics[part]) for part in ("objective", "sealed/objective")]
    honest = (chosen[0]["sealed/objective"] + chosen[1]["objective"]) / 2
    assert gap["gap"] == pytest.approx(gap["paper"] - honest)
    assert study.parent.data.metrics["leakage_gap"] == pytest.approx(gap["gap"])
    assert f"{gap['gap']:+.4f} of flattery" in study.printed
    assert all(run.data.tags["test-watched"] == "true" for run in (study.parent, *study.children))


# --- the paper's protocol ---


def test_what_was_chosen_by_the_test_says_so_everywhere(runs: Runs) -> None:
    study = runs.study("paper")
    assert all(run.data.tags["test-selected"] == "true" for run in (study.parent, *study.children))
    assert study.summary["test_selected"] and study.summary["protocol"] == "paper"
    assert "TEST-SELECTED (--protocol paper)" in study.printed
    assert "whole test image_auroc" in study.printed and "sealed test image_auroc" not in study.printed
    assert study.summary["splits"]["validation"] == study.summary["splits"]["sealed_test"] == 8
    assert version_of(study).tags["test-selected"] == "true"
    for name in ("both-bolt", "both-nut", "painted"):
        other = runs.study(name)
        assert "TEST-SELECTED" not in other.printed and not other.summary["test_selected"]
        assert not any("test-selected" in run.data.tags for run in (other.parent, *other.children))
        assert "test-selected" not in version_of(other).tags


def test_what_was_chosen_by_the_test_is_no_champion(runs: Runs) -> None:
    study = runs.study("paper")
    assert study.summary["model_uri"] == f"models:/las-bolt/{version_of(study).version}"
    assert not version_of(study).aliases
    champion = study.client.get_model_version_by_alias("las-bolt", "champion")
    assert champion.tags["study"] in ("both-bolt", "painted"), "it is of one that was chosen by other images"


def test_choosing_by_the_whole_test_opens_its_sealed_half_too(runs: Runs) -> None:
    assert runs.study("both-bolt").summary["test_openings"] == 1
    assert runs.study("paper").summary["test_openings"] == 2
    painted = runs.study("painted")
    assert painted.summary["splits"]["sealed_test"] == 4 and painted.summary["test_openings"] == 3
    assert runs.study("both-nut").summary["test_openings"] == 1, "the test of another category"


# --- a synthetic validation ---


def test_a_painted_validation_is_told(runs: Runs) -> None:
    study = runs.study("painted")
    assert study.summary["painted"] == ["validation"] and study.summary["validation"] == "synthetic"
    assert "SYNTHETIC: validation: good images and defects painted on them" in study.printed
    assert all(run.data.tags["validation"] == "synthetic" for run in (study.parent, *study.children))
    assert study.summary["splits"]["labelled"] == 4


def test_the_labelled_images_are_watched_and_told_as_a_rank_correlation(runs: Runs) -> None:
    study = runs.study("painted")
    assert all("labelled/objective" in run.data.metrics for run in study.children)
    rank = study.summary["rank_correlation"]
    assert rank["trials"] == 4 and -1 <= rank["low"] <= rank["spearman"] <= rank["high"] <= 1
    assert study.parent.data.metrics["rank_correlation"] == rank["spearman"]
    assert f"rank 4 trials with a correlation of {rank['spearman']:+.2f}" in study.printed
    assert runs.study("paper").summary["rank_correlation"] is None


def test_other_studies_are_started_from_and_told(runs: Runs) -> None:
    """The champion of nut is the one of its study: it is tried once."""
    study = runs.study("painted")
    nut = runs.study("both-nut").summary
    theirs = nut["champion" if nut["champion"]["finalist"] != "baseline" else "best_trial"]["params"]
    (first,) = (run for run in study.children if run.data.tags["trial"] == "1")
    assert first.data.params == {name: str(value) for name, value in theirs.items()}
    assert study.parent.data.tags["warm_start"] == (
        "warm start from study both-nut; warm start from the champion of nut: nothing new, its point is there already"
    )
    assert "warm start from study both-nut" in study.printed
