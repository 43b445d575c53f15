"""MLflow's UI in a browser: the addresses that `ui` prints open the study, its trials and their images.

This test also takes the screenshots of the README, from a real study:

    LAS_TUNE_SCREENSHOTS=FOLDER LAS_TUNE_SCREENSHOT_STORE=sqlite:////.../mlflow.db LAS_TUNE_SCREENSHOT_STUDY=NAME \\
        python -m pytest tests/browser
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from las_tune.tracking.store import StudyRuns, open_to_read
from tests.servers import start_ui
from tests.studies import make_store, make_study

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"),
]  # fmt: skip
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZE = {"width": 1600, "height": 900}
CHOICES = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"')
"""
"""Settings of the UI that a browser stores: the assistant is closed, and the menu is that for trained models."""


@dataclass(frozen=True)
class Served:
    """A study, and the addresses that `ui` printed."""

    study: StudyRuns
    folded: str
    best_first: str

    @property
    def page(self) -> str:
        """Address of the list of runs."""
        return self.folded.split("/runs?")[0] + "/runs"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URI of the store and name of the study: synthetic, unless the environment names a real one."""
    uri, name = os.environ.get("LAS_TUNE_SCREENSHOT_STORE"), os.environ.get("LAS_TUNE_SCREENSHOT_STUDY")
    if uri and name:
        return uri, name
    store = make_store(tmp_path_factory.mktemp("results"))
    make_study(store, "bracket")
    make_study(store, "another", start_ms=1_700_000_900_000)
    return store.uri, "bracket"


@pytest.fixture(scope="module")
def served(store: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`python -m las_tune ui`, started like a user does."""
    uri, name = store
    process, lines = start_ui("--tracking-uri", uri, "--study", name, cwd=tmp_path_factory.mktemp("here"))
    try:
        addresses = [line for line in lines if line.startswith("http://127.0.0.1:")]
        assert len(addresses) == 2, lines
        yield Served(open_to_read(uri, "las_tune").find(name), *addresses)
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, "Ctrl-C ends it normally"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a browser without history."""
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = browser.new_context(viewport=SIZE)
        context.set_default_timeout(30_000)
        context.add_init_script(CHOICES)
        yield context.new_page()
        browser.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the screenshots."""
    folder = Path(os.environ.get("LAS_TUNE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def row(page: Any, name: str) -> Any:
    """Return the table row of a run."""
    link = page.get_by_role("link", name=name, exact=True)
    return page.locator(".ag-pinned-left-cols-container .ag-row, .ag-center-cols-container .ag-row").filter(has=link)


def open_artifact(page: Any, served: Served, run_id: str, *path: str) -> None:
    """Open a file of a run through the folders of its page."""
    page.goto(f"{served.page}/{run_id}")
    page.get_by_role("tab", name="Artifacts").or_(page.get_by_role("link", name="Artifacts")).first.click()
    for name in path:
        page.get_by_text(name, exact=True).first.click()


def test_trials_are_folded_under_their_study(page: Any, served: Served, screenshots: Path) -> None:
    study = served.study
    page.goto(served.folded)
    row(page, study.name).first.wait_for()
    page.wait_for_timeout(500)
    rows = page.locator(".ag-center-cols-container .ag-row")
    assert rows.count() == 1, "one row: other studies are filtered out, trials are folded"
    row(page, study.name).locator("button").first.click()
    trial = min(study.trials, key=lambda run: int(run.data.tags["trial"])).info.run_name
    row(page, trial).first.wait_for()
    page.wait_for_timeout(500)
    assert rows.count() > min(len(study.children), 12), "the study and its trials"
    first = page.locator(".ag-row[row-index='0']")
    assert first.get_by_role("link", name=study.name, exact=True).count() == 1
    indent = {name: row(page, name).first.get_by_role("link").first.bounding_box()["x"] for name in (study.name, trial)}
    assert indent[trial] > indent[study.name]
    heads = set(page.locator(".ag-header-cell [data-testid^='sort-header-']").all_inner_texts())
    assert {"status", "best/objective", "best/image_auroc", study.searched_params[0]} <= {
        head.strip() for head in heads
    }
    page.screenshot(path=screenshots / "study.png")


def test_trials_are_sorted_best_first(page: Any, served: Served, screenshots: Path) -> None:
    page.goto("about:blank")
    page.goto(served.best_first)
    row(page, best(served.study)[0].info.run_name).first.wait_for()
    page.wait_for_timeout(500)
    column = page.locator(".ag-center-cols-container [col-id='metrics.`best/objective`']")
    shown = [float(text) for text in column.all_inner_texts() if re.fullmatch(r"[\d.]+", text.strip())]
    assert len(shown) >= min(len(served.study.children), 12) and shown == sorted(shown, reverse=True)
    page.screenshot(path=screenshots / "best_first.png")


def best(study: StudyRuns) -> list[Run]:
    """Return the runs of search and finalists, best first."""
    return sorted(study.children, key=lambda run: -run.data.metrics.get("best/objective", 0))


def test_trials_can_be_compared(page: Any, served: Served, screenshots: Path) -> None:
    page.goto("about:blank")
    page.goto(served.best_first)
    names = [run.info.run_name for run in best(served.study)[:3]]
    for name in names:
        row(page, name).first.locator("input.ag-checkbox-input").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_url("**/compare-runs?**")
    page.get_by_text("Comparing 3 Runs").first.wait_for()
    for name in names:
        page.get_by_text(name, exact=True).first.wait_for()
    for head in (served.study.searched_params[0], "best/objective"):
        page.get_by_text(head, exact=True).first.wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "compare.png")


def test_a_trial_shows_its_panel(page: Any, served: Served, screenshots: Path) -> None:
    open_artifact(page, served, served.study.trials[0].info.run_id, "panel", "anomaly_maps.png")
    image = page.locator("img[alt='panel/anomaly_maps.png']")
    image.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 200", arg=image.element_handle())
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "panel.png")


def test_the_study_shows_its_figures(page: Any, served: Served, screenshots: Path) -> None:
    open_artifact(page, served, served.study.parent.info.run_id, "figures", "study.html")
    figure = page.frame_locator("iframe").locator("svg, canvas").first
    figure.wait_for()
    assert figure.bounding_box()["width"] > 200
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "figure.png")
