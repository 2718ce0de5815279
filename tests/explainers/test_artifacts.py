"""Models that no one here trained, and hostile ones: loaded and right, or refused with a sentence, in the worker."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from explainers.binding import bind
from explainers.contract import Manifest, Refusal, Scale
from explainers.explanation import explain
from explainers.loading import load
from service.worker import Limits, Worker, WorkFailed
from tests.explainers.oracle import skops_bytes

FOUR = ("sepal length", "sepal width", "petal length", "petal width")
IRIS = pd.DataFrame([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6], [5.1, 3.5, 1.4, 0.2]], columns=list(FOUR))


@pytest.fixture(scope="module")
def models(shared_data: Path) -> Path:
    return shared_data / "models"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


# --- models that no one here trained ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kserve/model.json", "kserve/model.ubj"])
def test_kserves_xgboost_models_are_explained(models: Path, name: str) -> None:
    data = (models / name).read_bytes()
    bound = bind(load(data, Manifest(columns=FOUR)), Manifest(columns=FOUR))
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    found = explain(bound, IRIS, IRIS)
    expected = booster.predict(xgboost.DMatrix(IRIS.to_numpy()), output_margin=True)
    assert found.attributions.predictions == pytest.approx(expected, abs=1e-6)
    # KServe's example answers class 1 and 1 for the two rows of its iris-input.json
    assert list(bound.predict(IRIS, Scale.PROBABILITY).argmax(axis=1))[:2] == [1, 1]


@pytest.mark.parametrize("name", ["kserve/model.bst", "mlserver/iris-lightgbm.bst"])
def test_lightgbm_iris_models_are_explained(models: Path, name: str) -> None:
    names = [f"{name.replace(' ', '_')}_(cm)" for name in FOUR]  # KServe's file names its columns, MLServer's does not
    manifest = Manifest() if name.startswith("kserve") else Manifest(columns=tuple(names))
    bound = bind(load((models / name).read_bytes(), manifest), manifest)
    rows = IRIS.set_axis(names, axis=1)
    found = explain(bound, rows, rows)
    assert found.method == "native"
    # the third row is the first of Fisher's setosas, class 0, the first two of KServe's and MLServer's examples class 1
    assert list(bound.predict(rows, Scale.PROBABILITY).argmax(axis=1)) == [1, 1, 0]


def test_mlservers_mushroom_model_is_explained(models: Path) -> None:
    columns = tuple(f"c{place}" for place in range(126))
    bound = bind(load((models / "mlserver/mushroom-xgboost.json").read_bytes(), Manifest(columns=columns)), Manifest())
    rows = pd.DataFrame(np.random.default_rng(0).integers(0, 2, (50, 126)).astype(float), columns=list(columns))
    found = explain(bound, rows, rows)
    expected = _walked(json.loads((models / "mlserver/mushroom-xgboost.json").read_bytes()), rows.to_numpy())
    assert found.attributions.predictions[:, 0] == pytest.approx(expected, abs=1e-5)


def _walked(told: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """Return the margins of a two-class XGBoost model by following its JSON by hand."""
    margins = np.zeros(len(rows))  # the base score is 0.5: log-odds 0
    for tree in told["learner"]["gradient_booster"]["model"]["trees"]:
        for place, row in enumerate(rows):
            node = 0
            while tree["left_children"][node] != -1:
                left = np.float32(row[tree["split_indices"][node]]) < np.float32(tree["split_conditions"][node])
                node = tree["left_children"][node] if left else tree["right_children"][node]
            margins[place] += tree["split_conditions"][node]
    return margins


def test_mlservers_catboost_model_is_explained(models: Path) -> None:
    columns = tuple(f"c{place}" for place in range(10))
    bound = bind(load((models / "mlserver/model.cbm").read_bytes(), Manifest(columns=columns)), Manifest())
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 10)), columns=list(columns))
    found = explain(bound, rows, rows)
    assert (found.method, found.outputs, found.other) == ("native", ("1",), "0")
    chance = bound.predict(rows, Scale.PROBABILITY)
    assert chance == pytest.approx(1 / (1 + np.exp(-found.attributions.predictions)))


def test_treelites_categorical_lightgbm_model_has_the_expected_predictions(models: Path) -> None:
    folder = models / "treelite/toy_categorical"
    bound = bind(load((folder / "toy_categorical_model.txt").read_bytes(), Manifest(columns=("x", "y"))), Manifest())
    rows = []
    for line in (folder / "toy_categorical.test").read_text().splitlines():
        cells = dict(cell.split(":") for cell in line.split()[1:])
        rows.append([float(cells.get("0", "nan")), float(cells.get("1", "nan"))])
    frame = pd.DataFrame(rows, columns=["x", "y"])
    expected = np.loadtxt(folder / "toy_categorical.test.pred")
    found = explain(bound, frame, frame)
    assert found.attributions.predictions[:, 0] == pytest.approx(expected, abs=1e-9)
    assert found.method == "native"


def test_treelites_sparse_categorical_model_is_explained(models: Path) -> None:
    folder = models / "treelite/sparse_categorical"
    data = (folder / "sparse_categorical_model.txt").read_bytes()
    width = int(data.split(b"max_feature_idx=")[1].split(b"\n")[0]) + 1
    columns = tuple(f"c{place}" for place in range(width))
    rows = np.full((2, width), np.nan)
    for place, line in enumerate((folder / "sparse_categorical.test").read_text().splitlines()[:2]):
        for cell in line.split()[1:]:
            at, value = cell.split(":")
            rows[place, int(at)] = float(value)
    bound = bind(load(data, Manifest(columns=columns)), Manifest())
    found = explain(bound, pd.DataFrame(rows, columns=list(columns)), pd.DataFrame(rows, columns=list(columns)))
    import lightgbm

    booster = lightgbm.Booster(model_str=data.decode())
    assert found.attributions.predictions[:, 0] == pytest.approx(booster.predict(rows, raw_score=True))


@pytest.mark.parametrize("name", ["treecl.onnx", "treecl2.onnx", "treecl3.onnx"])
def test_sklearn_onnxs_graphs_are_explained(models: Path, name: str) -> None:
    data = (models / "sklearn-onnx" / name).read_bytes()
    width = max(_tree_features(data)) + 1
    columns = tuple(f"c{place}" for place in range(width))
    bound = bind(load(data, Manifest(columns=columns)), Manifest())
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(3, width)), columns=list(columns))
    found = explain(bound, rows, rows)
    expected = _reference(data, rows.to_numpy(np.float32))
    assert found.attributions.predictions == pytest.approx(expected[:, 1:] if expected.shape[1] == 2 else expected)


def _tree_features(data: bytes) -> list[int]:
    import onnx

    graph = onnx.load_from_string(data).graph
    return [
        value
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "nodes_featureids"
        for value in attribute.ints
    ]


def _reference(data: bytes, rows: np.ndarray) -> np.ndarray:
    """Return what onnx's own reference implementation predicts."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load_from_string(data))
    return np.asarray(session.run(None, {"input": rows})[1])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("kserve/model.joblib", "this is a pickle"),
        (
            "kserve/python__sklearnserver__sklearnserver__example_models__joblib__model__model.joblib",
            "this is a pickle",
        ),
        ("mlserver/model.joblib", "this is a pickle"),
        ("mlserver/benchmarking__testserver__models__iris__model.joblib", "this is a pickle"),
        ("mlserver/model.bst", "XGBoost's old binary format"),
        ("treelite/mushroom/mushroom.model", "XGBoost's old binary format"),
        ("kserve/train.csv", "none of the formats"),
    ],
)
def test_every_other_model_is_refused_with_what_to_do_instead(models: Path, name: str, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence) as caught:
        load((models / name).read_bytes(), Manifest())
    assert "save" in str(caught.value)


def test_no_model_file_was_forgotten(models: Path) -> None:
    mine = Path(__file__).read_text()
    for path in models.rglob("*"):
        if path.is_file() and path.suffix not in (".csv", ".test", ".pred"):
            assert path.name in mine, path


# --- hostile ones, in the worker --------------------------------------------------------------------------------------


class Touch:
    """Unpickles to a call of the shell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def booster() -> Any:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    return xgboost.train({"max_depth": 3}, xgboost.DMatrix(rows, rows[:, 0]), 10)


def light() -> bytes:
    import lightgbm

    rows = np.random.default_rng(0).normal(size=(200, 4))
    return bytes(lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, rows[:, 0]), 10).model_to_string().encode())


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return out.getvalue()


def hostile(kind: str, canary: Path) -> bytes:
    """Return a hostile artifact of a kind; whatever runs code in it makes the canary."""
    if kind == "pickle":
        return pickle.dumps(Touch(canary))
    if kind == "old pickle":
        return pickle.dumps(Touch(canary), protocol=0)
    if kind.startswith("joblib"):
        out = io.BytesIO()
        joblib.dump(Touch(canary), out, compress=("zlib", 3) if "compressed" in kind else 0)
        return out.getvalue()
    if kind == "pickle inside skops":
        return zipped(schema__json=pickle.dumps(Touch(canary)))
    if kind == "function in skops":
        return skops_bytes(FunctionTransformer(os.system))
    if kind == "torch":
        return zipped(archive__data__pkl=pickle.dumps(Touch(canary)))
    if kind == "mlflow":
        return zipped(MLmodel=b"flavors:\n  python_function:\n    loader_module: os\n")
    if kind == "zip bomb as skops":
        good = skops_bytes(LogisticRegression())
        with zipfile.ZipFile(io.BytesIO(good)) as archive:
            schema = archive.read("schema.json")
        return zipped(schema__json=schema, filler=bytes(300 * 2**20))
    if kind == "truncated xgboost":
        return bytes(booster().save_raw("json"))[:-1500]
    if kind == "truncated ubj":
        return bytes(booster().save_raw("ubj"))[:-1500]
    if kind == "truncated lightgbm":
        return light()[: len(light()) // 2]
    if kind == "flipped ubj":
        data = bytearray(booster().save_raw("ubj"))
        for place in np.random.default_rng(1).integers(100, len(data), 400):
            data[place] ^= 0xFF
        return bytes(data)
    if kind == "flipped lightgbm":
        return light().replace(b"left_child=", b"left_child=99999 ")
    if kind == "flipped forest":
        forest = RandomForestClassifier(3, random_state=0).fit([[0.0], [1.0], [2.0], [3.0]] * 9, [0, 1, 0, 1] * 9)
        forest.estimators_[0].tree_.children_left[0] = 10**9
        return skops_bytes(forest)
    if kind == "a million trees":
        return light().replace(b"\nend of trees", b"\nTree=9\nnum_leaves=1\n" * 10**6 + b"\nend of trees")
    if kind == "a million trees in json":
        return bytes(booster().save_raw("json")).replace(b'"num_trees":"10"', b'"num_trees":"1000000"')
    if kind == "absurd columns in xgboost":
        return bytes(booster().save_raw("json")).replace(b'"num_feature":"4"', b'"num_feature":"2000000000"')
    if kind == "absurd columns in lightgbm":
        return light().replace(b"max_feature_idx=3", b"max_feature_idx=2000000000")
    if kind == "truncated onnx":
        return b"\x08\x08\x12\x05hello\x3a\xff\xff\xff\x7f" + os.urandom(64)
    if kind == "truncated catboost":
        return b"CBM1\x00\x00\x10\x00" + os.urandom(512)
    assert kind == "damaged catboost"
    return b"CBM1" + (504).to_bytes(4, "little") + os.urandom(504)


KINDS = (
    "pickle", "old pickle", "joblib", "joblib compressed", "pickle inside skops", "function in skops", "torch",
    "mlflow", "zip bomb as skops", "truncated xgboost", "truncated ubj", "truncated lightgbm", "flipped ubj",
    "flipped lightgbm", "flipped forest", "a million trees", "a million trees in json", "absurd columns in xgboost",
    "absurd columns in lightgbm", "truncated onnx", "truncated catboost", "damaged catboost",
)  # fmt: skip


SHORT = ("pickle", "truncated lightgbm", "flipped lightgbm", "a million trees")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in SHORT else pytest.mark.long) for kind in KINDS]
)
def test_a_hostile_artifact_runs_nothing_and_harms_nothing(worker: Worker, kind: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = hostile(kind, canary)
    manifest = {"columns": list("abcd") if "forest" not in kind else ["a"]}
    rows = pa.table({name: [0.5, -1.0] for name in "abcd"})
    with pytest.raises(WorkFailed) as caught:
        worker.call(
            "explanations.attribute",
            {"manifest": manifest},
            tables={"rows": rows, "background": rows},
            files={"artifact": data},
            limits=Limits(seconds=60, resident_bytes=3 * 2**30),
        )
    assert caught.value.detail
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("renamed", ["model.json", "model.skops", "model.onnx"])
def test_the_name_of_a_file_counts_for_nothing(tmp_path: Path, renamed: str) -> None:
    path = tmp_path / renamed
    path.write_bytes(pickle.dumps(Touch(tmp_path / "canary")))
    with pytest.raises(Refusal, match="this is a pickle, which can run any code when it is opened"):
        load(path.read_bytes(), Manifest())
    assert list(tmp_path.iterdir()) == [path]


def test_a_cloudpickle_and_mlflows_folder_are_named() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    by_value = cloudpickle.dumps(lambda rows: rows)
    for data, sentence in (
        (by_value, r"this is a pickle \(cloudpickle\)"),
        (hostile("mlflow", Path()), r"an MLflow model \(pyfunc\)"),
        (b"flavors:\n  python_function:\n    loader_module: os\n", "an MLflow model of the flavour python_function"),
    ):
        with pytest.raises(Refusal, match=sentence):
            load(data, Manifest())


@pytest.mark.parametrize("level", [1, 3, 6, 9])
@pytest.mark.parametrize("squeezed", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_compressed_joblib_files_are_named(tmp_path: Path, squeezed: str, level: int) -> None:
    out = io.BytesIO()
    joblib.dump(Touch(tmp_path / "canary"), out, compress=(squeezed, level))
    with pytest.raises(Refusal, match="as joblib"):
        load(out.getvalue(), Manifest())
    assert not list(tmp_path.iterdir())


def test_types_that_are_not_on_the_list_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"types that are not loaded here.*posix\.system"):
        load(hostile("function in skops", tmp_path), Manifest())
