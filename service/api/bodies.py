"""What request bodies share: unknown members are refused, and so is what no database keeps as text."""

import math
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from service.api.problems import faults_of, refused
from service.problems import Problem
from service.words import parse_duration, parse_time, text_of

DEEPEST = 32


def _checked(value: object, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("text may not hold NUL")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("text holds half of a surrogate pair") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("numbers are finite")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("whole numbers have at most 64 bits")
    elif isinstance(value, dict):
        for name, each in value.items():
            _checked(name, depth + 1)
            _checked(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _checked(each, depth + 1)


class Part(BaseModel):
    """An object inside a body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Body(Part):
    """A whole body."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        _checked(value)
        return value


def validated(kind: type[Body], document: object, prefix: str = "") -> Any:
    """Return a document as a body of that kind; its faults are a 422 with pointers under ``prefix``."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise refused(faults_of(error.errors(), prefix)) from error


def _duration(text: str) -> str:
    try:
        length = parse_duration(text)
    except Problem as problem:
        raise ValueError(problem.detail) from problem
    if not length:
        raise ValueError("a duration is longer than nothing")
    return text


def _time(text: str) -> str:
    try:
        parse_time(text)
    except Problem as problem:
        raise ValueError(problem.detail) from problem
    return text


def _spelt(value: object) -> object:
    return text_of(value) if isinstance(value, bool | int | float) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, BeforeValidator(_spelt), StringConstraints(min_length=1, max_length=256)]
"""A class, in the one spelling that labels have."""
Duration = Annotated[str, StringConstraints(max_length=16), AfterValidator(_duration)]
Time = Annotated[str, StringConstraints(max_length=64), AfterValidator(_time)]
