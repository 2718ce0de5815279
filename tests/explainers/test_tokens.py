"""Texts explained by their tokens: against the definition, against shap's own text masker, and by what must hold."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from explainers.binding import bind
from explainers.contract import Bound, Family, Manifest, Model, Refusal, Scale
from explainers.explanation import explain, of_class, pieces_of
from explainers.methods.tokens import TokenOptions, cut, masked

SHORT = "not a great film"
LONG = "The film was not great at all, and it was long: rather bad acting, a bad script, and not one good joke in it."


def liking(text: object) -> float:
    """Return a chance from words that count alone and two that count together."""
    words = re.findall(r"\w+", text) if isinstance(text, str) else []
    worth = {"great": 2.0, "good": 1.0, "bad": -1.5, "not": -0.5}
    told = sum(worth.get(word, 0.0) for word in words) - 3.0 * ("not" in words and "great" in words)
    return float(1 / (1 + np.exp(-told)))


def served(*columns: str) -> Bound:
    """Return a model of a text, and of the number of stars where there is one."""

    def predict(frame: pd.DataFrame, scale: Scale) -> np.ndarray:
        told = np.array([liking(text) for text in frame["text"]])
        return (told * (1 + frame["stars"].to_numpy(np.float64)) if "stars" in frame else told)[:, None]

    model = Model(
        family=Family.BLACK_BOX, columns=columns, outputs=("1",), other="0", scales=(Scale.PROBABILITY,),
        predict=predict, texts=frozenset({"text"}),
    )  # fmt: skip
    return bind(model, Manifest())


def texts(*given: str | None) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(given, dtype=object)})


def none() -> pd.DataFrame:
    return texts().head(0)


def test_a_short_text_has_the_shapley_values_of_its_words() -> None:
    words = SHORT.split()
    worth = {
        chosen: liking(" ".join(words[place] for place in chosen))
        for size in range(5)
        for chosen in itertools.combinations(range(4), size)
    }
    expected = np.zeros(4)
    for player in range(4):
        for chosen, value in worth.items():
            if player not in chosen:
                weight = math.factorial(len(chosen)) * math.factorial(3 - len(chosen)) / math.factorial(4)
                expected[player] += weight * (worth[tuple(sorted((*chosen, player)))] - value)
    found = explain(served("text"), texts(SHORT), none())
    assert (found.method, found.attributions.exact) == ("tokens", True)
    assert "is text, which is explained by its tokens" in found.why
    parts = pieces_of(found, None)[0]["text"]
    assert [(part["text"], part["start"]) for part in parts] == [("not", 0), ("a", 4), ("great", 6), ("film", 12)]
    assert [part["attribution"] for part in parts] == pytest.approx(expected)
    assert found.attributions.values[0, 0, 0] == pytest.approx(liking(SHORT) - 0.5)  # no word at all: 1 / 2
    assert [part["attribution"] for part in pieces_of(found, "0")[0]["text"]] == pytest.approx(-expected)


def test_texts_are_masked_as_shap_masks_them() -> None:
    import shap

    masker = shap.maskers.Text(r"\W+", mask_token="...")
    spans = cut(SHORT, TokenOptions())
    for coalition in itertools.product([False, True], repeat=4):
        known = np.array(coalition)
        theirs = str(masker(known, SHORT)[0][0])
        assert str(masked(SHORT, spans, known, "...")).split() == theirs.replace("...", " ... ").split()


def test_a_long_text_is_estimated_within_budget_and_stated_error() -> None:
    reference = pieces_of(explain(served("text"), texts(LONG), none(), options={"budget": 6000}), None)[0]["text"]
    exact = np.array([part["attribution"] for part in reference])
    found = explain(served("text"), texts(LONG), none(), options={"budget": 600}, seed=3)
    parts = pieces_of(found, None)[0]["text"]
    values, errors = (np.array([part[name] for part in parts]) for name in ("attribution", "error"))
    assert not found.attributions.exact
    assert found.attributions.evaluations <= 600 + 2
    assert "antithetic pairs of orders of the parts, the largest standard error" in found.attributions.note
    assert (np.abs(values - exact) <= 4 * errors + 0.01).all()
    assert found.attributions.base[0] + values.sum() == pytest.approx(liking(LONG))
    silent = [part["attribution"] for part in parts if part["text"] in ("film", "long", ",", "it")]
    assert not any(silent)
    halved = explain(served("text"), texts(LONG), none(), options={"budget": 20_000, "error": errors.max() / 2})
    assert halved.attributions.evaluations < 20_000
    assert max(part["error"] for part in pieces_of(halved, None)[0]["text"]) <= errors.max() / 2
    once = explain(served("text"), texts(LONG), none(), options={"permutations": 1}).attributions.note
    assert "of a single pair that is half of how far its two ways are apart" in once
    assert "single pair" not in found.attributions.note
    again = explain(served("text"), texts(LONG), none(), options={"budget": 600}, seed=3)
    assert pieces_of(again, None) == pieces_of(found, None)


def test_other_inputs_play_along_as_wholes_against_the_background() -> None:
    rows = texts(SHORT, None, LONG).assign(stars=[2.0, 1.0, 0.5])
    background = texts("x", "y").assign(stars=[0.0, 1.0])
    found = explain(served("text", "stars"), rows, background)
    values, base, predictions, error, _ = of_class(found, None)
    assert base[0] == pytest.approx(0.5 * 1.5)  # the text masked, 0.5 x (1 + stars) over stars of 0 and 1
    assert base + values.sum(axis=1) == pytest.approx(predictions)
    assert values[1] == pytest.approx([0.0, 0.5 * 2.0 - 0.75])  # no text at all: the stars did it
    for row, told in zip(pieces_of(found, None), values, strict=True):
        assert sum(part["attribution"] for part in row["text"]) == pytest.approx(told[0])
    assert found.attributions.background == 2
    assert error is not None
    whole = explain(served("text", "stars"), rows, background, whole=True)
    assert (whole.method, whole.attributions.pieces) == ("enumeration", ())
    with pytest.raises(Refusal, match="a background is needed for the inputs that are no text"):
        explain(served("text", "stars"), rows, rows.head(0), method="tokens")


def test_texts_are_cut_and_masked_as_they_are_read() -> None:
    options = TokenOptions()
    assert ["don't 好的 go!"[start:end] for start, end in cut("don't 好的 go!", options)] == [
        "don't",
        "好",
        "的",
        "go",
        "!",
    ]
    two = "It rained. We left!"
    assert [two[a:b] for a, b in cut(two, TokenOptions(granularity="sentence"))] == ["It rained.", "We left!"]
    assert len(cut("word " * 1000, options)) == 200
    assert cut(None, options) == cut("", options) == [(0, 0)]
    spans = cut("great, not bad", options)  # great | , | not | bad
    known = np.array([True, False, True, False])
    assert masked("great, not bad", spans, known, "") == "great not"
    assert masked("great, not bad", spans, ~known, "[MASK]") == "[MASK] , [MASK] bad"
    assert masked("great, not bad", spans, np.array([True, False, False, True]), "[MASK]") == "great [MASK] bad"
    assert masked("great, not bad", spans, np.zeros(4, dtype=bool), "[MASK]") == "[MASK]"


def test_a_model_without_text_is_told_so() -> None:
    model = Model(
        family=Family.BLACK_BOX, columns=("a",), outputs=("value",), scales=(Scale.VALUE,),
        predict=lambda frame, _: frame.to_numpy(),
    )  # fmt: skip
    with pytest.raises(Refusal, match="the model takes no text"):
        explain(bind(model, Manifest()), pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": [1.0]}), method="tokens")
