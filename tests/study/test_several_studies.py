"""Small runs from the command line: two categories, the paper's protocol, a synthetic validation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.study_spec import MAX_TRIALS
from las_tune.reporting.run_summary import RunSummary
from tests.parts import SMALL, make_part, make_textures
from tests.study.test_run import Finished, run_in

pytestmark = pytest.mark.slow

CATEGORIES = ("bolt", "nut")
TRIALS = {"both": 2, "paper": 2, "painted": 4}


@dataclass
class Runs:
    """Three runs in sequence, with the same images, store and registry, and the output of each."""

    folder: Path
    printed: dict[str, str]

    def study(self, name: str) -> Finished:
        return Finished.read(self.folder / "results/las" / name, self.printed[name.split("-")[0]])

    @property
    def overview(self) -> RunSummary:
        return RunSummary.from_json(json.loads((self.folder / "results/las/both/overview.json").read_text()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in CATEGORIES:
            make_part(Path("parts"), name, train=14)  # the noise in the images depends on this path
        make_textures(Path("textures"))
    common = f"--data-root parts --textures textures --space default --finalists 1 --seeds 2 {SMALL}"
    commands = {
        "both": "--category all --trials 2 --leakage-gap",
        "paper": "--category bolt --trials 2 --protocol paper",
        "painted": "--category bolt --trials 4 --validation synthetic --warm-start both-nut nut --scheduler none",
    }
    return Runs(
        folder, {name: run_in(folder, f"{command} --study {name} {common}") for name, command in commands.items()}
    )


def version_of(study: Finished) -> Any:
    """Return the model version that a study registered."""
    (version,) = (v for v in study.client.search_model_versions() if v.tags["study"] == study.summary.study)
    return study.client.get_model_version(version.name, version.version)


@pytest.mark.parametrize("name", ["both-bolt", "both-nut", "paper", "painted"])
def test_one_parent_run_per_study_and_one_child_run_per_training(runs: Runs, name: str) -> None:
    study = runs.study(name)
    trials = TRIALS[name.split("-")[0]]
    finalists = [run.data.tags["finalist"] for run in study.children if "finalist_seed" in run.data.tags]
    assert "baseline" in finalists and len(finalists) == 2 * len(set(finalists)), "with two seeds each"
    numbers = sorted(int(run.data.tags["trial"]) for run in study.children)
    assert numbers == [*range(trials), *range(MAX_TRIALS, MAX_TRIALS + len(finalists))]
    assert {run.info.status for run in (study.parent, *study.children)} == {"FINISHED"}
    assert {run.data.tags["study"] for run in (study.parent, *study.children)} == {name}


# --- two categories in one run ---


def test_two_categories_are_two_studies_of_one_run(runs: Runs) -> None:
    studies = [runs.study(f"both-{name}") for name in CATEGORIES]
    assert [study.parent.data.tags["category"] for study in studies] == list(CATEGORIES)
    assert {study.parent.data.tags["run"] for study in studies} == {"both"}
    assert list(runs.overview.studies) == [study.summary for study in studies]
    for study, name in zip(studies, CATEGORIES, strict=True):
        assert version_of(study).name == f"las-{name}"


def test_best_trial_of_each_category_is_trained_in_the_other(runs: Runs) -> None:
    for name, other in (CATEGORIES, CATEGORIES[::-1]):
        retrained = [run for run in runs.study(f"both-{name}").children if "finalist_seed" in run.data.tags]
        assert {run.data.tags["finalist"] for run in retrained} == {"baseline", "trial 1", f"best of {other}"}
        params = runs.study(f"both-{other}").summary.best_trial.params
        for run in retrained:
            if run.data.tags["finalist"] == f"best of {other}":
                assert run.data.params == {key: str(value) for key, value in params.items()}


def test_shared_configuration_has_a_regret_for_each_category(runs: Runs) -> None:
    shared = runs.overview.shared_configuration
    assert shared is not None
    means: dict[str, dict[str, float]] = {}
    for name in CATEGORIES:
        objectives: dict[str, list[float]] = {}
        for run in runs.study(f"both-{name}").children:
            if "finalist_seed" in run.data.tags:
                source = run.data.tags["finalist"].replace("trial 1", f"best of {name}")
                objectives.setdefault(source, []).append(run.data.metrics["best/objective"])
        means[name] = {source: sum(values) / 2 for source, values in objectives.items()}
    assert shared.regret == pytest.approx(
        {name: max(means[name].values()) - means[name][shared.source] for name in CATEGORIES}
    )
    assert shared.mean_regret == pytest.approx(sum(shared.regret.values()) / 2)
    assert shared.mean_regret == min(shared.mean_regret_of_all.values())


def test_overview_is_printed(runs: Runs) -> None:
    printed, shared = runs.printed["both"], runs.overview.shared_configuration
    assert shared is not None
    table = printed[printed.index("regret of the shared") :]
    for summary in runs.overview.finished:
        row = next(line for line in table.split("\n") if f"│ {summary.category} " in line)
        bank = summary.reference.memory_bank
        assert f"{bank:.4f}" in row and f"{shared.regret[summary.category]:.4f}" in row
        assert f"{summary.cost.device_seconds:.0f}" in row
    assert f"Shared configuration: {shared.source}, mean regret {shared.mean_regret:.4f}" in table
    assert f"overview: {runs.folder / 'results/las/both/overview.json'}" in printed


@pytest.mark.parametrize("name", CATEGORIES)
def test_leakage_gap_is_reported(runs: Runs, name: str) -> None:
    study = runs.study(f"both-{name}")
    gap = study.summary.leakage_gap
    assert gap is not None
    searched = [run.data.metrics for run in study.children if "finalist_seed" not in run.data.tags]
    assert gap.paper == pytest.approx(max(metrics["whole/objective"] for metrics in searched))
    chosen = [max(searched, key=lambda metrics: metrics[part]) for part in ("objective", "sealed/objective")]
    honest = (chosen[0]["sealed/objective"] + chosen[1]["objective"]) / 2
    assert gap.gap == pytest.approx(gap.paper - honest)
    assert study.parent.data.metrics["leakage_gap"] == pytest.approx(gap.gap)
    assert f"optimistic bias of selecting on the test set ({study.summary.objective}): {gap.gap:+.4f}" in study.printed
    assert all(run.data.tags["test-watched"] == "true" for run in (study.parent, *study.children))


# --- the paper's protocol ---


def test_test_selected_study_is_marked_everywhere(runs: Runs) -> None:
    study = runs.study("paper")
    assert all(run.data.tags["test-selected"] == "true" for run in (study.parent, *study.children))
    assert study.summary.is_test_selected and study.summary.protocol == "paper"
    assert "TEST-SELECTED (--protocol paper)" in study.printed
    assert "whole test image_auroc" in study.printed and "sealed test image_auroc" not in study.printed
    assert study.summary.splits.validation == study.summary.splits.sealed_test == 8
    assert version_of(study).tags["test-selected"] == "true"
    for name in ("both-bolt", "both-nut", "painted"):
        other = runs.study(name)
        assert "TEST-SELECTED" not in other.printed and not other.summary.is_test_selected
        assert not any("test-selected" in run.data.tags for run in (other.parent, *other.children))
        assert "test-selected" not in version_of(other).tags


def test_test_selected_model_has_no_alias(runs: Runs) -> None:
    study = runs.study("paper")
    assert study.summary.model_uri == f"models:/las-bolt/{version_of(study).version}"
    assert not version_of(study).aliases
    champion = study.client.get_model_version_by_alias("las-bolt", "champion")
    assert champion.tags["study"] in ("both-bolt", "painted"), "which select on validation images"


def test_papers_protocol_counts_as_an_opening_of_the_sealed_test(runs: Runs) -> None:
    assert runs.study("both-bolt").summary.test_openings == 1
    assert runs.study("paper").summary.test_openings == 2
    painted = runs.study("painted")
    assert painted.summary.splits.sealed_test == 4 and painted.summary.test_openings == 3
    assert runs.study("both-nut").summary.test_openings == 1, "the test of another category"


# --- a synthetic validation ---


def test_synthetic_validation_is_marked(runs: Runs) -> None:
    study = runs.study("painted")
    assert study.summary.synthetic_parts == ("validation",) and study.summary.validation == "synthetic"
    assert "SYNTHETIC: the defects of validation images are synthetic" in study.printed
    assert all(run.data.tags["validation"] == "synthetic" for run in (study.parent, *study.children))
    assert study.summary.splits.labelled == 4


def test_labeled_images_give_a_rank_correlation(runs: Runs) -> None:
    study = runs.study("painted")
    assert all("labelled/objective" in run.data.metrics for run in study.children)
    rank = study.summary.rank_correlation
    assert rank is not None and rank.low is not None and rank.spearman is not None and rank.high is not None
    assert rank.trials == 4 and -1 <= rank.low <= rank.spearman <= rank.high <= 1
    assert study.parent.data.metrics["rank_correlation"] == rank.spearman
    assert f"validation over 4 trials: {rank.spearman:+.2f}" in study.printed
    assert runs.study("paper").summary.rank_correlation is None


def test_warm_start_takes_the_champions_of_other_studies(runs: Runs) -> None:
    """The champion of nut is that of its study, so it is evaluated once."""
    study = runs.study("painted")
    nut = runs.study("both-nut").summary
    best = nut.champion if nut.champion.finalist != "baseline" else nut.best_trial
    (first,) = (run for run in study.children if run.data.tags["trial"] == "1")
    assert first.data.params == {name: str(value) for name, value in best.params.items()}
    assert study.parent.data.tags["warm_start"] == (
        "warm start from study both-nut; warm start from the champion of nut: already among the configurations, skipped"
    )
    assert "warm start from study both-nut" in study.printed
