"""The command, the MLflow model, MLflow's server and the exported files score images equally."""

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
from tests.waiting import wait_for_response

IMAGES = noise_images(3)


@dataclass(frozen=True)
class Champion:
    """A logged model and images."""

    store: Store
    folder: Path
    images: list[Path]

    @property
    def encoded(self) -> list[str]:
        return [base64.b64encode(path.read_bytes()).decode() for path in self.images]


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    root = tmp_path_factory.mktemp("champion")
    store = Store.make(root)
    folder = store.folder(store.log(make_detector(root / "d.pth", "efficientnet_lite0")))
    return Champion(store, folder, save_images(root / "parts", IMAGES))


@pytest.fixture(scope="module")
def address(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of MLflow's server of the model, which runs in its own process group."""
    root = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(champion.folder), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn
    with (root / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=root, env=os.environ | {"PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_response(f"http://127.0.0.1:{port}/ping", (root / "log.txt").read_text, process=server)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def post(address: str, **payload: Any) -> list[dict[str, Any]]:
    request = Request(address, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as response:
        return list(json.load(response)["predictions"])


def test_the_served_model_matches_the_loaded_one(address: str, champion: Champion) -> None:
    table = mlflow.pyfunc.load_model(str(champion.folder)).predict(champion.images, params={"anomaly_map": True})
    plain = post(address, inputs=champion.encoded)
    assert [list(row) for row in plain] == [["score", "threshold", "is_defective"]] * 3
    mapped = post(address, inputs=champion.encoded, params={"anomaly_map": True})
    numbers = post(address, inputs=IMAGES.tolist())
    for index, row in enumerate(mapped):
        for expected in (plain[index], numbers[index]):
            assert {name: row[name] for name in expected} == expected
        assert row["score"] == pytest.approx(table.score[index], abs=1e-6)
        assert row["is_defective"] is bool(table.is_defective[index])
        np.testing.assert_allclose(row["anomaly_map"], table.anomaly_map[index], atol=1e-6)


def test_the_input_example_can_be_posted(address: str, champion: Champion) -> None:
    example = json.loads((champion.folder / "serving_input_example.json").read_text())
    assert len(post(address, **example)) == 2


@pytest.mark.parametrize("form", ["path", "invalid"])
def test_paths_and_invalid_images_are_rejected(form: str, address: str, champion: Champion) -> None:
    image = {"path": str(champion.images[0]), "invalid": base64.b64encode(b"text").decode()}[form]
    with pytest.raises(HTTPError) as error:
        post(address, inputs=[image])
    assert error.value.code == 400
    message = error.value.read().decode()
    assert ("image in base64" if form == "path" else "could not be read") in message


def test_all_interfaces_agree(
    address: str,
    champion: Champion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = mlflow.pyfunc.load_model(str(champion.folder)).predict(champion.images, params={"anomaly_map": True})
    scores = {"served": [row["score"] for row in post(address, inputs=champion.encoded)]}
    maps: dict[str, Any] = {}
    model = ["--model", str(champion.folder)]
    ended = run_command(monkeypatch, capsys, ["predict", *model, *map(str, champion.images)])
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    scores["command"] = [float(row["score"]) for row in rows]
    assert [row["is_defective"] == "True" for row in rows] == loaded.is_defective.tolist()
    squares = np.stack([decode_image(path, SIZE) for path in champion.images])
    batch = torch.from_numpy(squares).float() / 255
    for format_ in ("onnx", "torchscript", "pt2"):
        file = tmp_path / f"exported.{format_}"
        assert run_command(monkeypatch, capsys, ["export", *model, "--format", format_, "--out", str(file)]).code == 0
        scores[format_], maps[format_] = run_exported(format_, file, batch)
    for name, values in scores.items():
        np.testing.assert_allclose(values, loaded.score, atol=1e-4, err_msg=name)
    for name, values in maps.items():
        np.testing.assert_allclose(values, np.stack(list(loaded.anomaly_map)), atol=1e-4, err_msg=name)
    assert np.std(loaded.score) > 1e-3, "constant outputs would agree in any case"


def run_exported(format_: str, file: Path, images: torch.Tensor) -> list[Any]:
    if format_ == "onnx":
        import onnxruntime  # type: ignore[import-untyped]

        return list(onnxruntime.InferenceSession(file).run(None, {"images": images.numpy()}))
    model = torch.jit.load(file) if format_ == "torchscript" else torch.export.load(file).module()
    return [values.numpy() for values in model(images)]
