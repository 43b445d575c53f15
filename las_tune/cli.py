"""The command line: commands and flags become specs. Nothing is computed here, nothing heavy is imported at the top."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError

from las_tune import __version__
from las_tune.commands import data, space
from las_tune.demo import DEMO
from las_tune.errors import UserError
from las_tune.flags import (
    DEFAULTS,
    RECORD,
    RESOURCES,
    SEARCH,
    TRAINING,
    BackboneName,
    BackboneWeights,
    BatchSize,
    Category,
    DataRoot,
    Demo,
    Epochs,
    Holdout,
    ImageSize,
    ObjectiveName,
    Patience,
    Precision,
    Results,
    Seed,
    SkipBroken,
    StoreLimit,
    StoreType,
    Study,
    Textures,
    absolute_uri,
    flag,
    make_study_specs,
    make_train_spec,
    shown,
)
from las_tune.spec import Sampler, Scheduler, StudySpec

app = App(
    name="las_tune",
    version=__version__,
    help="Search the hyperparameters of LAS anomaly detectors for metal parts, category by category.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help_epilogue="Example: python -m las_tune --category bracket_black --demo",
)
app.command(data)
app.command(space)


@app.default
@app.command
def tune(
    *,
    category: Category,
    data_root: DataRoot = Path("data/anomaly_dataset"),
    textures: Textures = Path("data/dtd"),
    skip_broken: SkipBroken = False,
    holdout: Holdout = 0.5,
    demo: Demo = False,
    image_size: ImageSize = None,
    batch_size: BatchSize = DEFAULTS.batch_size,
    epochs: Epochs = None,
    seed: Seed = 0,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = DEFAULTS.backbone_weights,
    objective: ObjectiveName = "auto",
    store_dtype: StoreType = DEFAULTS.store_dtype,
    store_limit_gb: StoreLimit = None,
    head_precision: Precision = DEFAULTS.head_precision,
    trials: Annotated[int | None, flag(SEARCH, "Trials, the baseline among them.", shown("trials", 32))] = None,
    finalists: Annotated[
        int | None, flag(SEARCH, "Best trials that are trained again with new seeds.", shown("finalists", 3))
    ] = None,
    seeds: Annotated[int | None, flag(SEARCH, "New seeds for each of them.", shown("seeds", 3))] = None,
    space: Annotated[str, flag(SEARCH, "Search space: a name or a TOML file.", "the category's, else default")] = "",
    sampler: Annotated[Sampler, flag(SEARCH, "How Optuna proposes trials.")] = "tpe",
    scheduler: Annotated[Scheduler, flag(SEARCH, "How weak trials are stopped.")] = "asha",
    patience: Patience = None,
    time_budget: Annotated[
        timedelta | None,
        flag(SEARCH, "The trials end after this long, like 30m or 8h."),
    ] = None,
    gpus_per_trial: Annotated[float | None, flag(RESOURCES, "May be a fraction.", "1 where there is any")] = None,
    cpus_per_trial: Annotated[float | None, flag(RESOURCES, "Also torch's threads.", "a quarter of the cores")] = None,
    max_concurrent: Annotated[int | None, flag(RESOURCES, "Trials at once.", "as many as fit")] = None,
    address: Annotated[str | None, flag(RESOURCES, "Ray cluster to join.", "this machine")] = None,
    storage: Annotated[str, flag(RESOURCES, "Folder or URI of checkpoints.", "the study's folder")] = "",
    results: Results = Path("results/las"),
    study: Study = None,
    tracking_uri: Annotated[str, flag(RECORD, "MLflow store.", "sqlite in --results")] = "",
    experiment: Annotated[str, flag(RECORD, "MLflow experiment.")] = "las_tune",
) -> None:
    """Search hyperparameters (the default command).

    Trial 0 is the baseline: the seed program's own hyperparameters. The champion is registered in MLflow as
    las-CATEGORY with alias champion.
    """
    settings: dict[str, Any] = {
        "space": str(Path(space).absolute()) if space.endswith(".toml") or "/" in space else space,
        **{
            name: given if given is not None else DEMO[name] if demo else usual
            for name, given, usual in (("trials", trials, 32), ("finalists", finalists, 3), ("seeds", seeds, 3))
        },
        "sampler": sampler,
        "scheduler": scheduler,
        "patience": patience,
        "time_budget_s": time_budget.total_seconds() if time_budget is not None else None,
        "gpus_per_trial": gpus_per_trial,
        "cpus_per_trial": cpus_per_trial,
        "max_concurrent": max_concurrent,
        "store_limit_gb": store_limit_gb,
        "address": address,
        "storage": absolute_uri(storage),
        "tracking_uri": absolute_uri(tracking_uri),
        "experiment": experiment,
    }
    train_spec = make_train_spec(
        demo, image_size, batch_size, epochs, seed, backbone, backbone_weights, objective, store_dtype, head_precision
    )
    specs = make_study_specs(
        category, data_root, textures, results, study, skip_broken, holdout, demo, train_spec, settings
    )
    from las_tune.console import StudyConsole, print_summary
    from las_tune.tuning.study import run_study

    for spec in specs:
        title = f"las_tune {__version__}: study {spec.study}, {spec.trials} trials of {spec.train.epochs} epochs"
        title += "  (DEMO: rendered pictures)" if demo else ""
        trainings = spec.trials + (1 + spec.finalists) * spec.seeds
        with StudyConsole(title, trainings * spec.train.epochs, spec.train.epochs) as console:
            _render_demo(spec, console.progress)
            summary = run_study(spec, [console], console.progress)
        print_summary(summary, spec.folder)


@app.command
def train(
    *,
    category: Category,
    data_root: DataRoot = Path("data/anomaly_dataset"),
    textures: Textures = Path("data/dtd"),
    skip_broken: SkipBroken = False,
    holdout: Holdout = 0.5,
    demo: Demo = False,
    image_size: ImageSize = None,
    batch_size: BatchSize = DEFAULTS.batch_size,
    epochs: Epochs = None,
    seed: Seed = 0,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = DEFAULTS.backbone_weights,
    objective: ObjectiveName = "auto",
    store_dtype: StoreType = DEFAULTS.store_dtype,
    store_limit_gb: StoreLimit = None,
    head_precision: Precision = DEFAULTS.head_precision,
    adaptor_lr: Annotated[float, flag(TRAINING, "Learning rate of the adaptor.")] = DEFAULTS.adaptor_lr,
    discriminator_lr: Annotated[
        float, flag(TRAINING, "Learning rate of the discriminator.")
    ] = DEFAULTS.discriminator_lr,
    alpha: Annotated[float, flag(TRAINING, "Mask combination, in [0, 1/2].")] = DEFAULTS.alpha,
    beta_mean: Annotated[float, flag(TRAINING, "Mean of β, in [0, 1].")] = DEFAULTS.beta_mean,
    beta_std: Annotated[float, flag(TRAINING, "Deviation of β.")] = DEFAULTS.beta_std,
    results: Results = Path("results/las"),
    study: Study = None,
) -> None:
    """Train one detector without Ray: the seed program's job, by the code that a trial runs."""
    train_spec = make_train_spec(
        demo, image_size, batch_size, epochs, seed, backbone, backbone_weights, objective, store_dtype, head_precision
    ).replace(
        adaptor_lr=adaptor_lr,
        discriminator_lr=discriminator_lr,
        alpha=alpha,
        beta_mean=beta_mean,
        beta_std=beta_std,
    )
    settings = {"store_limit_gb": store_limit_gb}
    specs = make_study_specs(
        category, data_root, textures, results, study, skip_broken, holdout, demo, train_spec, settings
    )
    from las_tune.console import StudyConsole, print_training
    from las_tune.tuning.single import run_single

    for spec in specs:
        title = f"las_tune {__version__}: training {spec.study}, {train_spec.epochs} epochs"
        with StudyConsole(title, train_spec.epochs, train_spec.epochs) as console:
            _render_demo(spec, console.progress)
            result = run_single(spec, [console], console.progress)
        print_training(result)


def _render_demo(spec: StudySpec, progress: Any) -> None:
    if spec.demo:
        from las_tune.data.demo import render_demo

        render_demo(
            spec.data_root,
            spec.textures,
            progress=lambda done, total: progress("rendering parts", done, total),
        )


def main() -> NoReturn:
    """Run a command. What a user got wrong is one line on stderr and exit code 2."""
    try:
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
