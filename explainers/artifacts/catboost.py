"""CatBoost's own binary format."""

from typing import Any

import numpy as np
import pandas as pd

from explainers import links
from explainers.contract import Artifact, Family, Manifest, Model, Numbers, Refusal, Scale


class CatBoostArtifact(Artifact):
    """A model as `save_model(..., format="cbm")` writes it."""

    name = "catboost"
    title = "CatBoost cbm"
    source = "CatBoost, save_model"
    libraries = ("catboost",)

    def recognises(self, data: bytes) -> bool:
        """Return whether it begins with ``CBM1``."""
        return data[:4] == b"CBM1"

    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the model."""
        size = int.from_bytes(data[4:8], "little")
        if size + 8 > len(data):
            raise Refusal("the file begins as CatBoost's and ends too early; it is cut off or damaged")
        import catboost

        model = catboost.CatBoost({"thread_count": 1, "allow_writing_files": False})
        try:
            model.load_model(blob=data)
        except (catboost.CatBoostError, ValueError, UnicodeDecodeError) as error:
            raise Refusal(f"CatBoost cannot read this file; it may be damaged: {str(error)[:200]}") from None
        names = list(model.feature_names_)
        made_up = names == [str(i) for i in range(len(names))]
        columns = links.columns(None if made_up else names, len(names), manifest)
        places = list(model.get_cat_feature_indices())
        texts = [*model.get_text_feature_indices(), *model.get_embedding_feature_indices()]
        if texts:
            raise Refusal("CatBoost models with text or embedding columns are explained by posted attributions")
        classes = list(model.classes_) if model.classes_ is not None else []

        def matrix(frame: pd.DataFrame) -> Any:
            data = frame.set_axis(names, axis=1)
            for place in places:
                column = data[names[place]]
                data = data.assign(**{names[place]: [_category(value) for value in column]})
            return catboost.Pool(data, cat_features=places, thread_count=1)

        def predict(frame: pd.DataFrame, scale: Scale) -> Numbers:
            kind = {Scale.MARGIN: "RawFormulaVal", Scale.PROBABILITY: "Probability", Scale.VALUE: "Exponent"}[scale]
            if scale is Scale.VALUE and not counts:
                kind = "RawFormulaVal"
            out = np.asarray(model.predict(matrix(frame), prediction_type=kind, thread_count=1), dtype=np.float64)
            out = out.reshape(len(frame), -1)
            return out[:, 1:] if scale is Scale.PROBABILITY and len(classes) == 2 else out

        loss = str(model.get_all_params().get("loss_function", "")) if model.is_fitted() else ""
        counts = loss.startswith(("Poisson", "Tweedie"))
        outputs, other, scales = links.outcome(
            classes=len(classes) if len(classes) > 2 else 0, binary=len(classes) == 2, manifest=manifest, named=classes
        )
        if len(scales) == 1 and counts:
            scales = (Scale.MARGIN, Scale.VALUE)
        return Model(
            family=Family.CATBOOST,
            columns=columns,
            outputs=outputs,
            other=other,
            scales=scales,
            predict=predict,
            native=model,
            matrix=matrix,
            trees=model.tree_count_,
            single=True,
            categorical=frozenset(columns[place] for place in places),
        )


def _category(value: object) -> str:
    """Return a category as CatBoost reads it: text, whole numbers without a fraction."""
    if isinstance(value, float):
        return "nan" if np.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return "nan" if value is None else str(value)
