"""The benchmarks run, and the programs that they compare do the same work."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from las_tune.config.train_spec import TrainSpec
from las_tune.las.backbone import load_backbone
from las_tune.las.features import extract_features
from las_tune.study import run as study
from tests.benchmarks import epoch, ledger, scale, trials
from tests.benchmarks.plain import PlainTraining


@pytest.mark.parametrize("name", sorted(file.stem for file in Path(epoch.__file__).parent.glob("*.py")))
def test_every_benchmark_is_importable(name: str) -> None:
    importlib.import_module(f"tests.benchmarks.{name}")


def test_epoch_prints_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    epoch.main(backbone="resnet18", image_size=64, num_fit=10, num_test=8, batch_size=4, fraction_at_batch=(4,))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {
        "device", "backbone", "image_size", "seconds_ours", "seconds_plain", "ratio", "images_per_s",
        "flop_floor_s", "fraction_of_floor", "peak_memory_mb", "training_fraction_at_batch",
    }  # fmt: skip
    assert result["ratio"] == pytest.approx(result["seconds_plain"] / result["seconds_ours"], rel=0.05)
    assert 0 < result["fraction_of_floor"] < 1


def test_count_flops_matches_a_case_matches_hand_calculation() -> None:
    """Two matrix products with 2·3·4 and 2·4·5 multiplications and as many additions."""
    a, b, c = torch.ones(2, 3), torch.ones(3, 4), torch.ones(4, 5)
    assert epoch.count_flops(lambda: a @ b @ c) == 2 * (2 * 3 * 4) + 2 * (2 * 4 * 5)


def test_plain_loop_has_the_same_features() -> None:
    images = epoch.render(4, 4, 64)
    fit, textures, test, labels = map(
        torch.from_numpy, (images.fit, images.textures, images.test.images, images.test.labels)
    )
    spec = TrainSpec(image_size=64, batch_size=4, backbone="resnet18", backbone_weights="random")
    plain = PlainTraining(spec, fit, textures, test, labels, "cpu")
    features = extract_features(load_backbone("resnet18", "random"), fit.float() / 255)
    plain_features = plain.features(plain.normalized(plain.fit))
    for layer, plain_layer in zip(features, plain_features, strict=True):
        torch.testing.assert_close(layer, plain_layer, atol=1e-4, rtol=1e-3)
    loss, auroc = plain.epoch()
    assert 0 < loss < 10 and 0 <= auroc <= 1


@pytest.mark.usefixtures("same_store_afterwards")
def test_ledger_measures_two_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    ledger.main(children=12, few=6, window=4, epochs=2)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    measured = {f"{measure}_at_{size}" for measure in ("ms_per_trial", "driver_ms", "requests") for size in (6, 12)}
    assert set(result) == {"store", "ratio"} | measured
    assert 0 < result["driver_ms_at_12"] < result["ms_per_trial_at_12"]
    # A search, the creation of the run, its end, and its metrics in one call or several, depending on timing.
    assert 4 <= result["requests_at_6"] <= 6 and 4 <= result["requests_at_12"] <= 6


@pytest.mark.slow
@pytest.mark.usefixtures("same_store_afterwards")
def test_scale_measures_one_driver(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(concurrent=[2], rounds=2, trial_s=2.0, trials=[4, 8], slots=2)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"efficiency", "driver_ms_per_trial", "trials_per_hour"}
    assert set(result["efficiency"]) == {"2"} and 0.5 < result["efficiency"]["2"] < 1.05
    for size, milliseconds in result["driver_ms_per_trial"].items():
        assert size in ("4", "8") and milliseconds > 0
        assert result["trials_per_hour"][size] == pytest.approx(3.6e6 / milliseconds, rel=0.02)
    assert scale.driver_s_per_trial([0.0, 1.0, *(1.0 + 0.5 * n for n in range(1, 102))]) == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("same_store_afterwards")
def test_trials_measures_a_study_of_short_trials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "run_trials", study.run_trials)  # restores what the benchmark replaces
    trials.main(trials=4, epochs=1, image_size=64)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"wall_over_ideal", "second_trial_first_step_s", "per_training_overhead_s"}
    assert result["wall_over_ideal"] > 1 and 0 < result["second_trial_first_step_s"] < 30
