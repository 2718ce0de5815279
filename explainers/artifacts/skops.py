"""scikit-learn models saved by skops, with a fixed list of the types that may be in one."""

import io
import json
import zipfile
from typing import Any

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import BOOSTERS, Artifact, Family, Manifest, Model, Numbers, Refusal, Scale
from explainers.transformers import MixedColumnsError, owners

ENTRIES = 10_000
INFLATED = 1 << 30
RATIO = 200
TRUSTED = (
    "catboost.core.CatBoostClassifier",
    "catboost.core.CatBoostRegressor",
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
"""Types beyond skops's own trusted ones, none of which runs text as code when it is built. The list is fixed here."""
TREES = (
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
    "GradientBoostingClassifier", "GradientBoostingRegressor",
    "HistGradientBoostingClassifier", "HistGradientBoostingRegressor",
)  # fmt: skip
MARGIN_TREES = ("GradientBoostingClassifier", "HistGradientBoostingClassifier")


class SkopsArtifact(Artifact):
    """An estimator or a Pipeline whose last step is one, a booster's scikit-learn class included."""

    name = "skops"
    title = "scikit-learn by skops"
    source = "skops.io, secure persistence"
    libraries = ("skops.io", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline")

    def recognises(self, data: bytes) -> bool:
        """Return whether it is a zip file with skops's ``schema.json``."""
        if not data.startswith(b"PK"):
            return False
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return "schema.json" in archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError):
            return False

    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the estimator; refuses archives that inflate too far and types that are not on the list."""
        _check_archive(data)
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
            if unknown:
                raise Refusal(
                    f"the file holds types that are not loaded here, since building them could run code: "
                    f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}; name the endpoint that serves the "
                    "model instead"
                )
            estimator = skops.io.loads(data, trusted=list(TRUSTED))
        except Refusal:
            raise
        except UntrustedTypesFoundException as error:
            raise Refusal(f"the file holds types that are not loaded here: {str(error)[:300]}") from None
        except Exception as error:  # noqa: BLE001 - a damaged archive can raise anything on the way to an object
            said = " ".join(str(error).split())[:200]
            raise Refusal(f"skops cannot read this file; it may be damaged: {type(error).__name__}: {said}") from None
        return of_estimator(estimator, manifest)


def _check_archive(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if len(entries) > ENTRIES:
            raise Refusal(f"the archive has {len(entries):,} files; up to {ENTRIES:,} are read")
        if total > INFLATED or (total > 2**20 and total > RATIO * max(len(data), 1)):
            raise Refusal(
                f"the archive of {len(data):,} bytes inflates to {total:,}; up to {INFLATED:,} bytes and {RATIO} times "
                "its size are read"
            )
        try:
            json.loads(archive.read("schema.json"))
        except (ValueError, RecursionError, zipfile.BadZipFile) as error:
            raise Refusal(f"skops cannot read this file; it may be damaged: {str(error)[:200]}") from None


def of_estimator(estimator: Any, manifest: Manifest) -> Model:
    """Return a fitted estimator or Pipeline as a model."""
    steps = [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
    before, last = [step for step in steps[:-1] if step not in (None, "passthrough")], steps[-1]
    if not hasattr(last, "predict"):
        raise Refusal(f"the file holds a {type(last).__name__}, which predicts nothing")
    first = before[0] if before else last
    named = getattr(first, "feature_names_in_", getattr(last, "feature_names_in_", None))
    count = int(getattr(first, "n_features_in_", getattr(last, "n_features_in_", 0)))
    columns = links.columns(None if named is None else [str(name) for name in named], count, manifest)
    named_columns = named is not None
    classes = list(getattr(last, "classes_", []))
    if classes and isinstance(classes[0], np.ndarray):
        raise Refusal("a model of several targets at once is explained one target at a time; save one of them")

    def fed(frame: pd.DataFrame) -> Any:
        return frame if named_columns else frame.to_numpy()

    def matrix(frame: pd.DataFrame) -> Any:
        data = fed(frame)
        for step in before:
            data = step.transform(data)
        if hasattr(data, "toarray"):
            data = data.toarray()
        return np.asarray(data, dtype=np.float64) if not isinstance(data, pd.DataFrame) else data.to_numpy(np.float64)

    margin = getattr(estimator, "decision_function", None) if classes else None
    chance = getattr(estimator, "predict_proba", None) if classes else None
    kind = type(last).__name__

    def predict(frame: pd.DataFrame, scale: Scale) -> Numbers:
        if scale is Scale.MARGIN:
            out = _inner_margin(last, matrix(frame)) if margin is None else margin(fed(frame))
        elif scale is Scale.PROBABILITY and chance is not None:
            out = chance(fed(frame))
            out = out[:, 1:] if len(classes) == 2 else out
        else:
            out = estimator.predict(fed(frame))
        return np.asarray(out, dtype=np.float64).reshape(len(frame), -1)

    _check_trees(last)
    family = _family(last)
    owner: tuple[int, ...] = ()
    note = ""
    if family is not Family.BLACK_BOX:
        try:
            owner = owners(before, columns)
        except MixedColumnsError as error:
            family, note = Family.BLACK_BOX, f"explained from outside, because {error}"
    outputs, other, scales = links.outcome(
        classes=len(classes) if len(classes) > 2 else 0, binary=len(classes) == 2, manifest=manifest, named=classes
    )
    if classes:
        inside_margin = family in (*BOOSTERS, Family.LINEAR) or kind in MARGIN_TREES
        has_margin = margin is not None or family in BOOSTERS
        scales = tuple(
            scale for scale, there in ((Scale.MARGIN, has_margin), (Scale.PROBABILITY, chance is not None)) if there
        )
        if not scales:
            raise Refusal(
                f"{kind} gives neither chances nor margins of its classes, so its choice cannot be attributed"
            )
        if not inside_margin:
            scales = tuple(sorted(scales, key=lambda scale: scale is not Scale.PROBABILITY))
    return Model(
        family=family,
        columns=columns,
        outputs=outputs,
        other=other,
        scales=scales,
        predict=predict,
        native=_native(last, family),
        matrix=matrix,
        owner=owner,
        depth=_depth(last),
        trees=_trees(last),
        single=family in (Family.XGBOOST, Family.CATBOOST),
        note=note,
    )


def _family(last: Any) -> Family:
    module, kind = type(last).__module__.split(".")[0], type(last).__name__
    if module in ("xgboost", "lightgbm", "catboost"):
        return Family(module)
    if kind in TREES and module == "sklearn":
        return Family.TREES
    if (
        module == "sklearn"
        and hasattr(last, "coef_")
        and hasattr(last, "intercept_")
        and "linear_model" in type(last).__module__
    ):
        linked = kind in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
        return Family.BLACK_BOX if linked else Family.LINEAR
    return Family.BLACK_BOX


def _native(last: Any, family: Family) -> Any:
    if family is Family.XGBOOST:
        booster = last.get_booster()
        booster.set_param({"nthread": 1})
        return booster
    if family is Family.LIGHTGBM:
        return last.booster_
    return last


def _inner_margin(last: Any, data: Any) -> Any:
    """Return the raw score of a booster's scikit-learn class."""
    family = _family(last)
    if family is Family.XGBOOST:
        return last.predict(data, output_margin=True)
    if family is Family.LIGHTGBM:
        return last.predict(data, raw_score=True)
    return last.predict(data, prediction_type="RawFormulaVal")


def _check_trees(last: Any) -> None:
    """Refuse trees whose nodes point outside themselves: scikit-learn follows them without looking."""
    inner = getattr(last, "estimators_", None)
    for tree in np.ravel(inner) if inner is not None else [last]:
        held = getattr(tree, "tree_", None)
        if held is None:
            continue
        left, right, feature = held.children_left, held.children_right, held.feature
        own = np.arange(left.size)
        branch = left != -1
        ahead = (left[branch] > own[branch]) & (right[branch] > own[branch])
        inside = (left[branch] < left.size) & (right[branch] < left.size)
        known = (feature[branch] >= 0) & (feature[branch] < held.n_features)
        if not (ahead & inside & known).all():
            raise Refusal("a tree in the file has nodes that point outside of it; the file is damaged")
    for stage in getattr(last, "_predictors", None) or []:
        for predictor in stage:
            nodes = predictor.nodes
            branch = nodes["is_leaf"] == 0
            own = np.arange(nodes.size)[branch]
            left, right = nodes["left"][branch].astype(np.int64), nodes["right"][branch].astype(np.int64)
            known = nodes["feature_idx"][branch] < last.n_features_in_ + 1
            if not ((left > own) & (right > own) & (left < nodes.size) & (right < nodes.size) & known).all():
                raise Refusal("a tree in the file has nodes that point outside of it; the file is damaged")


def _depth(last: Any) -> int | None:
    if hasattr(last, "tree_"):
        return int(last.tree_.max_depth)
    inner = getattr(last, "estimators_", None)
    if inner is not None:
        return max((int(tree.tree_.max_depth) for tree in np.ravel(inner) if hasattr(tree, "tree_")), default=None)
    stages = getattr(last, "_predictors", None)
    if stages is not None:
        return max(int(tree.get_max_depth()) for stage in stages for tree in stage)
    return None


def _trees(last: Any) -> int | None:
    inner = getattr(last, "estimators_", None)
    if inner is not None:
        return int(np.size(inner))
    stages = getattr(last, "_predictors", None)
    return sum(len(stage) for stage in stages) if stages is not None else None
