"""What smclarify says of tables that come as JSON on standard input; it runs in an environment of its own.

In: ``[{"facet": [0, 1, …], "label": […], "prediction": […], "stratum": […], "features": [[…], …]}, …]``, facet 1 the
group that is looked at. Out: per table the value of each metric by name, a text where smclarify raises, "inf" for
infinity.
"""

import json
import logging
import math
import sys
from typing import Any

import numpy as np
import pandas as pd
from smclarify.bias import metrics

logging.disable(logging.CRITICAL)


def values(table: dict[str, Any]) -> dict[str, Any]:
    """Return every metric of one table."""
    facet = pd.Series(table["facet"]).astype(bool)
    label = pd.Series(table["label"])
    given = {
        "feature": pd.Series(table["facet"]),
        "sensitive_facet_index": facet,
        "label": label,
        "positive_label_index": label == 1,
        "positive_predicted_label_index": pd.Series(table["prediction"]) == 1,
        "group_variable": pd.Series(table["stratum"]),
        "df": pd.DataFrame(table["features"]),
    }
    found = {}
    for metric in (*metrics.PRETRAINING_METRICS, *metrics.POSTTRAINING_METRICS):
        try:
            value = float(metrics.call_metric(metric, **given))
            found[metric.__name__] = value if math.isfinite(value) else str(value)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what it says
            found[metric.__name__] = f"error: {error}"
    return found


if __name__ == "__main__":
    np.seterr(all="ignore")
    json.dump([values(table) for table in json.load(sys.stdin)], sys.stdout)
