"""LightGBM's text format."""

import re
from typing import Any

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import Artifact, Family, Manifest, Model, Numbers, Refusal, Scale
from explainers.loading import within

MADE_UP = re.compile(r"Column_\d+")


class LightGBMArtifact(Artifact):
    """A booster as `save_model` and `model_to_string` write it."""

    name = "lightgbm"
    title = "LightGBM text"
    source = "LightGBM, Booster.save_model"
    libraries = ("lightgbm",)

    def recognises(self, data: bytes) -> bool:
        """Return whether it begins with ``tree``."""
        return data[:5] in (b"tree\n", b"tree\r")

    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the booster; its number of columns and its end are checked first, since LightGBM crashes on some."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Refusal(
                "the file begins as LightGBM's text and holds bytes that are no text; it is damaged"
            ) from None
        head, _, _ = text.partition("\nTree=")
        said = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
        trees = text.count("\nTree=")
        within(trees=trees, columns=_whole(said, "max_feature_idx") + 1)
        whole = "\nend of trees" in text or "\nfeature importances:" in text  # the latter alone before version 3
        if not trees or not whole or len(said.get("tree_sizes", "").split()) not in (0, trees):
            raise Refusal("the file begins as LightGBM's text and ends too early; it is cut off or damaged")
        import lightgbm

        lightgbm.register_logger(_Silent())
        try:
            booster = lightgbm.Booster(model_str=text, params={"num_threads": 1, "verbose": -1})
        except (lightgbm.basic.LightGBMError, ValueError, KeyError) as error:
            raise Refusal(f"LightGBM cannot read this file; it may be damaged: {str(error)[:200]}") from None
        objective = said.get("objective", "").split(" ")[0]
        classes = booster.num_model_per_iteration()
        file_names = booster.feature_name()
        made_up = all(MADE_UP.fullmatch(name) for name in file_names)
        columns = links.columns(file_names, len(file_names), manifest, made_up=made_up)
        infos = said.get("feature_infos", "").split(" ")
        coded = [
            name for name, info in zip(columns, infos, strict=False) if info not in ("none", "") and info[0] != "["
        ]
        kinds = booster.pandas_categorical or []
        if kinds and len(kinds) != len(coded):
            if not manifest.encodings:
                raise Refusal(
                    f"the file holds the categories of {len(kinds)} columns and does not say of which; give their "
                    'numbers in the manifest: {"encodings": {feature: {category: number}}}'
                )
            kinds = []
        codes = {
            name: {category: float(code) for code, category in enumerate(values)}
            for name, values in zip(coded, kinds, strict=False)
        }

        def matrix(frame: pd.DataFrame) -> Any:
            values = np.empty((len(frame), len(columns)))
            for place, name in enumerate(frame.columns):
                column = frame[name]
                if name in codes and name not in manifest.encodings:
                    column = column.map(codes[name])
                values[:, place] = column.to_numpy(np.float64)
            return values

        def predict(frame: pd.DataFrame, scale: Scale) -> Numbers:
            raw = scale is not Scale.VALUE
            out = np.asarray(
                booster.predict(matrix(frame), raw_score=raw, num_threads=1, validate_features=False), dtype=np.float64
            ).reshape(len(frame), -1)
            if scale is Scale.PROBABILITY:
                if objective == "multiclassova":
                    out = links.logistic(out * _sigmoid(said))
                    return np.asarray(out / out.sum(axis=1, keepdims=True))
                return links.softmax(out) if classes > 1 else links.logistic(out * _sigmoid(said))
            return out

        outputs, other, scales = links.outcome(
            classes=classes if classes > 1 else 0, binary=objective in ("binary", "cross_entropy"), manifest=manifest
        )
        if len(scales) == 1 and objective in ("poisson", "gamma", "tweedie", "cross_entropy_lambda"):
            scales = (Scale.MARGIN, Scale.VALUE)
        return Model(
            family=Family.LIGHTGBM,
            columns=columns,
            outputs=outputs,
            other=other,
            scales=scales,
            predict=predict,
            native=booster,
            matrix=matrix,
            trees=trees,
            categorical=frozenset(coded),
        )


class _Silent:
    """Takes what LightGBM says and drops it: unknown parameters of older versions are no news."""

    def info(self, _message: str) -> None:
        """Drop it."""

    def warning(self, _message: str) -> None:
        """Drop it."""


def _whole(said: dict[str, str], name: str) -> int:
    try:
        return int(said[name])
    except (KeyError, ValueError):
        raise Refusal(f"the file begins as LightGBM's text and does not say its {name}; it is damaged") from None


def _sigmoid(said: dict[str, str]) -> float:
    found = re.search(r"sigmoid:([0-9.eE+-]+)", said.get("objective", ""))
    return float(found[1]) if found else 1.0
