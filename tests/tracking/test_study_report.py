"""The report: a single file that loads nothing, and in which texts of a study are escaped."""

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
from las_tune.tracking.study_report import MAX_PNG_BYTES, make_report
from tests.studies import FIGURES, PANEL, FilledStore, add_file, add_trial, make_store, make_study, start_study

EMBEDDED = re.compile(r'<img src="data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)" alt="([^"]+)">')


class Addresses(HTMLParser):
    """Collects every tag, and every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "poster")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    """An empty store."""
    return make_store(tmp_path_factory.mktemp("results"))


def report_of(store: FilledStore, study: str) -> tuple[str, list[str], Addresses]:
    text, missing = make_report(store.client, find_study(store.client, store.experiment_id, study))
    parsed = Addresses()
    parsed.feed(text)
    return text, missing, parsed


def test_a_report_contains_all_of_a_finished_study(store: FilledStore) -> None:
    make_study(store, "done")
    text, missing, parsed = report_of(store, "done")
    assert missing == [] and "Not available in the MLflow store" not in text
    assert len(text.encode()) < 5e6
    images = EMBEDDED.findall(text)
    assert len(images) == len(parsed.loaded) == len(FIGURES) + 2 + 2 * len(PANEL)
    for kind, content, _ in images:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert (image.format or "").lower() == kind and image.size == (320, 200)
    captions = [caption for _, _, caption in images]
    assert captions[0].startswith("Optimization history") and captions[3].startswith("Training curves")
    for expected in (
        "<h2>A search over <code>part</code></h2>", "<strong>trial 3</strong>", "<td>AUROC</td>",
        "+0.1000 (+0.0200 to +0.1700)", "Promotion: trial 3 beats the baseline.", "Trial 3, seed 1: champion",
        "Baseline, seed 1: baseline", "python -m las_tune --category part --seed 0", "torch==2.9.0", "0123abcd",
    ):  # fmt: skip
        assert expected in text, expected
    assert parsed.tags.count("script") == parsed.tags.count("link") == parsed.tags.count("iframe") == 0
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_trials_are_listed_best_first(store: FilledStore) -> None:
    make_study(store, "ordered")
    text, _, _ = report_of(store, "ordered")
    rows = re.findall(r"<tr[^>]*><td>(trial [^<]+|baseline[^<]+)</td>", text)
    assert rows[:3] == ["trial 3", "trial 6", "trial 4"] and rows[8:] == [
        "trial 3, seed 2", "trial 3, seed 1", "baseline, seed 2", "baseline, seed 1",
    ]  # fmt: skip


def test_the_report_of_a_running_study_lists_what_is_missing(store: FilledStore) -> None:
    parent = start_study(store, "running")
    text, missing, _ = report_of(store, "running")
    assert "No trial has started" in text
    add_trial(store, parent, "running", 0, 0.8, start_ms=1_700_000_001_000)
    text, missing, parsed = report_of(store, "running")
    assert missing == [
        "the description", "the sealed test, which is evaluated at the end of a study", "figures",
        "images of baseline and champion",
    ]  # fmt: skip
    assert "is running, or was interrupted" in text and all(name in text for name in missing)
    assert "trial 0 (baseline)" in text and parsed.loaded == []


def test_without_a_champion_the_best_trial_is_shown(store: FilledStore) -> None:
    parent = start_study(store, "half")
    for number, objective in enumerate((0.8, 0.9)):
        run_id = add_trial(store, parent, "half", number, objective, start_ms=1_700_000_001_000 + number)
        add_file(store, run_id, "panel/painted.png", (make_noise((8, 8))))
    text, _, _ = report_of(store, "half")
    assert "Trial 0 (baseline): baseline" in text and "Trial 1: best trial so far" in text


def test_a_baseline_that_is_the_champion_is_shown_once(store: FilledStore) -> None:
    parent = start_study(store, "kept")
    run_id = add_trial(store, parent, "kept", 0, 0.8, start_ms=1_700_000_001_000, champion="true")
    add_file(store, run_id, "panel/painted.png", make_noise((8, 8)))
    text, _, parsed = report_of(store, "kept")
    assert "Trial 0 (baseline): baseline and champion" in text and len(parsed.loaded) == 1


def test_files_of_version_0_1_0_have_captions(store: FilledStore) -> None:
    parent = start_study(store, "old")
    run_id = add_trial(store, parent, "old", 0, 0.8, start_ms=1_700_000_001_000, champion="true")
    add_file(store, parent, "figures/optimisation_history.png", make_noise((8, 8)))
    for name in ("painted", "heat_maps"):
        add_file(store, run_id, f"panel/{name}.png", make_noise((8, 8)))
    text, _, _ = report_of(store, "old")
    assert [caption for _, _, caption in EMBEDDED.findall(text)] == [
        "Optimization history: the objective of every trial",
        "Synthetic defects on good images",
        "Validation images and their anomaly maps",
    ]


def test_texts_of_a_study_are_escaped(store: FilledStore) -> None:
    parent = start_study(store, "malicious", category="<script>alert(1)</script>")
    note = (
        "<script>alert(2)</script>\n\n![x](http://evil.example/a.png)\n\n[y](javascript:alert(3))\n\n"
        "<img src=http://evil.example/b.png>"
    )
    store.client.set_tag(parent, "mlflow.note.content", note)
    add_file(store, parent, "command.txt", b"python <img src=http://evil.example/c.png>")
    text, _, parsed = report_of(store, "malicious")
    assert "script" not in parsed.tags and parsed.loaded == []
    assert 'href="javascript:' not in text and "default-src 'none'" in text


def test_warnings_come_before_the_trials(store: FilledStore) -> None:
    start_study(store, "optimistic", **{"demo": "true", "test-selected": "true"})
    text, _, _ = report_of(store, "optimistic")
    assert text.index("DEMO: rendered images") < text.index("TEST-SELECTED") < text.index("<h2>Trials</h2>")


def make_noise(size: tuple[int, int]) -> bytes:
    """Encode an image that PNG cannot compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_large_images_are_compressed_and_broken_ones_omitted(store: FilledStore) -> None:
    parent = start_study(store, "large")
    noise = make_noise((2400, 600))
    assert len(noise) > MAX_PNG_BYTES
    add_file(store, parent, "figures/slices.png", noise)
    add_file(store, parent, "figures/timeline.png", b"not an image")
    text, _, _ = report_of(store, "large")
    ((kind, content, caption),) = EMBEDDED.findall(text)
    assert (kind, caption) == ("jpeg", "Slices: the objective against each hyperparameter")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (1600, 400)


def test_deleted_artifacts_are_listed_as_missing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "results")
    make_study(store, "moved")
    (tmp_path / "results/mlartifacts").rename(tmp_path / "moved")
    _, missing, parsed = report_of(store, "moved")
    assert missing == ["figures", "images of baseline and champion"] and parsed.loaded == []
