"""Ties a model's columns to what is logged: by name, through the manifest's encodings and groups."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from explainers.contract import Bound, Manifest, Model, Refusal


def bind(model: Model, manifest: Manifest) -> Bound:
    """Return the model with its inputs; raises Refusal where the manifest names columns that the model has not."""
    column_player: dict[str, str] = {}
    column_input: dict[str, str] = {}
    category_of: dict[str, str] = {}
    known = set(model.columns)
    for player, members in manifest.groups.items():
        for column in members:
            if column not in known:
                raise Refusal(f"the manifest's group {player!r} names {column!r}, which the model has not")
            if column in column_player:
                raise Refusal(f"the manifest puts {column!r} into two groups")
            column_player[column] = player
            if isinstance(members, Mapping):
                column_input[column] = player
                category_of[column] = members[column]
    for name in manifest.encodings:
        if name not in known:
            raise Refusal(f"the manifest encodes {name!r}, which the model has not")
    inputs: list[str] = []
    players: list[str] = []
    parts: list[int] = []
    credit: list[int] = []
    for column in model.columns:
        player, given = column_player.get(column, column), column_input.get(column, column)
        if player not in players:
            players.append(player)
        if given not in inputs:
            inputs.append(given)
            parts.append(players.index(player))
        credit.append(players.index(player))
    return Bound(
        model=model,
        inputs=tuple(inputs),
        players=tuple(players),
        parts=tuple(parts),
        credit=tuple(credit),
        encode=_encoder(model, manifest, column_input, category_of),
    )


def _encoder(
    model: Model, manifest: Manifest, column_input: Mapping[str, str], category_of: Mapping[str, str]
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    if not column_input and not manifest.encodings:
        return lambda frame: frame[list(model.columns)]

    def encode(frame: pd.DataFrame) -> pd.DataFrame:
        data: dict[str, Any] = {}
        for column in model.columns:
            if column in category_of:
                given = frame[column_input[column]].astype(object)
                data[column] = (given == category_of[column]).to_numpy(np.float64)
            elif column in manifest.encodings:
                data[column] = frame[column].map(manifest.encodings[column]).to_numpy(np.float64)
            else:
                data[column] = frame[column].to_numpy()
        return pd.DataFrame(data, index=frame.index)

    return encode


def arranged(bound: Bound, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the inputs of some logged rows in the model's order; raises Refusal where a column is missing."""
    missing = [name for name in bound.inputs if name not in frame.columns]
    if missing:
        there = ", ".join(map(repr, list(frame.columns)[:10]))
        more = " and more" if len(missing) > 5 else ""
        raise Refusal(
            f"the model takes {', '.join(map(repr, missing[:5]))}{more}, which the rows do not have (they have {there}"
            f"{', …' if len(frame.columns) > 10 else ''}); columns are matched by name"
        )
    return frame[list(bound.inputs)].reset_index(drop=True)
