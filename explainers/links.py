"""What loaders share: outputs of a task, link functions, and whose columns are whose."""

from collections.abc import Sequence

import numpy as np
import scipy.special

from explainers.contract import Manifest, Numbers, Refusal, Scale


def logistic(margin: Numbers) -> Numbers:
    """Return the chance that a margin in log-odds stands for."""
    return np.asarray(scipy.special.expit(margin), dtype=np.float64)


def softmax(margin: Numbers) -> Numbers:
    """Return the chances of the classes, shape (rows, classes)."""
    return np.asarray(scipy.special.softmax(margin, axis=1), dtype=np.float64)


def outcome(
    *, classes: int, binary: bool, manifest: Manifest, named: Sequence[object] = ()
) -> tuple[tuple[str, ...], str | None, tuple[Scale, ...]]:
    """Return the names of the outputs, the class that a single one is not about, and the scales that there are.

    ``classes`` is the number of outputs of a many-class model (0 or 1: none such), ``named`` what the file calls them.
    """
    from_file = tuple(_text(name) for name in named)
    names = manifest.classes or from_file
    if classes > 1:
        if names and len(names) != classes:
            raise Refusal(f"the model has {classes} classes and {len(names)} are named: {', '.join(names)}")
        return names or tuple(str(i) for i in range(classes)), None, (Scale.MARGIN, Scale.PROBABILITY)
    if binary:
        if names and len(names) != 2:
            raise Refusal(f"the model tells two classes apart and {len(names)} are named: {', '.join(names)}")
        other, positive = from_file or manifest.classes or ("0", "1")
        if not from_file and manifest.positive_class and manifest.positive_class == other:
            other, positive = positive, other
        return (positive,), other, (Scale.MARGIN, Scale.PROBABILITY)
    return ("value",), None, (Scale.VALUE,)


def columns(named: Sequence[str] | None, count: int, manifest: Manifest, *, made_up: bool = False) -> tuple[str, ...]:
    """Return the model's columns in its order; ``made_up`` says that the names are the library's, not the owner's."""
    declared = manifest.columns
    if declared is None:
        if named is None:
            raise Refusal(
                f"the file does not name its {count} columns, and a guess could give a wrong number; say them in the "
                'manifest, in the model\'s order: ?manifest={"columns": [...]}'
            )
        return tuple(named)
    if len(declared) != count:
        raise Refusal(f"the manifest names {len(declared)} columns and the model has {count}")
    if len(set(declared)) != len(declared):
        raise Refusal("the manifest names a column twice")
    if named is not None and not made_up and tuple(named) != tuple(declared):
        place = next(i for i, (a, b) in enumerate(zip(named, declared, strict=True)) if a != b)
        raise Refusal(
            f"the manifest's column {place + 1} is {declared[place]!r} and the file's is {named[place]!r}; the order "
            "and the names in the file count, so leave `columns` out or correct it"
        )
    return tuple(declared)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
