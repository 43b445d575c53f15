"""One champion, everywhere that it can be asked: the command, MLflow's model, MLflow's server, exported files."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pytest
import torch

from las_tune.data.images import decode_image
from tests.detectors import SIZE, Store, make_detector, noise_images, save_images
from tests.parts import run_command
from tests.waiting import wait_for_answer

IMAGES = noise_images(3)


@dataclass(frozen=True)
class Champion:
    """A logged model and its images."""

    store: Store
    folder: Path
    images: list[Path]

    @property
    def encoded(self) -> list[str]:
        return [base64.b64encode(path.read_bytes()).decode() for path in self.images]


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    place = tmp_path_factory.mktemp("champion")
    store = Store.make(place)
    folder = store.folder(store.log(make_detector(place / "d.pth", "efficientnet_lite0")))
    return Champion(store, folder, save_images(place / "parts", IMAGES))


@pytest.fixture(scope="module")
def address(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's server of the model, in a process group of its own."""
    place = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(champion.folder), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls uvicorn
    with (place / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=place, env=os.environ | {"PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/ping", (place / "log.txt").read_text, process=server)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def ask(address: str, **payload: Any) -> list[dict[str, Any]]:
    request = Request(address, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return list(json.load(answer)["predictions"])


def test_the_served_model_answers_as_the_loaded_one(address: str, champion: Champion) -> None:
    table = mlflow.pyfunc.load_model(str(champion.folder)).predict(champion.images, params={"heat_map": True})
    plain = ask(address, inputs=champion.encoded)
    assert [list(row) for row in plain] == [["score", "threshold", "is_defective"]] * 3
    mapped = ask(address, inputs=champion.encoded, params={"heat_map": True})
    numbers = ask(address, inputs=IMAGES.tolist())
    for index, row in enumerate(mapped):
        for other in (plain[index], numbers[index]):
            assert {name: row[name] for name in other} == other
        assert row["score"] == pytest.approx(table.score[index], abs=1e-6)
        assert row["is_defective"] is bool(table.is_defective[index])
        np.testing.assert_allclose(row["heat_map"], table.heat_map[index], atol=1e-6)


def test_the_input_example_can_be_posted_as_it_is(address: str, champion: Champion) -> None:
    example = json.loads((champion.folder / "serving_input_example.json").read_text())
    assert len(ask(address, **example)) == 2


@pytest.mark.parametrize("form", ["path", "no image"])
def test_files_of_the_server_and_what_is_no_image_are_refused(form: str, address: str, champion: Champion) -> None:
    given = {"path": str(champion.images[0]), "no image": base64.b64encode(b"text").decode()}[form]
    with pytest.raises(HTTPError) as error:
        ask(address, inputs=[given])
    assert error.value.code == 400
    said = error.value.read().decode()
    assert ("encoded image in base64" if form == "path" else "must be readable by Pillow") in said


def test_everyone_agrees_on_the_same_images(
    address: str,
    champion: Champion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = mlflow.pyfunc.load_model(str(champion.folder)).predict(champion.images, params={"heat_map": True})
    scores = {"served": [row["score"] for row in ask(address, inputs=champion.encoded)]}
    maps: dict[str, Any] = {}
    model = ["--model", str(champion.folder)]
    ended = run_command(monkeypatch, capsys, ["predict", *model, *map(str, champion.images)])
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    scores["command"] = [float(row["score"]) for row in rows]
    assert [row["is_defective"] == "True" for row in rows] == loaded.is_defective.tolist()
    squares = np.stack([decode_image(path, SIZE) for path in champion.images])
    batch = torch.from_numpy(squares).float() / 255
    for kind in ("onnx", "torchscript", "pt2"):
        file = tmp_path / f"exported.{kind}"
        assert run_command(monkeypatch, capsys, ["export", *model, "--format", kind, "--out", str(file)]).code == 0
        scores[kind], maps[kind] = run_exported(kind, file, batch)
    for name, found in scores.items():
        np.testing.assert_allclose(found, loaded.score, atol=1e-4, err_msg=name)
    for name, found in maps.items():
        np.testing.assert_allclose(found, np.stack(list(loaded.heat_map)), atol=1e-4, err_msg=name)
    assert np.std(loaded.score) > 1e-3, "they would agree on a constant"


def run_exported(kind: str, file: Path, images: torch.Tensor) -> list[Any]:
    if kind == "onnx":
        import onnxruntime  # type: ignore[import-untyped]

        return list(onnxruntime.InferenceSession(file).run(None, {"images": images.numpy()}))
    model = torch.jit.load(file) if kind == "torchscript" else torch.export.load(file).module()
    return [values.numpy() for values in model(images)]
