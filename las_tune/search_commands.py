"""The search itself, and one training: flags become specs, and what is found is printed."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from las_tune import __version__, flags
from las_tune.demo import DEMO
from las_tune.flags import RECORD, RESOURCES, SEARCH, absolute_uri, flag, make_study_specs, make_train_spec
from las_tune.study_spec import Sampler, Scheduler, StudySpec

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def tune(
    *,
    category: flags.Category,
    data_root: flags.DataRoot = Path("data/anomaly_dataset"),
    textures: flags.Textures = Path("data/dtd"),
    data_digest: flags.DataDigest = "",
    skip_broken: flags.SkipBroken = False,
    holdout: flags.Holdout = 0.5,
    validation: flags.ValidationKind = "labelled",
    demo: flags.Demo = False,
    image_size: flags.ImageSize = None,
    batch_size: flags.BatchSize = flags.DEFAULTS.batch_size,
    epochs: flags.Epochs = None,
    seed: flags.Seed = 0,
    backbone: flags.BackboneName = None,
    backbone_weights: flags.BackboneWeights = flags.DEFAULTS.backbone_weights,
    objective: flags.ObjectiveName = "auto",
    fpr: flags.FalsePositiveRate = flags.DEFAULTS.fpr,
    store_dtype: flags.StoreType = flags.DEFAULTS.store_dtype,
    store_limit_gb: flags.StoreLimit = None,
    head_precision: flags.Precision = flags.DEFAULTS.head_precision,
    trials: flags.Trials = None,
    finalists: flags.Finalists = None,
    seeds: flags.Seeds = None,
    space: flags.SpaceName = "",
    sampler: Annotated[Sampler, flag(SEARCH, "How Optuna proposes trials.")] = "tpe",
    scheduler: Annotated[
        Scheduler | None,
        flag(SEARCH, "How weak trials are stopped.", "asha; none with gp"),
    ] = None,
    patience: flags.Patience = None,
    warm_start: flags.WarmStart = (),
    protocol: flags.ProtocolName = "sealed",
    leakage_gap: flags.LeakageGap = False,
    time_budget: Annotated[
        timedelta | None,
        flag(SEARCH, "The trials end after this long, like 30m or 8h; the finalists follow."),
    ] = None,
    gpus_per_trial: Annotated[float | None, flag(RESOURCES, "May be a fraction.", "1 where there is any")] = None,
    cpus_per_trial: Annotated[float | None, flag(RESOURCES, "Also torch's threads.", "a quarter of the cores")] = None,
    max_concurrent: Annotated[int | None, flag(RESOURCES, "Trials at once.", "as many as fit")] = None,
    max_failures: Annotated[
        int, flag(RESOURCES, "How often a trial is tried again, from its last epoch, after it or its worker failed.")
    ] = 2,
    address: Annotated[
        str | None,
        flag(
            RESOURCES, "Ray cluster: auto or HOST:6379 to join; http:// and ray:// as submit --follow.", "this machine"
        ),
    ] = None,
    storage: Annotated[str, flag(RESOURCES, "Folder or URI of checkpoints.", "the study's folder")] = "",
    results: flags.Results = Path("results/las"),
    study: flags.Study = None,
    resume: Annotated[
        bool, Parameter(group=RECORD, help="Go on with --study; flags that are left out are its own.", negative="")
    ] = False,
    extend: Annotated[
        int, flag(RECORD, "Trials to add to the finished --study; flags that are left out are its own.", "none")
    ] = 0,
    tracking_uri: flags.TrackingUri = "",
    experiment: flags.Experiment = "las_tune",
    system_metrics: flags.SystemMetrics = False,
    model_weights: flags.Weights = "inside",
) -> None:
    """Search hyperparameters (the default command).

    Trial 0 is the baseline: the seed program's own hyperparameters. The champion is registered in MLflow as
    las-CATEGORY with alias champion.
    """
    usual: dict[str, Any] = DEMO if demo else {"trials": 32, "finalists": 3, "seeds": 3}
    train_spec = make_train_spec(
        demo, image_size=image_size, batch_size=batch_size, epochs=epochs, seed=seed, backbone=backbone,
        backbone_weights=backbone_weights, objective=objective, fpr=fpr, store_dtype=store_dtype,
        head_precision=head_precision,
    )  # fmt: skip
    specs = make_study_specs(
        category,
        data_root,
        textures,
        results,
        study,
        demo,
        train_spec,
        data_digest=data_digest,
        skip_broken=skip_broken,
        holdout=holdout,
        validation=validation,
        protocol=protocol,
        leakage_gap=leakage_gap,
        warm_start=warm_start,
        space=str(Path(space).absolute()) if space.endswith(".toml") or "/" in space else space,
        trials=trials if trials is not None else usual["trials"],
        finalists=finalists if finalists is not None else usual["finalists"],
        seeds=seeds if seeds is not None else usual["seeds"],
        sampler=sampler,
        scheduler=scheduler or ("none" if sampler == "gp" else "asha"),
        patience=patience,
        time_budget_s=time_budget.total_seconds() if time_budget is not None else None,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        max_concurrent=max_concurrent,
        max_failures=max_failures,
        extend=extend,
        store_limit_gb=store_limit_gb,
        address=address,
        storage=absolute_uri(storage),
        tracking_uri=absolute_uri(tracking_uri),
        experiment=experiment,
        system_metrics=system_metrics,
        model_weights=model_weights,
    )
    from las_tune.console import StudyConsole
    from las_tune.printing import print_run
    from las_tune.tuning.study import run_studies

    try:
        with StudyConsole(f"las_tune {__version__}: {_plan(specs)}", specs) as console:
            _render_demo(specs[0], console.progress)
            run = run_studies(specs, lambda spec: [console.study(spec.category)], console.progress)
    except KeyboardInterrupt:
        name = specs[0].run_folder.name
        print(f"stopped: the same command with --study {name} goes on where it was", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print_run(run, specs)
    if any("failed" in summary for summary in run["studies"]):
        sys.exit(2)


def _plan(specs: list[StudySpec]) -> str:
    """What is about to run, in a phrase."""
    first = specs[0]
    name = f"study {first.study}" if len(specs) == 1 else f"run {first.run}, {len(specs)} categories"
    each = " each" if len(specs) > 1 else ""
    plan = f"{name}, {first.trials} trials of {first.train.epochs} epochs{each}"
    return plan + ("  (DEMO: rendered pictures)" if first.demo else "")


def train(
    *,
    category: flags.Category,
    data_root: flags.DataRoot = Path("data/anomaly_dataset"),
    textures: flags.Textures = Path("data/dtd"),
    skip_broken: flags.SkipBroken = False,
    holdout: flags.Holdout = 0.5,
    validation: flags.ValidationKind = "labelled",
    demo: flags.Demo = False,
    image_size: flags.ImageSize = None,
    batch_size: flags.BatchSize = flags.DEFAULTS.batch_size,
    epochs: flags.Epochs = None,
    seed: flags.Seed = 0,
    backbone: flags.BackboneName = None,
    backbone_weights: flags.BackboneWeights = flags.DEFAULTS.backbone_weights,
    objective: flags.ObjectiveName = "auto",
    fpr: flags.FalsePositiveRate = flags.DEFAULTS.fpr,
    store_dtype: flags.StoreType = flags.DEFAULTS.store_dtype,
    store_limit_gb: flags.StoreLimit = None,
    head_precision: flags.Precision = flags.DEFAULTS.head_precision,
    adaptor_lr: flags.AdaptorRate = flags.DEFAULTS.adaptor_lr,
    discriminator_lr: flags.DiscriminatorRate = flags.DEFAULTS.discriminator_lr,
    alpha: flags.Alpha = flags.DEFAULTS.alpha,
    beta_mean: flags.BetaMean = flags.DEFAULTS.beta_mean,
    beta_std: flags.BetaStd = flags.DEFAULTS.beta_std,
    results: flags.Results = Path("results/las"),
    study: flags.Study = None,
) -> None:
    """Train one detector without Ray: the seed program's job, by the code that a trial runs."""
    train_spec = make_train_spec(
        demo, image_size=image_size, batch_size=batch_size, epochs=epochs, seed=seed, backbone=backbone,
        backbone_weights=backbone_weights, objective=objective, fpr=fpr, store_dtype=store_dtype,
        head_precision=head_precision, adaptor_lr=adaptor_lr, discriminator_lr=discriminator_lr, alpha=alpha,
        beta_mean=beta_mean, beta_std=beta_std,
    )  # fmt: skip
    specs = make_study_specs(
        category, data_root, textures, results, study, demo, train_spec, skip_broken=skip_broken, holdout=holdout,
        validation=validation, store_limit_gb=store_limit_gb,
    )  # fmt: skip
    from las_tune.console import StudyConsole
    from las_tune.printing import print_training
    from las_tune.tuning.single import run_single

    for spec in specs:
        title = f"las_tune {__version__}: training {spec.study}, {train_spec.epochs} epochs"
        with StudyConsole(title, [replace(spec, trials=1)], is_search=False) as console:
            _render_demo(spec, console.progress)
            result = run_single(spec, [console.study(spec.category)], console.progress)
        print_training(result)


def _render_demo(spec: StudySpec, progress: Any) -> None:
    if spec.demo:
        from las_tune.data.demo import render_demo

        render_demo(
            spec.data_root,
            spec.textures,
            progress=lambda done, total: progress("rendering parts", done, total),
        )
