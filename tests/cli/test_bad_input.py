"""Invalid input: one line on stderr, exit code 2, and no partial output."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

import las_tune.study.run  # noqa: F401  # imported here, so that no test counts what its libraries warn of
from las_tune.config.files import write_json
from las_tune.config.train_spec import TrainSpec
from las_tune.data.category import index_category
from las_tune.data.split import split_category
from las_tune.data.study_images import load_images
from las_tune.las.checkpoint import load_detector
from tests.data.conftest import save_mask
from tests.parts import (
    SMALL,
    CommandResult,
    Run,
    empty_store,
    make_part,
    make_textures,
    merge_flags,
    part_spec,
    run_command,
    truncate_image,
)
from tests.summaries import make_summary, make_trial_summary

HELP = "`python -m las_tune data fetch mpdd` ... `python -m las_tune --category bracket_black --demo`"
ADAPTOR_LR = "low = 1e-5\nhigh = 1e-3\nbaseline = 1e-4\nreason = 'r'\n"


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with d/part and t (textures), in which Ray must not be started."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.chdir(tmp_path)
    make_part(tmp_path / "d")
    make_textures(tmp_path / "t")
    return tmp_path


@pytest.fixture
def run(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command on the part. Given flags replace the default ones."""

    def command(name: str, flags: str = "") -> CommandResult:
        usual = "--category part --data-root d"
        if not name.startswith("data"):
            usual += f" --textures t --results r --study s {SMALL}"
        return run_command(monkeypatch, capsys, [*name.split(), *merge_flags(usual, flags)])

    return command


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files and folders below a folder by path, without an empty results folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    if found.get("r") and found["r"].is_dir() and not any(found["r"].iterdir()):
        del found["r"]
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}


@dataclass(frozen=True)
class Bad:
    """One invalid input."""

    name: str
    commands: tuple[str, ...]
    flags: str
    """Flags in addition to, or instead of, the default ones."""
    line: str
    """Parts of the line in their order, separated by " ... "; {here} is the working directory, {help} is HELP."""
    spoil: Callable[[Path], object] = lambda here: None
    """Called with the working directory before the command is run."""


def write(here: Path, name: str, content: str | bytes) -> None:
    """Write a file."""
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(here: Path, pattern: str) -> None:
    """Remove files, at least one."""
    found = list(here.glob(pattern))
    assert found
    for path in found:
        path.unlink()


def break_synthetic_validation(here: Path) -> None:
    """Truncate all images of a synthetic validation."""
    make_part(here / "d", train=12)
    for image in split_category(index_category(here / "d", "part"), seed=0, validation="synthetic").validation:
        truncate_image(image.path)


def finish_study(folder: Path) -> None:
    """Write the files of a study that a warm start reads."""
    folder.mkdir(parents=True)
    champion = make_trial_summary(1, "trial 1", params={"adaptor_lr": 2e-4})
    write_json(folder / "summary.json", make_summary(category="other", champion=champion).to_json())
    (folder / "splits.json").write_text('{"digest": "1"}')


def start_study(here: Path, content: str) -> None:
    """Write the settings of study s, as if it had been started."""
    (here / "r/s").mkdir(parents=True)
    write(here, "r/s/study.json", content)


TUNE, TRAIN, BOTH = ("tune",), ("train",), ("tune", "train")
ALL = ("tune", "train", "data check")

CATEGORIES = [
    Bad("unknown category", ALL, "--category prat", "--category 'prat' does not exist in {here}/d. Found: part."),
    Bad(
        "category above",
        ALL,
        "--category ../x",
        "must be the name of a folder in --data-root, got '../x'. Use one of part.",
    ),
    Bad(
        "category below",
        ALL,
        "--category part/train",
        "the name of a folder in --data-root, got 'part/train'. Use one of part.",
    ),
    Bad("empty category", ALL, "--category ''", "the name of a folder in --data-root, got ''. Use one of part."),
    Bad("category is here", ALL, "--category .", "the name of a folder in --data-root, got '.'"),
    Bad(
        "demo of another category",
        BOTH,
        "--demo",
        "--demo renders bracket_black only, got --category part. Use --category bracket_black --demo.",
    ),
    Bad(
        "empty data root",
        ALL,
        "",
        "No category found in --data-root {here}/d. ... /train/good ... ground_truth ... Run {help}",
        lambda here: shutil.rmtree(here / "d/part"),
    ),
    Bad(
        "missing data root",
        ALL,
        "--data-root nowhere",
        "No category found in --data-root {here}/nowhere (no such folder). ... /train/good ... Run {help}",
    ),
    Bad(
        "data root is a category",
        ALL,
        "--data-root d/part",
        "--data-root {here}/d/part ... Use its parent folder, --data-root {here}/d.",
    ),
    Bad(
        "no good images",
        ALL,
        "",
        "No images of good parts in {here}/d/part/train/good. Add some ... .png",
        lambda here: remove(here, "d/part/train/good/*"),
    ),
    Bad(
        "one good image",
        BOTH,
        "",
        "train/good needs at least 2 images, got 1 in {here}/d/part ... Add images",
        lambda here: remove(here, "d/part/train/good/00[1-9].png"),
    ),
    Bad(
        "too few test images",
        BOTH,
        "",
        "at least 2 of each, got 1 good and 4 defective test images in {here}/d/part ... Add labeled images",
        lambda here: remove(here, "d/part/test/good/00[012].png"),
    ),
    Bad(
        "no test images",
        BOTH,
        "",
        "at least 2 of each, got 0 good and 0 defective test images in {here}/d/part",
        lambda here: shutil.rmtree(here / "d/part/test"),
    ),
    Bad(
        "too few for a synthetic validation",
        BOTH,
        "--validation synthetic",
        "train/good needs at least 12 images for --validation synthetic, got 6 in {here}/d/part ... Add images",
    ),
    Bad(
        "too few for a synthetic validation and test",
        BOTH,
        "--validation synthetic",
        "train/good needs at least 12 images for --validation synthetic, got 6 in {here}/d/part",
        lambda here: shutil.rmtree(here / "d/part/test"),
    ),
    Bad(
        "no defect for the paper's protocol",
        TUNE,
        "--protocol paper",
        "each need a good and a defective image ... got 4 good and 0 defective test images in {here}/d/part",
        lambda here: [shutil.rmtree(here / "d/part" / name) for name in ("test/rust", "ground_truth/rust")],
    ),
]

IMAGES = [
    Bad(
        "truncated image",
        BOTH,
        "",
        "Cannot read image {here}/d/part/train/good/001.png: ... --skip-broken",
        lambda here: truncate_image(here / "d/part/train/good/001.png"),
    ),
    Bad(
        "text called png",
        BOTH,
        "",
        "Cannot read image {here}/d/part/test/rust/002.png: cannot identify ... --skip-broken",
        lambda here: write(here, "d/part/test/rust/002.png", "not an image"),
    ),
    Bad(
        "empty file called jpg",
        BOTH,
        "",
        "Cannot read image {here}/d/part/test/good/x.jpg: ... --skip-broken",
        lambda here: write(here, "d/part/test/good/x.jpg", ""),
    ),
    Bad(
        "nothing but broken images",
        BOTH,
        "--skip-broken",
        "No image could be read (6 broken) ... {here}/d/part/train/good/",
        lambda here: [truncate_image(path) for path in (here / "d/part/train/good").iterdir()],
    ),
    Bad(
        "nothing but broken images for synthetic defects",
        BOTH,
        "--skip-broken --validation synthetic",
        "No image could be read (4 broken) ... {here}/d/part/train/good/",
        break_synthetic_validation,
    ),
    Bad(
        "no good test image is whole",
        BOTH,
        "--skip-broken",
        "each need a good and a defective image, got 0 good and 2 defective after broken files ... Replace",
        lambda here: [truncate_image(path) for path in (here / "d/part/test/good").iterdir()],
    ),
    Bad(
        "mask of another size",
        BOTH,
        "",
        "Mask {here}/d/part/ground_truth/rust/000_mask.png has 6x4 pixels, but image {here} ... has 12x8",
        lambda here: save_mask(here / "d/part/ground_truth/rust/000_mask.png", (6, 4)),
    ),
    Bad(
        "broken mask",
        BOTH,
        "",
        "Cannot read mask {here}/d/part/ground_truth/rust/001_mask.png: ... run without pixel metrics",
        lambda here: write(here, "d/part/ground_truth/rust/001_mask.png", "no mask"),
    ),
    Bad(
        "two masks of an image",
        ALL,
        "",
        "one to one ... ground_truth/rust/000.png ... ground_truth/rust/000_mask.png ... Rename or remove",
        lambda here: save_mask(here / "d/part/ground_truth/rust/000.png"),
    ),
    Bad(
        "masks missing",
        BOTH,
        "--objective pixel_aupro",
        "--objective pixel_aupro needs a mask for every defective image ... --objective image_auroc",
        lambda here: shutil.rmtree(here / "d/part/ground_truth"),
    ),
    Bad(
        "a mask missing",
        BOTH,
        "--objective combined",
        "--objective combined needs a mask for every defective image ... data check",
        lambda here: remove(here, "d/part/ground_truth/rust/000_mask.png"),
    ),
    Bad(
        "missing textures",
        BOTH,
        "--textures no",
        "No images in --textures {here}/no (no such folder). ... data fetch dtd",
    ),
    Bad(
        "textures without images",
        BOTH,
        "--textures empty",
        "No images in --textures {here}/empty. ... data fetch dtd",
        lambda here: (here / "empty").mkdir(),
    ),
    Bad(
        "broken texture",
        BOTH,
        "",
        "Cannot read image {here}/t/woven/1.png: ... --skip-broken",
        lambda here: truncate_image(here / "t/woven/1.png"),
    ),
]

VALUES = [
    Bad(
        "alpha above",
        TRAIN,
        "--alpha 0.7",
        "alpha must be in [0, 1/2] (α of GLASS eq. 3), got 0.7. The default is 1/3.",
    ),
    Bad("alpha below", TRAIN, "--alpha -0.1", "alpha must be in [0, 1/2] ... got -0.1. The default is 1/3."),
    Bad("alpha is no number", TRAIN, "--alpha high", '--alpha ... "high" ... float'),
    Bad("beta mean", TRAIN, "--beta-mean 1.5", "beta_mean must be between 0 and 1, got 1.5. The default is 0.5."),
    Bad("beta std", TRAIN, "--beta-std -1", "beta_std must be between 0 and 1, got -1.0. The default is 0.1."),
    Bad(
        "learning rate",
        TRAIN,
        "--adaptor-lr 0",
        "adaptor_lr must be greater than 0 ... got 0.0. The default is 0.0001.",
    ),
    Bad(
        "learning rate inf",
        TRAIN,
        "--discriminator-lr inf",
        "discriminator_lr must be greater than 0 and finite, got inf.",
    ),
    Bad("no epochs", BOTH, "--epochs 0", "--epochs must be at least 1, got 0. The default is 50."),
    Bad("epochs are no number", BOTH, "--epochs x", '--epochs ... "x" ... int'),
    Bad("batch size", BOTH, "--batch-size 0", "--batch-size must be at least 1, got 0. The default is 8."),
    Bad("image size below", BOTH, "--image-size 8", "--image-size must be between 32 and 2048 pixels, got 8."),
    Bad("image size above", BOTH, "--image-size 5000", "--image-size must be between 32 and 2048 pixels, got 5000."),
    Bad("seed below", BOTH, "--seed -1", "--seed must be between 0 and 2147483647, got -1."),
    Bad("seed above", BOTH, "--seed 2147483648", "--seed must be between 0 and 2147483647, got 2147483648."),
    Bad("objective", BOTH, "--objective auc", '"auc" for --objective ... "image_auroc" ... "combined"'),
    Bad(
        "objective of an earlier version",
        BOTH,
        "--objective recall",
        '"recall" for --objective ... "recall_at_fpr", "worst_defect"',
    ),
    Bad(
        "no false positives",
        BOTH,
        "--fpr 0",
        "--fpr must be between 0 and 1, both excluded, got 0.0. The default is 0.01.",
    ),
    Bad(
        "all false positives",
        BOTH,
        "--fpr 1",
        "--fpr must be between 0 and 1, both excluded, got 1.0. The default is 0.01.",
    ),
    Bad("validation", BOTH, "--validation real", '"real" for --validation ... "labelled", "synthetic"'),
    Bad("protocol", TUNE, "--protocol open", '"open" for --protocol ... "sealed", "paper"'),
    Bad("protocol of tune", TRAIN, "--protocol paper", "--protocol"),
    Bad(
        "paper and synthetic",
        TUNE,
        "--protocol paper --validation synthetic",
        "--protocol paper needs labeled test images ... --validation synthetic. Drop one of the two.",
    ),
    Bad(
        "leakage gap and synthetic",
        TUNE,
        "--leakage-gap --validation synthetic",
        "--leakage-gap needs labeled test images ... --validation synthetic. Drop one of the two.",
    ),
    Bad(
        "leakage gap and paper",
        TUNE,
        "--leakage-gap --protocol paper",
        "--leakage-gap cannot be used with --protocol paper ... Drop --protocol paper.",
    ),
    Bad("no trials", TUNE, "--trials 0", "--trials must be between 1 and 100000, got 0. The default is 32."),
    Bad(
        "max concurrent",
        TUNE,
        "--max-concurrent 0",
        "--max-concurrent must be at least 1, got 0. The default is as many as fit.",
    ),
    Bad("gpus", TUNE, "--gpus-per-trial -1", "--gpus-per-trial must be at least 0, got -1.0."),
    Bad("cpus", TUNE, "--cpus-per-trial 0", "--cpus-per-trial must be greater than 0 and finite, got 0.0."),
    Bad("time budget", TUNE, "--time-budget soon", '--time-budget ... "soon"'),
    Bad(
        "no time",
        TUNE,
        "--time-budget 0s",
        "--time-budget must be greater than 0 seconds and finite, got 0.0. Give a duration such as 30m or 8h.",
    ),
    Bad("sampler", TUNE, "--sampler nsga", '"nsga" for --sampler ... "tpe" ... "grid"'),
    Bad("scheduler", TUNE, "--scheduler pbt", '"pbt" for --scheduler ... "asha" ... "none"'),
    Bad("no patience", TUNE, "--patience 0", "--patience must be at least 1, got 0. Leave it out to run all trials."),
    Bad("patience is no number", TUNE, "--patience x", '--patience ... "x" ... int'),
    Bad("unknown flag", TUNE, "--trails 3", "--trails ... --trials"),
    Bad("flag of tune", TRAIN, "--trials 3", "--trials"),
    Bad(
        "study with a slash",
        BOTH,
        "--study a/b",
        "--study must be 1 to 100 letters, digits ... got 'a/b'. Choose another name.",
    ),
    Bad(
        "study above", BOTH, "--study ..", "--study must be 1 to 100 letters, digits ... got '..'. Choose another name."
    ),
    Bad("data set", ("data fetch nothing",), "", '"nothing" ... "dtd" ... "mpdd"'),
    Bad(
        "invalid value with the demo",
        TUNE,
        "--category bracket_black --demo --trials 0",
        "--trials must be between 1 and 100000, got 0. The default is 32.",
    ),
]

SPACES = [
    Bad(
        "low above high",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: [adaptor_lr] low must be below high ... (0.01, 0.001)",
        lambda here: write(here, "my.toml", "[adaptor_lr]\n" + ADAPTOR_LR.replace("1e-5", "1e-2")),
    ),
    Bad(
        "unknown parameter",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: [adaptor_rate] is not a tunable hyperparameter. Did you mean adaptor_lr? ... hidden_width",
        lambda here: write(here, "my.toml", "[adaptor_rate]\n" + ADAPTOR_LR),
    ),
    Bad(
        "alpha of a space",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: [alpha] alpha must be in [0, 1/2] ... got 0.6.",
        lambda here: write(
            here, "my.toml", "[alpha]\nlow = 0.1\nhigh = 0.6\nbaseline = 0.3333333333333333\nreason = 'r'\n"
        ),
    ),
    Bad(
        "no TOML",
        TUNE,
        "--space my.toml",
        "{here}/my.toml is not valid TOML ... line 1 ... https://toml.io",
        lambda here: write(here, "my.toml", "adaptor_lr: 1e-5\n"),
    ),
    Bad("missing space", TUNE, "--space no.toml", "--space must be ... '{here}/no.toml' ... connector, core, default"),
    Bad("unknown space", TUNE, "--space conector", "--space must be ... 'conector' ... Did you mean connector?"),
]

NETWORKS = [
    Bad("unknown backbone", BOTH, "--backbone resnet19", "--backbone must be ... got 'resnet19' ... resnet18"),
    Bad(
        "transformer",
        TRAIN,
        "--backbone vit_b_16",
        "--backbone 'vit_b_16' is not a convolutional network ... resnet18",
    ),
    Bad(
        "missing weights",
        BOTH,
        "--backbone-weights no.pth",
        "--backbone-weights {here}/no.pth does not exist. Use imagenet",
    ),
    Bad(
        "weights are text",
        BOTH,
        "--backbone-weights w.pth",
        "--backbone-weights {here}/w.pth is not a state dict of ResNet ... --backbone",
        lambda here: write(here, "w.pth", "weights"),
    ),
    Bad(
        "weights of another network",
        BOTH,
        "--backbone-weights w.pth",
        "--backbone-weights {here}/w.pth is not a state dict of ResNet ... Missing key ... --backbone",
        lambda here: torch.save(squeezenet1_1().state_dict(), here / "w.pth"),
    ),
    Bad(
        "weights are a tensor",
        BOTH,
        "--backbone-weights w.pth",
        "--backbone-weights {here}/w.pth is not a state dict of ResNet",
        lambda here: torch.save(torch.zeros(3), here / "w.pth"),
    ),
    Bad(
        "weights are a pickle",
        BOTH,
        "--backbone-weights w.pth",
        "--backbone-weights {here}/w.pth is not a state dict of ResNet",
        lambda here: write(here, "w.pth", pickle.dumps(print)),
    ),
]

RECORDS = [
    Bad(
        "results are a file",
        BOTH,
        "",
        "--results is not a writable folder: ... {here}/r ... Choose another folder.",
        lambda here: write(here, "r", "a file"),
    ),
    Bad(
        "results in a file",
        BOTH,
        "--results f/r",
        "--results is not a writable folder: ... {here}/f ... Choose another folder.",
        lambda here: write(here, "f", "a file"),
    ),
    Bad(
        "warm start from nobody",
        TUNE,
        "--warm-start nobody",
        "--warm-start: nobody is neither a finished study in --results nor a category ... champion. Check the name",
    ),
    Bad(
        "warm start from one of two",
        TUNE,
        "--warm-start earlier nobody",
        "--warm-start: nobody is neither a finished study in --results ... Check the name",
        lambda here: finish_study(here / "r/earlier"),
    ),
    Bad(
        "a folder as store",
        TUNE,
        "--tracking-uri runs",
        "--tracking-uri {here}/runs is not a usable MLflow store: ... sqlite:///FILE ... http://HOST:PORT",
        lambda here: (here / "runs").mkdir(),
    ),
    Bad(
        "unknown scheme",
        TUNE,
        "--tracking-uri foo://host",
        "--tracking-uri foo://host is not a usable MLflow store: ... sqlite:///FILE",
    ),
    Bad(
        "store is no database",
        TUNE,
        "--tracking-uri sqlite:///notes.txt",
        "--tracking-uri sqlite:///{here}/notes.txt is not a usable MLflow store: ... sqlite:///FILE",
        lambda here: write(here, "notes.txt", "no database " * 100),
    ),
    Bad(
        "store in a file",
        TUNE,
        "--tracking-uri sqlite:///notes.txt/x.db",
        "--tracking-uri sqlite:///{here}/notes.txt/x.db is not a usable MLflow store: ... sqlite:///FILE",
        lambda here: write(here, "notes.txt", "no folder"),
    ),
    Bad(
        "store without its driver",
        TUNE,
        "--tracking-uri mssql+pymssql://host/firebird",
        "--tracking-uri mssql+pymssql://host/firebird is not a usable MLflow store: ... Install its database driver",
    ),
    Bad(
        "fewer failures than none",
        TUNE,
        "--max-failures -1",
        "--max-failures must be at least 0, got -1. The default is 2.",
    ),
    Bad("storage of an unknown kind", TUNE, "--storage ftp://host/x", "--storage must be a folder, s3://... or gs://"),
    Bad(
        "storage in a file",
        TUNE,
        "--storage f/x",
        "--storage is not a writable folder: ... {here}/f ... Choose another folder.",
        lambda here: write(here, "f", "a file"),
    ),
    Bad(
        "other images than were pushed",
        TUNE,
        "--data-digest 0123",
        "The images in {here}/d and {here}/t have digest ... but --data-digest is 0123. Push the data again",
    ),
    Bad(
        "a study with other settings",
        TUNE,
        "",
        "Study s can only be resumed with its original settings: category is part, was bolt. Use the original value",
        lambda here: start_study(here, '{"format": 1, "asked": {"category": "bolt"}}'),
    ),
    Bad(
        "a study of another version",
        TUNE,
        "",
        "{here}/r/s/study.json has format 7, and this version reads format 1. Finish the study with the version",
        lambda here: start_study(here, '{"format": 7, "asked": {"category": "part"}}'),
    ),
    Bad(
        "a finished study",
        TUNE,
        "",
        "Study s in {here}/r is already finished. Choose another --study, or add trials with",
        lambda here: [start_study(here, '{"format": 1, "asked": {}}'), write(here, "r/s/summary.json", "{}")],
    ),
    Bad(
        "resuming a study that does not exist",
        TUNE,
        "--resume --study other",
        "There is no study other in {here}/r. Check --results, which contains no studies.",
    ),
    Bad("extending a study that does not exist", TUNE, "--extend 3", "There is no study s in {here}/r."),
    Bad("too many trials", TUNE, "--trials 100001", "--trials must be between 1 and 100000, got 100001."),
    Bad(
        "a study with a truncated file",
        TUNE,
        "",
        "Study s cannot be resumed, because {here}/r/s/study.json is damaged ( ... Start a new --study",
        lambda here: start_study(here, '{"asked": {"categ'),
    ),
]

CLUSTER = [
    Bad(
        "a folder of this machine",
        ("submit",),
        "",
        "--data-root of a submitted study must be an absolute path, got d. Give ... --push-data",
    ),
    Bad(
        "textures of this machine",
        ("submit",),
        "--data-root /d",
        "--textures of a submitted study must be an absolute path, got t. Give ... --push-data",
    ),
    Bad("images to push are missing", ("submit --push-data",), "--data-root no", "No category found in --data-root"),
    Bad("a flag that tune does not have", ("submit",), "--trails 3", "--trails"),
    Bad("a value that tune does not take", ("submit",), "--trials many", "--trials"),
    Bad("a name that is no folder's", ("submit",), "--data-root /d --textures /t --study a/b", "--study must be"),
    Bad(
        "nobody answers",
        ("submit --push-data",),
        "--address http://127.0.0.1:9",
        "No Ray cluster answers at --address http://127.0.0.1:9 ( ... open the tunnel",
    ),
]

TABLE = (*CATEGORIES, *IMAGES, *VALUES, *SPACES, *NETWORKS, *RECORDS, *CLUSTER)
CASES = [(bad, command) for bad in TABLE for command in bad.commands]


@pytest.mark.parametrize(("bad", "command"), CASES, ids=[f"{bad.name}-{command}" for bad, command in CASES])
def test_bad_input_is_one_line(workdir: Path, run: Run, bad: Bad, command: str) -> None:
    bad.spoil(workdir)
    before = contents(workdir)
    ended = run(command, bad.flags)
    assert ended.code == 2
    assert ended.err.startswith("error: ") and ended.err.endswith("\n") and ended.err.count("\n") == 1
    assert ended.warnings == ()
    pattern = ".*".join(map(re.escape, bad.line.format(here=workdir, help=HELP).split(" ... ")))
    assert re.search(pattern, ended.err)
    assert contents(workdir) == before


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "status --address http://127.0.0.1:9",
            "No Ray cluster answers at --address http://127.0.0.1:9",
        ),
        (
            "stop s --address host:6379",
            "--address of a job must be auto, http://HOST:8265 or ray://HOST:10001, got host:6379",
        ),
        (
            "node check --constraints no.txt",
            "--constraints {here}/no.txt cannot be read: No such file or directory. Give the path of",
        ),
        ("node check --constraints c.txt", "This machine and {here}/c.txt have different versions: numpy is"),
    ],
)
def test_cluster_commands_reject_invalid_input_in_one_line(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, line: str
) -> None:
    write(workdir, "c.txt", "numpy==0.1\nsix==1\n")
    ended = run_command(monkeypatch, capsys, command.split())
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert ended.err.startswith("error: " + line.format(here=workdir))


@pytest.mark.parametrize("command", ["tune", "train"])
def test_existing_study_is_left_unchanged(workdir: Path, run: Run, command: str) -> None:
    (workdir / "r/s").mkdir(parents=True)
    write(workdir, "r/s/summary.json", "{}")
    before = contents(workdir)
    ended = run(command)
    assert ended.code == 2
    assert ended.err == f"error: --study s already exists in {workdir / 'r'}. Choose another name.\n"
    assert contents(workdir) == before


def test_errors_show_no_password(run: Run) -> None:
    ended = run("tune", "--tracking-uri foo://me:hush@host")
    assert ended.code == 2 and "is not a usable MLflow store" in ended.err
    assert "hush" not in ended.err + ended.out


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), RuntimeError('invalid hash value (expected "f37072fd", got "0a1b")')]
)
def test_failed_download_of_weights_is_one_line(
    workdir: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    ended = run("train", "--backbone-weights imagenet")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert "Downloading the ImageNet weights of resnet18 failed" in ended.err
    assert "--backbone-weights FILE" in ended.err and str(error.args[0])[:20] in ended.err
    assert not (workdir / "r").exists()


def test_address_without_a_cluster_is_one_line(workdir: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, **_: Any) -> None:
        raise ConnectionError(f"Could not find any running Ray instance at {address}.")

    monkeypatch.setattr("ray.init", fail)
    write(workdir, "store.db", empty_store())
    ended = run("tune", "--address 10.0.0.1:6379 --tracking-uri sqlite:///store.db")
    assert ended.code == 2
    assert ended.err.startswith("error: No Ray cluster answers at --address") and ended.err.count("\n") == 1
    assert "10.0.0.1:6379" in ended.err
    assert not (workdir / "r/s").exists(), "the same command cannot be repeated"


# --- input that is accepted ---


def names_of(folder: Path) -> set[str]:
    """Return the names of the files in a folder, with * for the time stamp of the log."""
    return {re.sub(r"\d{8}_\d{6}\.txt$", "*", path.name) for path in folder.iterdir()}


def outputs(category: str = "part") -> set[str]:
    """Return the names of the four files of a training."""
    return {
        f"training_curves_{category}.png",
        f"roc_curve_{category}.png",
        f"best_model_{category}.pth",
        f"training_log_{category}_LAS_*",
    }


def test_skip_broken_continues_and_reports(workdir: Path, run: Run) -> None:
    broken = truncate_image(workdir / "d/part/train/good/001.png")
    ended = run("train", "--skip-broken --image-size 64")
    assert (ended.code, ended.err) == (0, "")
    assert "unreadable images, skipped (1):" in ended.out and str(broken) in ended.out
    assert outputs() <= names_of(workdir / "r/s")
    model = workdir / "r/s/best_model_part.pth"
    assert torch.load(model, weights_only=True)["kind"] == "detector"
    detector, spec, about = load_detector(model)
    assert (spec.image_size, spec.backbone, about["category"]) == (64, "resnet18", "part")
    scores, heat = detector(torch.rand(2, 3, 64, 64))
    assert scores.shape == (2,) and heat.shape[0] == 2 and 0 <= scores.min() <= scores.max() <= 1

    before = contents(workdir)
    again = run("train", "--skip-broken --image-size 64")
    assert again.code == 2 and "--study s already exists" in again.err
    assert contents(workdir) == before


@pytest.mark.parametrize("name", [*(f"d/part/train/good/{i:03}.png" for i in range(6)), "t/woven/0.png"])
def test_any_single_good_image_can_be_skipped(workdir: Path, name: str) -> None:
    broken = truncate_image(workdir / name)
    spec = part_spec(workdir / "d", TrainSpec(image_size=32), textures=workdir / "t", skip_broken=True)
    images = load_images(spec)
    (line,) = images.skipped
    assert str(broken) in line
    seen, split = images.trials, images.split
    is_calibration = broken in [image.path for image in split.calibration]
    assert len(seen.fit) == len(split.fit) - (broken in [image.path for image in split.fit])
    assert len(seen.textures) == 3 - name.startswith("t/")
    assert np.array_equal(seen.calibration, seen.fit) is is_calibration, (
        "without calibration images, those of fit are used"
    )
    assert len(seen.calibration) == (len(seen.fit) if is_calibration else 1)


def test_training_reads_all_image_formats(workdir: Path, run: Run) -> None:
    folder = workdir / "d/mixed"
    rng = np.random.default_rng(0)

    def save(name: str, mode: str, size: tuple[int, int] = (40, 24)) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            Image.fromarray(rng.integers(0, 2**16, size[::-1], np.uint16)).save(path)
        else:
            Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), np.uint8)).convert(mode).save(path)

    save("train/good/a.jpg", "RGB")
    save("train/good/B.JPG", "L", (17, 90))
    save("train/good/c.bmp", "RGB")
    save("train/good/d.tif", "I;16")
    save("train/good/e.png", "RGBA")
    save("train/good/f.PNG", "P")
    save("test/good/a.jpeg", "CMYK")
    save("test/good/b.tiff", "RGB", (64, 64))
    for index, (suffix, mode) in enumerate([("jpg", "L"), ("bmp", "P"), ("tif", "I;16"), ("png", "LA")]):
        save(f"test/deep scratch/{index}.{suffix}", mode)
        save_mask(folder / "ground_truth/deep scratch" / f"{index}_mask.png", (40, 24))
    ended = run("train", "--category mixed")
    assert (ended.code, ended.err) == (0, "")
    assert outputs("mixed") <= names_of(workdir / "r/s")
    assert "sealed test pixel_aupro" in ended.out and "not available" not in ended.out


def test_synthetic_validation_needs_no_labeled_images(workdir: Path, run: Run) -> None:
    make_part(workdir / "d", train=14)
    shutil.rmtree(workdir / "d/part/test")
    shutil.rmtree(workdir / "d/part/ground_truth")
    ended = run("train", "--validation synthetic")
    assert (ended.code, ended.err) == (0, "")
    assert "synthetic test pixel_aupro" in ended.out and "not available" not in ended.out
    splits = json.loads((workdir / "r/s/splits.json").read_text())
    assert splits["painted"] == "validation, sealed_test"
    assert [len(splits[part]) for part in ("fit", "calibration", "validation", "sealed_test")] == [5, 1, 4, 4]
    assert all(key.startswith("train/good/") for part in ("validation", "sealed_test") for key in splits[part])
    assert outputs() <= names_of(workdir / "r/s")


def test_missing_mask_disables_pixel_metrics_and_is_reported(workdir: Path, run: Run) -> None:
    (workdir / "d/part/ground_truth/rust/002_mask.png").unlink()
    ended = run("train")
    assert (ended.code, ended.err) == (0, "")
    assert "pixel metrics are not available: no mask for 1 of the defective images" in ended.out
    assert "image_auroc" in ended.out and "pixel_au" not in ended.out
    about = torch.load(workdir / "r/s/best_model_part.pth", weights_only=True)["about"]
    assert about["validation"]["objective"] == about["validation"]["image_auroc"]
    assert not [name for name in about["test"] if name.startswith("pixel")]
    assert outputs() <= names_of(workdir / "r/s")
