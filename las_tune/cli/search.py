"""The search itself, and one training: flags become specs, and what is found is printed."""

from __future__ import annotations

import shlex
import sys
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from las_tune.cli import flags
from las_tune.cli.flags import RECORD, RESOURCES, SEARCH, flag, make_specs
from las_tune.config import paths
from las_tune.config.study_spec import Sampler, Scheduler
from las_tune.errors import INTERRUPTED


def tune(
    *,
    category: flags.Category,
    data_root: flags.DataRoot = paths.DATA_ROOT,
    textures: flags.Textures = paths.TEXTURES,
    data_digest: flags.DataDigest = "",
    skip_broken: flags.SkipBroken = False,
    holdout: flags.Holdout = 0.5,
    validation: flags.ValidationKind = "labelled",
    demo: flags.Demo = False,
    image_size: flags.ImageSize = None,
    batch_size: flags.BatchSize = None,
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
    price_per_gpu_hour: Annotated[
        float | None, flag(SEARCH, "Tells in the plan what the GPUs will cost.", "none")
    ] = None,
    dry_run: Annotated[
        bool,
        flag(SEARCH, "Check flags and images, measure a few steps, print the plan, and stop there.", negative=""),
    ] = False,
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
    results: flags.Results = paths.RESULTS,
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
    tensorboard: flags.TensorBoard = False,
    model_weights: flags.Weights = "inside",
) -> None:
    """Search hyperparameters (the default command).

    Trial 0 is the baseline: the seed program's own hyperparameters. The champion is registered in MLflow as
    las-CATEGORY with alias champion.
    """
    specs = make_specs(
        category, data_root, textures, results, study, demo,
        data_digest=data_digest, skip_broken=skip_broken, holdout=holdout, validation=validation,
        image_size=image_size, batch_size=batch_size, epochs=epochs, seed=seed, backbone=backbone,
        backbone_weights=backbone_weights, objective=objective, fpr=fpr, store_dtype=store_dtype,
        head_precision=head_precision, protocol=protocol, leakage_gap=leakage_gap, warm_start=warm_start, space=space,
        trials=trials, finalists=finalists, seeds=seeds, sampler=sampler,
        scheduler=scheduler, patience=patience,
        time_budget_s=time_budget.total_seconds() if time_budget is not None else None,
        gpus_per_trial=gpus_per_trial, cpus_per_trial=cpus_per_trial, max_concurrent=max_concurrent,
        max_failures=max_failures, price_per_gpu_hour=price_per_gpu_hour, extend=extend,
        store_limit_gb=store_limit_gb, address=address, storage=storage, tracking_uri=tracking_uri,
        experiment=experiment, system_metrics=system_metrics, tensorboard=tensorboard, model_weights=model_weights,
        command=shlex.join(["python", "-m", "las_tune", *sys.argv[1:]]),
    )  # fmt: skip
    from las_tune.terminal.demo_story import print_story
    from las_tune.terminal.session import plan, search
    from las_tune.terminal.tables import print_lines, print_run

    if dry_run:
        print_lines([plan(specs).sentence(), "no study was begun; without --dry-run it runs"])
        return
    try:
        run = search(specs)
    except KeyboardInterrupt:
        name = specs[0].run_folder.name
        print(f"stopped: the same command with --study {name} goes on where it was", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print_run(run, specs)
    for summary in run["studies"] if demo else ():
        print_story(summary, specs[0].folder)
    if any("failed" in summary for summary in run["studies"]):
        sys.exit(2)


def train(
    *,
    category: flags.Category,
    data_root: flags.DataRoot = paths.DATA_ROOT,
    textures: flags.Textures = paths.TEXTURES,
    skip_broken: flags.SkipBroken = False,
    holdout: flags.Holdout = 0.5,
    validation: flags.ValidationKind = "labelled",
    demo: flags.Demo = False,
    image_size: flags.ImageSize = None,
    batch_size: flags.BatchSize = None,
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
    results: flags.Results = paths.RESULTS,
    study: flags.Study = None,
) -> None:
    """Train one detector without Ray: the seed program's job, by the code that a trial runs."""
    specs = make_specs(
        category, data_root, textures, results, study, demo, skip_broken=skip_broken, holdout=holdout,
        validation=validation, image_size=image_size, batch_size=batch_size, epochs=epochs, seed=seed,
        backbone=backbone, backbone_weights=backbone_weights, objective=objective, fpr=fpr, store_dtype=store_dtype,
        head_precision=head_precision, adaptor_lr=adaptor_lr, discriminator_lr=discriminator_lr, alpha=alpha,
        beta_mean=beta_mean, beta_std=beta_std, store_limit_gb=store_limit_gb,
        command=shlex.join(["python", "-m", "las_tune", *sys.argv[1:]]),
    )  # fmt: skip
    from las_tune.terminal.session import train_once
    from las_tune.terminal.tables import print_training

    for spec in specs:
        print_training(train_once(spec))
