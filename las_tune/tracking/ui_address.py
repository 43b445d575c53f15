"""The address of a study in MLflow's UI: its runs, its columns, its trials under it.

MLflow's UI keeps what a page shows in the browser, but for shared views: a tag of the experiment,
mlflow.sharedViewState.KEY, which an address with viewStateShareKey=KEY opens. The tag is written here. Which rows are
unfolded cannot be shared, and trials fold under their study in the order of their start only; so a study's address is
one click away from its trials, and a second address shows them unfolded, best first.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.tracking.store import StudyRuns, find_study

View = Literal["study", "best_first"]
SHARED_VIEW = "mlflow.sharedViewState."
NAME_COLUMN, CREATED_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"


def study_address(client: MlflowClient, base_url: str, experiment_id: str, study: str, view: View = "study") -> str:
    """Write the view of a study into the store, where it is not there yet, and return its address.

    Args:
        client: of the store.
        base_url: of the UI, as http://127.0.0.1:5000; a password in it is left out of the address.
        experiment_id: of the study's experiment.
        study: its name.
        view: study has the trials folded under it, in the order of their start; best_first has the trials alone.
    """
    runs = find_study(client, experiment_id, study)
    search = _search(study, view)
    key = f"las_tune.{study}.{view}"
    parts = urlsplit(base_url)
    page = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/#/experiments/{experiment_id}"
    query = {"workflowType": "machine_learning"}  # else MLflow 3 opens its menu for language models
    try:
        _write_view(client, experiment_id, f"{SHARED_VIEW}{key}", _view(runs, search, view))
        query["viewStateShareKey"] = key
    except (MlflowException, SQLAlchemyError):  # a store that one may only read: the same runs in the usual columns
        query |= search
    return f"{page}/runs?{urlencode(query, quote_via=quote)}"


def _search(study: str, view: View) -> dict[str, str]:
    """Which runs in which order, in the words of an address."""
    mine = f"tags.study = '{study}'"
    if view == "study":
        return {"searchFilter": mine, "orderByKey": "attributes.start_time", "orderByAsc": "true"}
    return {
        "searchFilter": f"{mine} AND tags.kind = 'trial'",
        "orderByKey": "metrics.`best/objective`",
        "orderByAsc": "false",
    }


def _view(runs: StudyRuns, search: dict[str, str], view: View) -> str:
    """A shared view: newer servers want it as a saved view with a name, older ones as the bare state of the page."""
    columns = [f"{kind}.`{key}`" for kind, key in runs.columns]
    state: dict[str, Any] = search | {
        "orderByAsc": search["orderByAsc"] == "true",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [NAME_COLUMN, CREATED_COLUMN, *columns],
        "columnWidths": {NAME_COLUMN: 250, **{column: 8 * len(column.split(".", 1)[1]) + 30 for column in columns}},
        "runsHiddenMode": "SHOW_ALL",
    }
    created = runs.parent.info.start_time  # not now: the same study has the same view
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    saved = {
        "name": runs.name + (", best first" if view == "best_first" else ""),
        "createdAt": created,
        "updatedAt": created,
        "state": f"deflate;{packed}",
    }
    return json.dumps(state | saved)


def _write_view(client: MlflowClient, experiment_id: str, tag: str, text: str) -> None:
    if client.get_experiment(experiment_id).tags.get(tag) != text:
        client.set_experiment_tag(experiment_id, tag, text)
