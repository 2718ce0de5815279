"""Explains rows of a model: chooses the method, asserts that it adds up, and says which it was and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from explainers import discovery
from explainers.binding import arranged
from explainers.contract import (
    BOOSTERS,
    Attributions,
    Bound,
    Family,
    Method,
    NotAdditiveError,
    Numbers,
    Question,
    Refusal,
    Scale,
)

FAST_FROM = 2500
"""From so many rows on WOODELF's fixed cost (about 4 s for 500 trees of depth 6) is won back."""
ASKED_FROM = 250
"""The same where a background of 100 rows is asked, which costs TreeExplainer about 20 ms a row."""
SHALLOW = 8
"""The deepest tree of a forest that WOODELF explains faster than TreeExplainer."""
FEW_PLAYERS = 8
"""Up to so many inputs all coalitions cost no more than a few permutations."""
BACKGROUND = 100


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Attributions, the method that gave them and why it was chosen, on which scale."""

    attributions: Attributions
    method: str
    why: str
    scale: Scale
    players: tuple[str, ...]
    outputs: tuple[str, ...]
    other: str | None


def scale_of(bound: Bound, wanted: str | None) -> Scale:
    """Return the scale to explain on; the model's own where none is asked for."""
    scales = bound.model.scales
    if wanted is None:
        return scales[0]
    if wanted not in [scale.value for scale in scales]:
        raise Refusal(f"this model's output is told as {' or '.join(scale.value for scale in scales)}, not as {wanted}")
    return Scale(wanted)


def ways(question: Question, *, whole: bool = False) -> list[tuple[str, str]]:
    """Return the methods that `auto` would try for a question, best first, each with the reason.

    With ``whole`` texts are explained as wholes, not by their parts.
    """
    model, rows = question.bound.model, len(question.rows)
    inside = question.scale is model.scales[0]
    asks = question.options.get("perturbation") == "interventional"
    many = rows >= (ASKED_FROM if asks else FAST_FROM)
    found: list[tuple[str, str]] = []
    if model.texts and not whole:
        names = ", ".join(name for name in question.bound.inputs if name in model.texts)
        found.append(("tokens", f"{names} is text, which is explained by its tokens"))
    if model.family is Family.LINEAR and question.scale is not Scale.PROBABILITY and len(question.background):
        found.append(("linear", "the model is linear, so the closed form is exact and fastest"))
    elif model.family in BOOSTERS and inside:
        if many and model.family is not Family.CATBOOST and not model.categorical:
            found.append(("woodelf", f"exact, and faster than the booster's own from {FAST_FROM:,} rows on ({rows:,})"))
        found.append(("native", f"the booster's own contributions are exact and fastest for {rows:,} row(s)"))
    elif model.family is Family.TREES and inside:
        if many and model.depth is not None and model.depth <= SHALLOW:
            found.append(("woodelf", f"exact, and fastest for {rows:,} rows of trees of depth {model.depth}"))
        found.append(("tree", "exact for scikit-learn's trees"))
    if asks and model.family in (Family.XGBOOST, Family.LIGHTGBM):
        found.append(("tree", "exact against the background"))
    players = len(question.bound.players)
    if players <= FEW_PLAYERS:
        found.append(("enumeration", f"all 2^{players} coalitions of {players} input(s) can be asked, which is exact"))
    outside = (
        "nothing is known of the model's inside"
        if model.family is Family.BLACK_BOX
        else (f"the inside of the model does not add up to its {question.scale.value}")
    )
    found.append(("permutation", f"{model.note or outside}; antithetic permutations need the fewest predictions"))
    return found


def background_of(frame: pd.DataFrame, seed: int, rows: int = BACKGROUND) -> pd.DataFrame:
    """Return at most so many rows of a frame, the same for the same seed, in their order."""
    if len(frame) <= rows:
        return frame
    chosen = np.sort(np.random.default_rng([seed, 0xBAC]).choice(len(frame), rows, replace=False))
    return frame.iloc[chosen].reset_index(drop=True)


def explain(
    bound: Bound,
    rows: pd.DataFrame,
    background: pd.DataFrame,
    *,
    method: str = "auto",
    scale: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    background_rows: int = BACKGROUND,
    whole: bool = False,
) -> Explained:
    """Explain rows of logged inputs, columns matched by name; raises Refusal with a sentence where that cannot be.

    Of the methods that `auto` would take, the first that has all ``options`` answers. With ``whole`` it explains texts
    as wholes.
    """
    if not len(rows):
        raise Refusal("there is no row to explain")
    question = Question(
        bound=bound,
        rows=arranged(bound, rows),
        background=background_of(arranged(bound, background), seed, background_rows)
        if len(background)
        else pd.DataFrame(columns=list(bound.inputs)),
        scale=scale_of(bound, scale),
        seed=seed,
        options=dict(options or {}),
    )
    if method != "auto":
        return _told(question, method, "it was asked for", _answered(question, method))
    given_up, last = "", ""
    for name, why in ways(question, whole=whole):
        known = set(discovery.methods()[name].options.model_fields)
        if lacking := sorted(set(question.options) - known):
            last = last or f"no method that auto would take for this model has the option {lacking[0]!r}"
            continue
        try:
            found = _answered(question, name)
        except NotAdditiveError as error:
            given_up = f"{given_up}{name} was given up because its values do not add up ({error}); "
            continue
        except Refusal as refusal:
            last = str(refusal)
            continue
        return _told(question, name, given_up + why, found)
    raise Refusal(last or given_up)


def _answered(question: Question, name: str) -> Attributions:
    known = discovery.methods()
    if name not in known:
        raise Refusal(f"there is no method {name!r}; there are auto, {', '.join(known)}")
    method = known[name]
    try:
        method.options.model_validate(dict(question.options))
    except ValidationError as error:
        fault = error.errors()[0]
        raise Refusal(f"the method {name} does not take {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if reason := method.refusal(question):
        raise Refusal(reason)
    found = method.attribute(question)
    check(method, question, found)
    return found


def check(method: Method, question: Question, found: Attributions) -> None:
    """Assert that every number is finite and that base and attributions add up to each prediction."""
    if not (np.isfinite(found.values).all() and np.isfinite(found.predictions).all() and np.isfinite(found.base).all()):
        raise NotAdditiveError("a value is not finite")
    if not method.additive:
        return
    off = np.abs(found.base + found.values.sum(axis=1) - found.predictions)
    size = 1 + np.abs(found.predictions) + np.abs(found.values).sum(axis=1) + np.abs(found.base)
    allowed = max(method.tolerance, 2e-5 if question.bound.model.single else 0.0) * size
    if (off > allowed).any():
        raise NotAdditiveError(f"base and attributions of {method.name} miss the prediction by {float(off.max()):.2g}")


def _told(question: Question, name: str, why: str, found: Attributions) -> Explained:
    model = question.bound.model
    return Explained(
        attributions=found,
        method=name,
        why=why,
        scale=question.scale,
        players=question.bound.players,
        outputs=model.outputs,
        other=model.other,
    )


def of_class(explained: Explained, wanted: str | None) -> tuple[Numbers, Numbers, Numbers, Numbers | None, list[str]]:
    """Return values (rows, players), base (rows,), predictions (rows,), errors and class of each row.

    Without a class: the model's only output, else the class that is predicted for each row. Of two classes the other's
    values are the negative ones, its chance and base one less them.
    """
    found = explained.attributions
    rows = np.arange(len(found.predictions))
    place, sign, names = _chosen(explained, wanted)
    least = 1.0 if sign < 0 and explained.scale is Scale.PROBABILITY else 0.0
    return (
        sign * found.values[rows, :, place],
        least + sign * found.base[place],
        least + sign * found.predictions[rows, place],
        None if found.error is None else found.error[rows, :, place],
        names,
    )


def pieces_of(explained: Explained, wanted: str | None) -> list[dict[str, list[dict[str, Any]]]]:
    """Return of each row, by input, the parts of its texts with what they added to the class; see `of_class`."""
    place, sign, _ = _chosen(explained, wanted)
    return [
        {
            name: [
                {
                    "text": piece.text,
                    "start": piece.start,
                    "end": piece.end,
                    "attribution": float(sign * piece.values[at]),
                    "error": float(piece.error[at]),
                }
                for piece in pieces
            ]
            for name, pieces in row.items()
        }
        for row, at in zip(explained.attributions.pieces, place, strict=False)
    ]


def _chosen(explained: Explained, wanted: str | None) -> tuple[NDArray[np.intp], float, list[str]]:
    """Return which output is told of each row, its sign, and of which class it speaks."""
    found, outputs = explained.attributions, explained.outputs
    count = len(found.predictions)
    if wanted is not None and wanted == explained.other:
        return np.zeros(count, dtype=np.intp), -1.0, [wanted] * count
    if wanted is not None and wanted not in outputs:
        others = [*outputs, *([explained.other] if explained.other else [])]
        raise Refusal(f"the model has no class {wanted!r}; it has {', '.join(others)}")
    place = found.predictions.argmax(axis=1) if wanted is None else np.full(count, outputs.index(wanted))
    return place, 1.0, [outputs[at] for at in place]
