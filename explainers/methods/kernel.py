"""Kernel SHAP: a weighted regression on sampled coalitions, with the error that groups of them tell."""

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from explainers.coalitions import Game
from explainers.contract import Attributions, Method, Numbers, Options, Question

GROUPS = 10


class KernelOptions(Options):
    """How much is spent."""

    samples: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    """Coalitions of a row; 2 x inputs + 2,048 where not given. Where that is all there are, the result is exact."""


class Kernel(Method):
    """Least squares with the Shapley kernel, paired samples, and efficiency as a constraint."""

    name = "kernel"
    title = "Kernel SHAP"
    source = "Lundberg and Lee (2017), A unified approach to interpreting model predictions; Covert and Lee (2021)"
    options = KernelOptions

    def refusal(self, question: Question) -> str:
        """Return why not: a background is needed."""
        return "" if len(question.background) else "a background is needed: activate a baseline with rows"

    def attribute(self, question: Question) -> Attributions:
        """Return the regression's values with their standard errors by the jackknife over groups of coalitions."""
        options = KernelOptions.model_validate(dict(question.options))
        game, generator = Game.of(question), question.generator()
        players = game.players
        base, full = game.base(), game.predict(question.rows)
        samples = options.samples or 2 * players + 2048
        if players == 1:
            return Attributions(
                values=(full - base)[:, None, :],
                base=base,
                predictions=full,
                evaluations=game.evaluations,
                background=len(question.background),
            )
        exact = players < 25 and 2**players - 2 <= samples
        values, errors = [], []
        for place in range(len(question.rows)):
            row = question.rows.iloc[place : place + 1]
            coalitions, weights = _all(players) if exact else _sampled(players, samples, generator)
            told = game.values(row, coalitions[None])[0]
            target = told - base
            one = _solved(coalitions, weights, target, full[place] - base)
            values.append(one)
            errors.append(np.zeros_like(one) if exact else _error(coalitions, weights, target, full[place] - base))
        return Attributions(
            values=np.array(values),
            base=base,
            predictions=full,
            error=None if exact else np.array(errors),
            exact=exact,
            evaluations=game.evaluations,
            note=f"{'all' if exact else 'sampled'} coalitions over {len(question.background)} background rows",
            background=len(question.background),
        )


def _all(players: int) -> tuple[np.ndarray, Numbers]:
    codes = np.arange(1, 2**players - 1)
    coalitions = (codes[:, None] >> np.arange(players) & 1).astype(bool)
    sizes = coalitions.sum(axis=1)
    kernel = np.array([0.0, *((players - 1) / (math.comb(players, s) * s * (players - s)) for s in range(1, players))])
    return coalitions, kernel[sizes]


def _sampled(players: int, samples: int, generator: np.random.Generator) -> tuple[np.ndarray, Numbers]:
    """Return coalitions drawn by the kernel, each followed by its complement; then all weigh the same."""
    sizes = np.arange(1, players)
    chance = 1 / (sizes * (players - sizes))
    drawn = generator.choice(sizes, size=samples // 2, p=chance / chance.sum())
    rank = np.argsort(np.argsort(generator.random((drawn.size, players)), axis=1), axis=1)
    half = rank < drawn[:, None]
    coalitions = np.stack([half, ~half], axis=1).reshape(-1, players)
    return coalitions, np.ones(len(coalitions))


def _solved(coalitions: np.ndarray, weights: Numbers, target: Numbers, total: Numbers) -> Numbers:
    """Return the values of shape (players, outputs) that fit best and add up to ``total``."""
    last = coalitions[:, -1].astype(np.float64)
    design = coalitions[:, :-1] - last[:, None]
    aim = target - last[:, None] * total[None]
    scaled = design * weights[:, None]
    head = np.linalg.lstsq(design.T @ scaled, scaled.T @ aim, rcond=None)[0]
    return np.vstack([head, (total - head.sum(axis=0))[None]])


def _error(coalitions: np.ndarray, weights: Numbers, target: Numbers, total: Numbers) -> Numbers:
    """Return standard errors: the jackknife that leaves out a group of pairs at a time."""
    group = np.arange(len(coalitions)) // 2 % GROUPS
    without = np.array(
        [_solved(coalitions[group != g], weights[group != g], target[group != g], total) for g in range(GROUPS)]
    )
    return np.asarray(np.sqrt((GROUPS - 1) / GROUPS * ((without - without.mean(axis=0)) ** 2).sum(axis=0)))
