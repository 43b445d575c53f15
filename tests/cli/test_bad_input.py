"""What a user can get wrong: one line on stderr, exit code 2, and nothing half-written."""

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
from las_tune.config.train_spec import TrainSpec
from las_tune.data.category import index_category
from las_tune.data.split import split_category
from las_tune.data.study_images import load_images
from las_tune.las.checkpoint import load_detector
from tests.data.conftest import save_mask
from tests.parts import (
    SMALL,
    Ended,
    Run,
    cut_off,
    empty_store,
    make_part,
    make_textures,
    merge_flags,
    part_spec,
    run_command,
)

HELP = "`python -m las_tune data fetch mpdd` ... `python -m las_tune --category bracket_black --demo`"
KNOB = "low = 1e-5\nhigh = 1e-3\nseed = 1e-4\nreason = 'r'\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with d/part and t (textures); nothing in it, or after it, may start Ray."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.chdir(tmp_path)
    make_part(tmp_path / "d")
    make_textures(tmp_path / "t")
    return tmp_path


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command on the part; flags that are given stand in for the usual ones."""

    def command(name: str, flags: str = "") -> Ended:
        usual = "--category part --data-root d"
        if not name.startswith("data"):
            usual += f" --textures t --results r --study s {SMALL}"
        return run_command(monkeypatch, capsys, [*name.split(), *merge_flags(usual, flags)])

    return command


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every folder but an empty one of results."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    if found.get("r") and found["r"].is_dir() and not any(found["r"].iterdir()):
        del found["r"]
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}


@dataclass(frozen=True)
class Bad:
    """One thing that is wrong."""

    name: str
    commands: tuple[str, ...]
    flags: str
    """What is given besides, or instead of, the usual flags."""
    line: str
    """What the line holds, in this order, between the dots; {here} is the working directory, {help} is HELP."""
    spoil: Callable[[Path], object] = lambda here: None
    """Called with the working directory before the command runs."""


def write(here: Path, name: str, content: str | bytes) -> None:
    """Write a file."""
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(here: Path, pattern: str) -> None:
    """Remove files, at least one."""
    found = list(here.glob(pattern))
    assert found
    for path in found:
        path.unlink()


def break_what_is_painted(here: Path) -> None:
    """Of enough good images, cut off all of a synthetic validation."""
    make_part(here / "d", train=12)
    for image in split_category(index_category(here / "d", "part"), seed=0, validation="synthetic").validation:
        cut_off(image.path)


def finish_study(folder: Path) -> None:
    """What a warm start reads of a study."""
    folder.mkdir(parents=True)
    trial = {"finalist": "trial 1", "params": {"adaptor_lr": 2e-4}}
    about = {"category": "other", "test_selected": False, "champion": trial, "best_trial": trial}
    (folder / "summary.json").write_text(json.dumps(about))
    (folder / "splits.json").write_text('{"digest": "1"}')


def begun(here: Path, content: str) -> None:
    """A study of the name that the command gives, which was begun."""
    (here / "r/s").mkdir(parents=True)
    write(here, "r/s/study.json", content)


TUNE, TRAIN, BOTH = ("tune",), ("train",), ("tune", "train")
ALL = ("tune", "train", "data check")

CATEGORIES = [
    Bad(
        "unknown category", ALL, "--category prat", "--category must be one of ... 'prat' in {here}/d ... Found: part."
    ),
    Bad("category above", ALL, "--category ../x", "plain folder name ... got '../x' ... Give one of part."),
    Bad("category below", ALL, "--category part/train", "plain folder name ... got 'part/train' ... Give one of part."),
    Bad("empty category", ALL, "--category ''", "plain folder name ... got '' ... Give one of part."),
    Bad("category is here", ALL, "--category .", "plain folder name ... got '.'"),
    Bad(
        "demo of another category",
        BOTH,
        "--demo",
        "--demo renders bracket_black only ... got part ... --category bracket_black --demo",
    ),
    Bad(
        "empty data root",
        ALL,
        "",
        "--data-root must hold at least one category ... /train/good ... ground_truth ... got {here}/d. Run {help}",
        lambda here: shutil.rmtree(here / "d/part"),
    ),
    Bad(
        "missing data root",
        ALL,
        "--data-root nowhere",
        "--data-root must hold ... /train/good ... got {here}/nowhere (no such folder). Run {help}",
    ),
    Bad(
        "data root is a category",
        ALL,
        "--data-root d/part",
        "got {here}/d/part ... Give its parent, --data-root {here}/d.",
    ),
    Bad(
        "no good images",
        ALL,
        "",
        "train/good must hold images of good parts ... got none in {here}/d/part/train/good ... .png",
        lambda here: remove(here, "d/part/train/good/*"),
    ),
    Bad(
        "one good image",
        BOTH,
        "",
        "train/good must hold at least 2 images ... got 1 in {here}/d/part ... Add images",
        lambda here: remove(here, "d/part/train/good/00[1-9].png"),
    ),
    Bad(
        "too few test images",
        BOTH,
        "",
        "test needs 2 of each ... got 1 good and 4 defective in {here}/d/part ... Add labeled images",
        lambda here: remove(here, "d/part/test/good/00[012].png"),
    ),
    Bad(
        "no test images",
        BOTH,
        "",
        "test needs 2 of each ... got 0 good and 0 defective in {here}/d/part",
        lambda here: shutil.rmtree(here / "d/part/test"),
    ),
    Bad(
        "too few to paint on",
        BOTH,
        "--validation synthetic",
        "train/good must hold at least 12 images for --validation synthetic, got 6 in {here}/d/part ... Add images",
    ),
    Bad(
        "too few to paint on both",
        BOTH,
        "--validation synthetic",
        "train/good must hold at least 12 images for --validation synthetic, got 6 in {here}/d/part",
        lambda here: shutil.rmtree(here / "d/part/test"),
    ),
    Bad(
        "no defect for the paper's protocol",
        TUNE,
        "--protocol paper",
        "each need a good and a defective image ... got 4 good and 0 defective in {here}/d/part",
        lambda here: [shutil.rmtree(here / "d/part" / name) for name in ("test/rust", "ground_truth/rust")],
    ),
]

IMAGES = [
    Bad(
        "truncated image",
        BOTH,
        "",
        "must be readable by Pillow ... got {here}/d/part/train/good/001.png ( ... --skip-broken",
        lambda here: cut_off(here / "d/part/train/good/001.png"),
    ),
    Bad(
        "text called png",
        BOTH,
        "",
        "must be readable by Pillow ... got {here}/d/part/test/rust/002.png (cannot identify ... --skip-broken",
        lambda here: write(here, "d/part/test/rust/002.png", "not an image"),
    ),
    Bad(
        "empty file called jpg",
        BOTH,
        "",
        "must be readable by Pillow ... got {here}/d/part/test/good/x.jpg ( ... --skip-broken",
        lambda here: write(here, "d/part/test/good/x.jpg", ""),
    ),
    Bad(
        "nothing but broken images",
        BOTH,
        "--skip-broken",
        "At least one image must be readable ... got 6 broken ones ... {here}/d/part/train/good/",
        lambda here: [cut_off(path) for path in (here / "d/part/train/good").iterdir()],
    ),
    Bad(
        "nothing but broken images to paint on",
        BOTH,
        "--skip-broken --validation synthetic",
        "At least one image must be readable, got 4 broken ones ... {here}/d/part/train/good/",
        break_what_is_painted,
    ),
    Bad(
        "no good test image is whole",
        BOTH,
        "--skip-broken",
        "each need a good and a defective image, got 0 good and 2 defective after broken files ... repair",
        lambda here: [cut_off(path) for path in (here / "d/part/test/good").iterdir()],
    ),
    Bad(
        "mask of another size",
        BOTH,
        "",
        "as large as its image, got 6x4 ({here}/d/part/ground_truth/rust/000_mask.png) for 12x8 ({here}",
        lambda here: save_mask(here / "d/part/ground_truth/rust/000_mask.png", (6, 4)),
    ),
    Bad(
        "broken mask",
        BOTH,
        "",
        "A mask must be readable ... got {here}/d/part/ground_truth/rust/001_mask.png ( ... go without pixel metrics",
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
        "need a mask for every defective image, got pixel_aupro with masks missing ... --objective image_auroc",
        lambda here: shutil.rmtree(here / "d/part/ground_truth"),
    ),
    Bad(
        "a mask missing",
        BOTH,
        "--objective combined",
        "--objective pixel_aupro and combined need a mask ... got combined with masks missing ... data check",
        lambda here: remove(here, "d/part/ground_truth/rust/000_mask.png"),
    ),
    Bad(
        "missing textures",
        BOTH,
        "--textures no",
        "--textures must be ... got {here}/no (no such folder) ... data fetch dtd",
    ),
    Bad(
        "textures without images",
        BOTH,
        "--textures empty",
        "--textures must be a folder with images in it ... got {here}/empty. ... data fetch dtd",
        lambda here: (here / "empty").mkdir(),
    ),
    Bad(
        "broken texture",
        BOTH,
        "",
        "must be readable by Pillow ... got {here}/t/woven/1.png ( ... --skip-broken",
        lambda here: cut_off(here / "t/woven/1.png"),
    ),
]

VALUES = [
    Bad("alpha above", TRAIN, "--alpha 0.7", "alpha must lie in [0, 1/2] ... GLASS eq. 3 ... got 0.7 ... 1/3"),
    Bad("alpha below", TRAIN, "--alpha -0.1", "alpha must lie in [0, 1/2] ... got -0.1"),
    Bad("alpha is no number", TRAIN, "--alpha high", '--alpha ... "high" ... float'),
    Bad("beta mean", TRAIN, "--beta-mean 1.5", "beta_mean must lie in [0, 1] ... got 1.5 ... 0.5"),
    Bad("beta std", TRAIN, "--beta-std -1", "beta_std must lie in [0, 1] ... got -1.0 ... 0.1"),
    Bad("learning rate", TRAIN, "--adaptor-lr 0", "adaptor_lr must be above 0 ... got 0.0 ... 1e-4"),
    Bad("learning rate inf", TRAIN, "--discriminator-lr inf", "discriminator_lr must be above 0 ... got inf"),
    Bad("no epochs", BOTH, "--epochs 0", "--epochs must be at least 1, got 0"),
    Bad("epochs are no number", BOTH, "--epochs x", '--epochs ... "x" ... int'),
    Bad("batch size", BOTH, "--batch-size 0", "--batch-size must be at least 1, got 0"),
    Bad("image size below", BOTH, "--image-size 8", "--image-size must lie in 32..2048 pixels, got 8"),
    Bad("image size above", BOTH, "--image-size 5000", "--image-size must lie in 32..2048 pixels, got 5000"),
    Bad("seed below", BOTH, "--seed -1", "--seed must lie in 0..2147483647, got -1"),
    Bad("seed above", BOTH, "--seed 2147483648", "--seed must lie in 0..2147483647, got 2147483648"),
    Bad("objective", BOTH, "--objective auc", '"auc" for --objective ... "image_auroc" ... "combined"'),
    Bad("objective of old", BOTH, "--objective recall", '"recall" for --objective ... "recall_at_fpr", "worst_defect"'),
    Bad("no false positives", BOTH, "--fpr 0", "--fpr must lie between 0 and 1, both excluded, got 0.0 ... 0.01"),
    Bad("all false positives", BOTH, "--fpr 1", "--fpr must lie between 0 and 1, both excluded, got 1.0 ... 0.01"),
    Bad("validation", BOTH, "--validation real", '"real" for --validation ... "labelled", "synthetic"'),
    Bad("protocol", TUNE, "--protocol open", '"open" for --protocol ... "sealed", "paper"'),
    Bad("protocol of tune", TRAIN, "--protocol paper", "--protocol"),
    Bad(
        "paper and synthetic",
        TUNE,
        "--protocol paper --validation synthetic",
        "--protocol paper chooses by labeled test images, got --validation synthetic. leave one of them out.",
    ),
    Bad(
        "leakage gap and synthetic",
        TUNE,
        "--leakage-gap --validation synthetic",
        "--leakage-gap chooses by labeled test images, got --validation synthetic. leave one of them out.",
    ),
    Bad(
        "leakage gap and paper",
        TUNE,
        "--leakage-gap --protocol paper",
        "--leakage-gap compares with --protocol paper on the same trials, got both. leave --protocol out.",
    ),
    Bad("no trials", TUNE, "--trials 0", "--trials must be 1 to 100000, got 0"),
    Bad("max concurrent", TUNE, "--max-concurrent 0", "--max-concurrent must be at least 1, got 0"),
    Bad("gpus", TUNE, "--gpus-per-trial -1", "--gpus-per-trial must be at least 0, got -1.0"),
    Bad("cpus", TUNE, "--cpus-per-trial 0", "--cpus-per-trial must be above 0, got 0.0"),
    Bad("time budget", TUNE, "--time-budget soon", '--time-budget ... "soon"'),
    Bad("no time", TUNE, "--time-budget 0s", "--time-budget must be above 0 seconds, got 0.0"),
    Bad("sampler", TUNE, "--sampler nsga", '"nsga" for --sampler ... "tpe" ... "grid"'),
    Bad("scheduler", TUNE, "--scheduler pbt", '"pbt" for --scheduler ... "asha" ... "none"'),
    Bad("no patience", TUNE, "--patience 0", "--patience must be at least 1, got 0"),
    Bad("patience is no number", TUNE, "--patience x", '--patience ... "x" ... int'),
    Bad("unknown flag", TUNE, "--trails 3", "--trails ... --trials"),
    Bad("flag of tune", TRAIN, "--trials 3", "--trials"),
    Bad("study with a slash", BOTH, "--study a/b", "--study must be letters, digits ... got 'a/b'"),
    Bad("study above", BOTH, "--study ..", "--study must be letters, digits ... got '..'"),
    Bad("data set", ("data fetch nothing",), "", '"nothing" ... "dtd" ... "mpdd"'),
    Bad(
        "hyperparameter of the demo",
        TUNE,
        "--category bracket_black --demo --trials 0",
        "--trials must be 1 to 100000, got 0",
    ),
]

SPACES = [
    Bad(
        "low above high",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: [adaptor_lr] low must be below high ... (0.01, 0.001)",
        lambda here: write(here, "my.toml", "[adaptor_lr]\n" + KNOB.replace("1e-5", "1e-2")),
    ),
    Bad(
        "unknown knob",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: every knob must ... 'adaptor_rate' ... Did you mean adaptor_lr? ... hidden_width",
        lambda here: write(here, "my.toml", "[adaptor_rate]\n" + KNOB),
    ),
    Bad(
        "alpha of a space",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: [alpha] alpha must lie in [0, 1/2] ... got 0.6",
        lambda here: write(
            here, "my.toml", "[alpha]\nlow = 0.1\nhigh = 0.6\nseed = 0.3333333333333333\nreason = 'r'\n"
        ),
    ),
    Bad(
        "no TOML",
        TUNE,
        "--space my.toml",
        "{here}/my.toml: must be TOML ... line 1 ... https://toml.io",
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
        "--backbone must be a convolutional network ... got 'vit_b_16' ... resnet18",
    ),
    Bad(
        "missing weights",
        BOTH,
        "--backbone-weights no.pth",
        "--backbone-weights must be ... got {here}/no.pth ... check the path",
    ),
    Bad(
        "weights are text",
        BOTH,
        "--backbone-weights w.pth",
        "must be a state dict that fits ResNet ... got {here}/w.pth ( ... --backbone",
        lambda here: write(here, "w.pth", "weights"),
    ),
    Bad(
        "weights of another network",
        BOTH,
        "--backbone-weights w.pth",
        "must be a state dict that fits ResNet ... got {here}/w.pth ( ... Missing key ... --backbone",
        lambda here: torch.save(squeezenet1_1().state_dict(), here / "w.pth"),
    ),
    Bad(
        "weights are a tensor",
        BOTH,
        "--backbone-weights w.pth",
        "must be a state dict that fits ResNet ... got {here}/w.pth (",
        lambda here: torch.save(torch.zeros(3), here / "w.pth"),
    ),
    Bad(
        "weights are a pickle",
        BOTH,
        "--backbone-weights w.pth",
        "must be a state dict that fits ResNet ... got {here}/w.pth (",
        lambda here: write(here, "w.pth", pickle.dumps(print)),
    ),
]

RECORDS = [
    Bad(
        "results are a file",
        BOTH,
        "",
        "--results must be a folder that can be written to ... {here}/r ... choose another",
        lambda here: write(here, "r", "a file"),
    ),
    Bad(
        "results in a file",
        BOTH,
        "--results f/r",
        "--results must be a folder that can be written to ... {here}/f ... choose another",
        lambda here: write(here, "f", "a file"),
    ),
    Bad(
        "warm start from nobody",
        TUNE,
        "--warm-start nobody",
        "--warm-start takes finished studies in --results, or categories with a champion ... got nobody. look for",
    ),
    Bad(
        "warm start from one of two",
        TUNE,
        "--warm-start earlier nobody",
        "--warm-start takes finished studies in --results ... got nobody.",
        lambda here: finish_study(here / "r/earlier"),
    ),
    Bad(
        "a folder as store",
        TUNE,
        "--tracking-uri runs",
        "--tracking-uri must be an MLflow store ... got {here}/runs ( ... sqlite:///FILE ... http://HOST:PORT",
        lambda here: (here / "runs").mkdir(),
    ),
    Bad(
        "unknown scheme",
        TUNE,
        "--tracking-uri foo://host",
        "--tracking-uri must be ... got foo://host ( ... sqlite:///FILE",
    ),
    Bad(
        "store is no database",
        TUNE,
        "--tracking-uri sqlite:///notes.txt",
        "--tracking-uri must be ... got sqlite:///{here}/notes.txt ( ... sqlite:///FILE",
        lambda here: write(here, "notes.txt", "no database " * 100),
    ),
    Bad(
        "store in a file",
        TUNE,
        "--tracking-uri sqlite:///notes.txt/x.db",
        "--tracking-uri must be ... got sqlite:///{here}/notes.txt/x.db ( ... sqlite:///FILE",
        lambda here: write(here, "notes.txt", "no folder"),
    ),
    Bad(
        "store without its driver",
        TUNE,
        "--tracking-uri mssql+pymssql://host/firebird",
        "--tracking-uri must be ... firebird",
    ),
    Bad("fewer failures than none", TUNE, "--max-failures -1", "--max-failures must be at least 0, got -1"),
    Bad("storage of an unknown kind", TUNE, "--storage ftp://host/x", "--storage must be a folder, s3://... or gs://"),
    Bad(
        "storage in a file",
        TUNE,
        "--storage f/x",
        "--storage must be a folder that can be written to ... {here}/f ... choose another",
        lambda here: write(here, "f", "a file"),
    ),
    Bad(
        "other images than were pushed",
        TUNE,
        "--data-digest 0123",
        "--data-digest must be that of the images ... in {here}/d and {here}/t instead of 0123. push the data again",
    ),
    Bad(
        "a study that was asked for otherwise",
        TUNE,
        "",
        "--study s was begun and goes on only where it is asked for as before ... category part instead of bolt",
        lambda here: begun(here, '{"format": 1, "asked": {"category": "bolt"}}'),
    ),
    Bad(
        "a study of another version",
        TUNE,
        "",
        "A study that goes on must have a file of format 1, got 7 in {here}/r/s/study.json. finish it with the version",
        lambda here: begun(here, '{"format": 7, "asked": {"category": "part"}}'),
    ),
    Bad(
        "a finished study",
        TUNE,
        "",
        "--study must be a new name, got s, which is finished, in {here}/r. choose another, or add trials with",
        lambda here: [begun(here, '{"format": 1, "asked": {}}'), write(here, "r/s/summary.json", "{}")],
    ),
    Bad(
        "a study to go on with that is not there",
        TUNE,
        "--resume --study other",
        "--resume and --extend need the --study that they go on with, in --results, got other in {here}/r. Known:",
    ),
    Bad("trials to add to nothing", TUNE, "--extend 3", "--resume and --extend need the --study ... got s in {here}/r"),
    Bad("more trials than there are numbers", TUNE, "--trials 100001", "--trials must be 1 to 100000, got 100001"),
    Bad(
        "a study whose file is half",
        TUNE,
        "",
        "A study that goes on must have its file whole, got {here}/r/s/study.json ( ... choose another",
        lambda here: begun(here, '{"asked": {"categ'),
    ),
]

CLUSTER = [
    Bad(
        "a folder of this machine",
        ("submit",),
        "",
        "--data-root of a study that is submitted must be absolute, got d. ... --push-data",
    ),
    Bad(
        "textures of this machine",
        ("submit",),
        "--data-root /d",
        "--textures of a study that is submitted must be absolute, got t. ... --push-data",
    ),
    Bad("images to push are missing", ("submit --push-data",), "--data-root no", "--data-root must hold"),
    Bad("a flag that tune does not have", ("submit",), "--trails 3", "--trails"),
    Bad("a value that tune does not take", ("submit",), "--trials many", "--trials"),
    Bad("a name that is no folder's", ("submit",), "--data-root /d --textures /t --study a/b", "--study must be"),
    Bad(
        "nobody answers",
        ("submit --push-data",),
        "--address http://127.0.0.1:9",
        "--address must be that of a running Ray cluster, got http://127.0.0.1:9 ( ... open the tunnel",
    ),
]

TABLE = (*CATEGORIES, *IMAGES, *VALUES, *SPACES, *NETWORKS, *RECORDS, *CLUSTER)
CASES = [(bad, command) for bad in TABLE for command in bad.commands]


@pytest.mark.parametrize(("bad", "command"), CASES, ids=[f"{bad.name}-{command}" for bad, command in CASES])
def test_bad_input_is_one_line(place: Path, run: Run, bad: Bad, command: str) -> None:
    bad.spoil(place)
    before = contents(place)
    ended = run(command, bad.flags)
    assert ended.code == 2
    assert ended.err.startswith("error: ") and ended.err.endswith("\n") and ended.err.count("\n") == 1
    assert ended.warned == ()
    pattern = ".*".join(map(re.escape, bad.line.format(here=place, help=HELP).split(" ... ")))
    assert re.search(pattern, ended.err)
    assert contents(place) == before


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "status --address http://127.0.0.1:9",
            "--address must be that of a running Ray cluster, got http://127.0.0.1:9",
        ),
        (
            "stop s --address host:6379",
            "--address of a job must be auto, http://HOST:8265 or ray://HOST:10001, got host:6379",
        ),
        ("node check --constraints no.txt", "--constraints must be a file that can be read, got {here}/no.txt"),
        ("node check --constraints c.txt", "This machine and {here}/c.txt must have the same versions, got numpy"),
    ],
)
def test_commands_of_a_cluster_refuse_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, line: str
) -> None:
    write(place, "c.txt", "numpy==0.1\nsix==1\n")
    ended = run_command(monkeypatch, capsys, command.split())
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert ended.err.startswith("error: " + line.format(here=place))


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_study_that_is_there_stays(place: Path, run: Run, command: str) -> None:
    (place / "r/s").mkdir(parents=True)
    write(place, "r/s/summary.json", "{}")
    before = contents(place)
    ended = run(command)
    assert ended.code == 2
    assert ended.err == f"error: --study must be a new name, got s, which is in {place / 'r'}. choose another.\n"
    assert contents(place) == before


def test_a_password_is_not_shown(run: Run) -> None:
    ended = run("tune", "--tracking-uri foo://me:hush@host")
    assert ended.code == 2 and "--tracking-uri must be" in ended.err
    assert "hush" not in ended.err + ended.out


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), RuntimeError('invalid hash value (expected "f37072fd", got "0a1b")')]
)
def test_weights_that_cannot_be_downloaded(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    ended = run("train", "--backbone-weights imagenet")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert "The ImageNet weights of resnet18 must be downloaded once" in ended.err
    assert "--backbone-weights FILE" in ended.err and str(error.args[0])[:20] in ended.err
    assert not (place / "r").exists()


def test_an_address_without_a_cluster(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, **_: Any) -> None:
        raise ConnectionError(f"Could not find any running Ray instance at {address}.")

    monkeypatch.setattr("ray.init", fail)
    write(place, "store.db", empty_store())
    ended = run("tune", "--address 10.0.0.1:6379 --tracking-uri sqlite:///store.db")
    assert ended.code == 2
    assert ended.err.startswith("error: --address") and ended.err.count("\n") == 1
    assert "10.0.0.1:6379" in ended.err
    assert not (place / "r/s").exists(), "the same command could not be run again"


# --- what goes on ---


def names_of(folder: Path) -> set[str]:
    """Names of the files in a folder, the time stamp of the log as *."""
    return {re.sub(r"\d{8}_\d{6}\.txt$", "*", path.name) for path in folder.iterdir()}


def outputs(category: str = "part") -> set[str]:
    """The seed program's four files, by its names."""
    return {
        f"training_curves_{category}.png",
        f"roc_curve_{category}.png",
        f"best_model_{category}.pth",
        f"training_log_{category}_LAS_*",
    }


def test_skip_broken_goes_on_and_says_so(place: Path, run: Run) -> None:
    broken = cut_off(place / "d/part/train/good/001.png")
    ended = run("train", "--skip-broken --image-size 64")
    assert (ended.code, ended.err) == (0, "")
    assert "1 broken images were left out:" in ended.out and str(broken) in ended.out
    assert outputs() <= names_of(place / "r/s")
    model = place / "r/s/best_model_part.pth"
    assert torch.load(model, weights_only=True)["kind"] == "detector"
    detector, spec, about = load_detector(model)
    assert (spec.image_size, spec.backbone, about["category"]) == (64, "resnet18", "part")
    scores, heat = detector(torch.rand(2, 3, 64, 64))
    assert scores.shape == (2,) and heat.shape[0] == 2 and 0 <= scores.min() <= scores.max() <= 1

    before = contents(place)
    again = run("train", "--skip-broken --image-size 64")
    assert again.code == 2 and "--study must be a new name, got s" in again.err
    assert contents(place) == before


@pytest.mark.parametrize("name", [*(f"d/part/train/good/{i:03}.png" for i in range(6)), "t/woven/0.png"])
def test_any_one_broken_image_of_a_good_part_can_be_left_out(place: Path, name: str) -> None:
    broken = cut_off(place / name)
    spec = part_spec(place / "d", TrainSpec(image_size=32), textures=place / "t", skip_broken=True)
    images = load_images(spec)
    (line,) = images.skipped
    assert str(broken) in line
    seen, split = images.trials, images.split
    is_calibration = broken in [image.path for image in split.calibration]
    assert len(seen.fit) == len(split.fit) - (broken in [image.path for image in split.fit])
    assert len(seen.textures) == 3 - name.startswith("t/")
    assert np.array_equal(seen.calibration, seen.fit) is is_calibration, "where there are none, those of fit"
    assert len(seen.calibration) == (len(seen.fit) if is_calibration else 1)


def test_images_of_all_kinds_are_trained_on(place: Path, run: Run) -> None:
    folder = place / "d/mixed"
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
    assert outputs("mixed") <= names_of(place / "r/s")
    assert "sealed test pixel_aupro" in ended.out and "left out" not in ended.out


def test_a_part_without_any_labelled_image_trains_on_a_synthetic_validation(place: Path, run: Run) -> None:
    make_part(place / "d", train=14)
    shutil.rmtree(place / "d/part/test")
    shutil.rmtree(place / "d/part/ground_truth")
    ended = run("train", "--validation synthetic")
    assert (ended.code, ended.err) == (0, "")
    assert "painted test pixel_aupro" in ended.out and "left out" not in ended.out
    splits = json.loads((place / "r/s/splits.json").read_text())
    assert splits["painted"] == "validation, sealed_test"
    assert [len(splits[part]) for part in ("fit", "calibration", "validation", "sealed_test")] == [5, 1, 4, 4]
    assert all(key.startswith("train/good/") for part in ("validation", "sealed_test") for key in splits[part])
    assert outputs() <= names_of(place / "r/s")


def test_a_missing_mask_leaves_pixel_metrics_out_and_says_so(place: Path, run: Run) -> None:
    (place / "d/part/ground_truth/rust/002_mask.png").unlink()
    ended = run("train")
    assert (ended.code, ended.err) == (0, "")
    assert "1 defective images have no mask: pixel metrics are left out" in ended.out
    assert "image_auroc" in ended.out and "pixel_au" not in ended.out
    about = torch.load(place / "r/s/best_model_part.pth", weights_only=True)["about"]
    assert about["validation"]["objective"] == about["validation"]["image_auroc"]
    assert not [name for name in about["test"] if name.startswith("pixel")]
    assert outputs() <= names_of(place / "r/s")
