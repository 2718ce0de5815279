"""XGBoost's own JSON and UBJSON."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import Artifact, Family, Manifest, Model, Numbers, Refusal, Scale
from explainers.loading import within


class XGBoostArtifact(Artifact):
    """A booster as XGBoost 1.0 and later save it."""

    name = "xgboost"
    title = "XGBoost json or ubj"
    source = "XGBoost, Introduction to Model IO"
    libraries = ("xgboost",)

    def recognises(self, data: bytes) -> bool:
        """Return whether it begins as a JSON or UBJSON object with a learner, or is a binary of before 1.0."""
        head = data[:65536]
        return (head.lstrip()[:1] == b"{" and b"learner" in head) or _is_old(data)

    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the booster; old binaries are refused."""
        if _is_old(data):
            raise Refusal(
                "this is XGBoost's old binary format, which XGBoost itself no longer reads since 3.1; load it with an "
                "XGBoost before 3.1 (pip install 'xgboost<3.1') and save it with booster.save_model('model.json')"
            )
        _check_size(data)
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(bytearray(data))
            learner = json.loads(booster.save_config())["learner"]
        except (xgboost.core.XGBoostError, ValueError, KeyError, UnicodeDecodeError) as error:
            said = " ".join(str(error).split("Stack trace", 1)[0].split())[:200]
            raise Refusal(f"XGBoost cannot read this file; it may be cut off or damaged: {said}") from None
        objective = learner["objective"]["name"]
        kinds = tuple(booster.feature_types or ())
        columns = links.columns(booster.feature_names, booster.num_features(), manifest)
        within(trees=booster.num_boosted_rounds(), columns=len(columns))
        classes = int(learner["learner_model_param"].get("num_class") or 0)
        categorical = frozenset(name for name, kind in zip(columns, kinds, strict=False) if kind == "c")

        def matrix(frame: pd.DataFrame) -> Any:
            data = frame.set_axis(booster.feature_names or [f"f{i}" for i in range(len(columns))], axis=1)
            if categorical:
                for place, name in enumerate(columns):
                    column = data.columns[place]
                    if name in categorical and not pd.api.types.is_numeric_dtype(data[column]):
                        data = data.assign(**{column: data[column].astype("category")})
            matrix = xgboost.DMatrix(
                data if categorical else data.to_numpy(np.float32),
                nthread=1,
                enable_categorical=bool(categorical),
                feature_types=list(kinds) or None if not categorical else None,
            )
            if booster.feature_names:
                matrix.feature_names = booster.feature_names
            return matrix

        def predict(frame: pd.DataFrame, scale: Scale) -> Numbers:
            margin = scale is not Scale.VALUE or objective.startswith("rank:")
            out = np.asarray(booster.predict(matrix(frame), output_margin=margin), dtype=np.float64)
            out = out.reshape(len(frame), -1)
            if scale is Scale.PROBABILITY:
                return links.softmax(out) if classes > 1 else links.logistic(out)
            return out

        outputs, other, scales = links.outcome(
            classes=classes, binary=objective.startswith(("binary:", "reg:logistic")), manifest=manifest
        )
        if len(scales) == 1 and objective not in _IDENTITY:
            scales = (Scale.MARGIN, Scale.VALUE)
        return Model(
            family=Family.XGBOOST,
            columns=columns,
            outputs=outputs,
            other=other,
            scales=scales,
            predict=predict,
            native=booster,
            matrix=matrix,
            trees=booster.num_boosted_rounds() * max(classes, 1),
            single=True,
            categorical=categorical,
        )


_IDENTITY = ("reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror")


def _is_old(data: bytes) -> bool:
    """Return whether these are the raw structs (`LearnerModelParam` first) or the `binf` files of before 1.0."""
    if data.startswith(b"binf"):
        return True
    return len(data) > 136 and data[:1] != b"{" and data[8:64].count(0) > 50


def _check_size(data: bytes) -> None:
    """Refuse absurd counts before XGBoost makes room for them."""
    for word, kind in ((b"num_feature", "columns"), (b"num_trees", "trees")):
        for match in re.finditer(word + rb'"?\s*:?\s*(?:S[iUlIL][\x00-\xff]{1,8}?)?"?(\d{1,20})', data[:10_000_000]):
            within(**{kind: int(match[1])})
