"""Record real trials with random hyperparameters, for the surrogate of `tests.benchmarks.search`.

    python -m tests.benchmarks.record --data-root DIR --textures DIR    # half an hour on two CPU cores

Trials run as in a study. Each has its own seed, so that the record contains the noise of training. The file has
hyperparameters and objectives of every epoch, and no images.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import cyclopts
from ray import tune

from las_tune.config.progress import no_progress
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.data.study_images import load_images
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.observer import TuneInput
from las_tune.execution.remote import prepare_remotely
from las_tune.execution.trainable import SharedStudy, run_trial
from las_tune.execution.tuner import run_trials
from las_tune.las.backbone import load_backbone
from las_tune.space.search_space import load_space

FILE = Path(__file__).with_name("recorded_trials.json")


def seeded_trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
    """Run a trial whose seed is derived from its hyperparameters."""
    seed = zlib.crc32(json.dumps(config, sort_keys=True).encode()) & 0x7FFFFFFF
    run_trial(config | {"seed": seed}, shared, start)


class Recorder(Listener):
    """Listener that rewrites the file after every trial."""

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        self.file = file
        self.about = about
        self.rows: list[dict[str, Any]] = []

    def trial_ended(self, trial: TrialRecord) -> None:
        if trial.status != "completed":
            return
        numbers = {
            name: [round(row[name], 4) for row in trial.epochs] for name in ("image_auroc", "pixel_aupro", "objective")
        }
        params = {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in trial.params.items()}
        self.rows.append({"params": params, "seconds": round(trial.seconds, 1), **numbers})
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in self.rows)
        self.file.write_text(json.dumps(self.about)[:-1] + f', "trials": [\n{lines}\n]}}\n')


def main(
    *,
    data_root: Path,
    textures: Path,
    category: str = "metal_plate",
    space: str = "default",
    trials: int = 240,
    epochs: int = 9,
    image_size: int = 160,
    file: Path = FILE,
) -> None:
    """Run random trials and record them."""
    with tempfile.TemporaryDirectory() as folder:
        train = TrainSpec(image_size=image_size, epochs=epochs, backbone="efficientnet_lite0", objective="combined")
        spec = StudySpec(
            category=category, study="recorded", data_root=data_root.absolute(), textures=textures.absolute(),
            results=Path(folder), trials=trials, sampler="random", scheduler="none", cpus_per_trial=1, train=train,
        )  # fmt: skip
        spec.folder.mkdir()
        images = load_images(spec)
        about = {"category": category, "space": space, "epochs": epochs, "image_size": image_size}
        with ray_cluster(None):
            resources = resources_of(spec)
            backbone = load_backbone(train.backbone, train.backbone_weights)
            shared, _ = prepare_remotely(spec, backbone, images.trials, resources, no_progress)
            recorder = Recorder(file, about)
            run_trials([TuneInput(spec, load_space(space), shared, [recorder])], resources, seeded_trial)


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
