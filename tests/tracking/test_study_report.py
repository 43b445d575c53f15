"""The report: one file, nothing fetched, nothing that a study wrote is taken for HTML."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from las_tune.tracking.store import find_study
from las_tune.tracking.study_report import AS_IT_IS_BYTES, make_report
from tests.studies import FIGURES, PANEL, FilledStore, add_file, add_trial, make_store, make_study, start_study

OWN = re.compile(r'<img src="data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)" alt="([^"]+)">')


class Addresses(HTMLParser):
    """Every address that a browser would fetch, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "poster")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    """An empty store."""
    return make_store(tmp_path_factory.mktemp("results"))


def report_of(store: FilledStore, study: str) -> tuple[str, list[str], Addresses]:
    text, missing = make_report(store.client, find_study(store.client, store.experiment_id, study))
    parsed = Addresses()
    parsed.feed(text)
    return text, missing, parsed


def test_a_finished_study_is_all_inside(store: FilledStore) -> None:
    make_study(store, "done")
    text, missing, parsed = report_of(store, "done")
    assert missing == [] and "Not in this report" not in text
    assert len(text.encode()) < 5e6
    images = OWN.findall(text)
    assert len(images) == len(parsed.fetched) == len(FIGURES) + 2 + 2 * len(PANEL)
    for kind, content, _ in images:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert (image.format or "").lower() == kind and image.size == (320, 200)
    captions = [caption for _, _, caption in images]
    assert captions[0].startswith("Optimization history") and captions[3].startswith("Training curves")
    for shown in (
        "<h2>A search over <code>part</code></h2>", "<strong>trial 3</strong>", "<td>AUROC</td>",
        "+0.1000 (+0.0200 to +0.1700)", "Promotion: trial 3 beats the baseline.", "Trial 3, seed 1: champion",
        "Baseline, seed 1: baseline", "python -m las_tune --category part --seed 0", "torch==2.9.0", "0123abcd",
    ):  # fmt: skip
        assert shown in text, shown
    assert parsed.tags.count("script") == parsed.tags.count("link") == parsed.tags.count("iframe") == 0
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_trials_stand_best_first(store: FilledStore) -> None:
    make_study(store, "ordered")
    text, _, _ = report_of(store, "ordered")
    rows = re.findall(r"<tr[^>]*><td>(trial [^<]+|baseline[^<]+)</td>", text)
    assert rows[:3] == ["trial 3", "trial 6", "trial 4"] and rows[8:] == [
        "trial 3, seed 2", "trial 3, seed 1", "baseline, seed 2", "baseline, seed 1",
    ]  # fmt: skip


def test_a_study_that_runs_says_what_is_missing(store: FilledStore) -> None:
    parent = start_study(store, "running")
    text, missing, _ = report_of(store, "running")
    assert "No trial has started" in text
    add_trial(store, parent, "running", 0, 0.8, start_ms=1_700_000_001_000)
    text, missing, parsed = report_of(store, "running")
    assert missing == [
        "the description", "the sealed test, which is opened when a study ends", "figures",
        "images of baseline and champion",
    ]  # fmt: skip
    assert "still runs, or was cut off" in text and all(name in text for name in missing)
    assert "trial 0 (baseline)" in text and parsed.fetched == []


def test_before_there_is_a_champion_the_best_trial_is_shown(store: FilledStore) -> None:
    parent = start_study(store, "half")
    for number, objective in enumerate((0.8, 0.9)):
        run_id = add_trial(store, parent, "half", number, objective, start_ms=1_700_000_001_000 + number)
        add_file(store, run_id, "panel/painted.png", (make_noise((8, 8))))
    text, _, _ = report_of(store, "half")
    assert "Trial 0 (baseline): baseline" in text and "Trial 1: best trial so far" in text


def test_one_that_is_both_is_shown_once(store: FilledStore) -> None:
    parent = start_study(store, "kept")
    run_id = add_trial(store, parent, "kept", 0, 0.8, start_ms=1_700_000_001_000, champion="true")
    add_file(store, run_id, "panel/painted.png", make_noise((8, 8)))
    text, _, parsed = report_of(store, "kept")
    assert "Trial 0 (baseline): baseline and champion" in text and len(parsed.fetched) == 1


def test_what_a_study_wrote_is_no_html(store: FilledStore) -> None:
    parent = start_study(store, "hostile", category="<script>alert(1)</script>")
    note = (
        "<script>alert(2)</script>\n\n![x](http://evil.example/a.png)\n\n[y](javascript:alert(3))\n\n"
        "<img src=http://evil.example/b.png>"
    )
    store.client.set_tag(parent, "mlflow.note.content", note)
    add_file(store, parent, "command.txt", b"python <img src=http://evil.example/c.png>")
    text, _, parsed = report_of(store, "hostile")
    assert "script" not in parsed.tags and parsed.fetched == []
    assert 'href="javascript:' not in text and "default-src 'none'" in text


def test_warnings_come_first(store: FilledStore) -> None:
    start_study(store, "flattered", **{"demo": "true", "test-selected": "true"})
    text, _, _ = report_of(store, "flattered")
    assert text.index("DEMO: rendered images") < text.index("TEST-SELECTED") < text.index("<h2>Trials</h2>")


def make_noise(size: tuple[int, int]) -> bytes:
    """An image that PNG cannot make small."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_large_images_are_made_small_and_broken_ones_left_out(store: FilledStore) -> None:
    parent = start_study(store, "large")
    noise = make_noise((2400, 600))
    assert len(noise) > AS_IT_IS_BYTES
    add_file(store, parent, "figures/slices.png", noise)
    add_file(store, parent, "figures/timeline.png", b"no image")
    text, _, _ = report_of(store, "large")
    ((kind, content, caption),) = OWN.findall(text)
    assert (kind, caption) == ("jpeg", "Slices: the objective along each hyperparameter")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (1600, 400)


def test_artifacts_that_are_gone_are_missing(store: FilledStore, tmp_path: Path) -> None:
    elsewhere = make_store(tmp_path / "results")
    make_study(elsewhere, "moved")
    (tmp_path / "results/mlartifacts").rename(tmp_path / "away")
    _, missing, parsed = report_of(elsewhere, "moved")
    assert missing == ["figures", "images of baseline and champion"] and parsed.fetched == []
