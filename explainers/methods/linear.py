"""Linear models in closed form: each input's coefficient times how far it is from the background's mean."""

import math
from typing import Literal

import numpy as np

from explainers.contract import Attributions, Family, Method, Numbers, Options, Question, Scale

EXACT_COLUMNS = 12
PERMUTATIONS = 1000


class LinearOptions(Options):
    """How inputs that are not known are thought of."""

    dependence: Literal["independent", "correlated"] = "independent"
    """``independent`` keeps the background's values; ``correlated`` expects them given the known ones (Gaussian)."""


class Linear(Method):
    """Exact for a linear predictor; of correlated columns exact up to twelve, beyond by sampled orders."""

    name = "linear"
    title = "linear, in closed form"
    source = "Lundberg and Lee (2017), Corollary 1; Aas, Jullum and Løland (2021) for correlated columns"
    options = LinearOptions

    def refusal(self, question: Question) -> str:
        """Return why not: only linear predictors, and their margin or value."""
        model = question.bound.model
        if model.family is not Family.LINEAR:
            return "the closed form is for linear models"
        if question.scale is Scale.PROBABILITY:
            return "a linear model is linear in its margin, not in the probability"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return coefficient times distance from the mean, folded to the players."""
        bound = question.bound
        model = bound.model
        assert model.matrix is not None  # noqa: S101 - every linear model has one
        options = LinearOptions.model_validate(dict(question.options))
        frame = bound.encode(question.rows)
        rows = np.asarray(model.matrix(frame), dtype=np.float64)
        background = np.asarray(model.matrix(bound.encode(question.background)), dtype=np.float64)
        weights = np.atleast_2d(np.asarray(model.native.coef_, dtype=np.float64)).reshape(-1, rows.shape[1])
        intercept = np.broadcast_to(np.asarray(model.native.intercept_, dtype=np.float64), (weights.shape[0],))
        mean = background.mean(axis=0)
        away = rows - mean
        exact, note = True, ""
        if options.dependence == "independent":
            values = away[:, :, None] * weights.T[None]
        else:
            shares, exact = _shares(weights, background, question.generator())
            values = np.einsum("nq,opq->npo", away, shares)
            note = "" if exact else f"orders of the columns were sampled ({PERMUTATIONS})"
        return Attributions(
            values=bound.folded(values),
            base=mean @ weights.T + intercept,
            predictions=model.predict(frame, question.scale),
            exact=exact,
            evaluations=len(frame),
            note=note,
            background=len(question.background),
        )


def _shares(weights: Numbers, background: Numbers, generator: np.random.Generator) -> tuple[Numbers, bool]:
    """Return A of shape (outputs, columns, columns) with attributions = A @ (x - mean), and whether it is exact.

    With S known, the others are expected at C_RS C_SS^-1 (x_S - mean): the value of S is a_S . (x - mean), so the
    Shapley values are linear in x - mean too.
    """
    count = background.shape[1]
    covariance = np.atleast_2d(np.cov(background, rowvar=False)) if len(background) > 1 else np.eye(count)
    covariance += 1e-10 * np.trace(covariance) / count * np.eye(count)
    known: dict[bytes, Numbers] = {}

    def value(chosen: np.ndarray) -> Numbers:
        key = chosen.tobytes()
        if key not in known:
            out = np.zeros_like(weights)
            if chosen.any():
                gain = np.linalg.solve(covariance[np.ix_(chosen, chosen)], covariance[np.ix_(chosen, ~chosen)])
                out[:, chosen] = weights[:, chosen] + weights[:, ~chosen] @ gain.T
            known[key] = out
        return known[key]

    shares = np.zeros((weights.shape[0], count, count))
    if count <= EXACT_COLUMNS:
        for code in range(2**count):
            chosen = np.array([code >> place & 1 for place in range(count)], dtype=bool)
            size = int(chosen.sum())
            for place in np.flatnonzero(~chosen):
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                more = chosen.copy()
                more[place] = True
                shares[:, place] += weight * (value(more) - value(chosen))
        return shares, True
    for _ in range(PERMUTATIONS // 2):
        order = generator.permutation(count)
        for direction in (order, order[::-1]):
            chosen = np.zeros(count, dtype=bool)
            before = value(chosen)
            for place in direction:
                chosen = chosen.copy()
                chosen[place] = True
                known.clear()
                after = value(chosen)
                shares[:, place] += after - before
                before = after
    return shares / (PERMUTATIONS // 2 * 2), False
