"""What a run asks Evidently's stat tests for, answered with what is told of the rows that came for it."""

import numpy as np

from service.confinement import Answer, Request


def stat_tests(request: Request) -> Answer:
    """Answer the difference of the means of numbers, and refuse the rest."""
    scores = []
    for asked in request.document["asked"]:
        sides = [request.tables[side][asked["column"]] for side in ("baseline", "window")]
        told: dict[str, object] = {"n_baseline": len(sides[0]), "n_window": len(sides[1])}
        if asked["type"] == "numeric":
            old, new = (np.asarray(side, float) for side in sides)
            scores.append(told | {"score": float(new.mean() - old.mean())})
        else:
            scores.append(told | {"error": "these are no numbers"})
    return {"scores": scores}, {}
