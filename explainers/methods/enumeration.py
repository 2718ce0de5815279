"""Exact Shapley values by enumeration of every coalition, for models with few inputs."""

import numpy as np

from explainers.coalitions import Game, every, shapley
from explainers.contract import Attributions, Method, Question

MOST_PLAYERS = 13


class Enumeration(Method):
    """The definition itself: 2^players coalitions of each row, against the whole background."""

    name = "enumeration"
    title = "all coalitions"
    source = "Shapley (1953), A value for n-person games"

    def refusal(self, question: Question) -> str:
        """Return why not: the number of coalitions doubles with each input."""
        players = len(question.bound.players)
        if players > MOST_PLAYERS:
            return f"{players} inputs have 2^{players} coalitions; up to {MOST_PLAYERS} inputs are enumerated"
        return "" if len(question.background) else "a background is needed: activate a baseline with rows"

    def attribute(self, question: Question) -> Attributions:
        """Return the exact values of the interventional game."""
        game = Game.of(question)
        players = game.players
        coalitions = every(players)[None]
        told = [
            game.values(question.rows.iloc[place : place + 1], coalitions)[0] for place in range(len(question.rows))
        ]
        return Attributions(
            values=np.array([shapley(one, players) for one in told]),
            base=told[0][0],
            predictions=game.predict(question.rows),
            evaluations=game.evaluations,
            note=f"all {2**players} coalitions over {len(question.background)} background rows",
            background=len(question.background),
        )
