"""What smclarify takes for its metrics of each group's rows; it runs in its own environment (``make smclarify``).

``python _smclarify.py rows.npz`` with the arrays ``label`` and ``prediction`` (0, 1), ``stratum``, and by attribute the
group of each row; prints the processor seconds and how many values there were. The flip test, which looks for each
row's neighbours, is left out.
"""

import logging
import sys
import time

import numpy as np
import pandas as pd
from smclarify.bias import metrics

logging.disable(logging.CRITICAL)


def main() -> None:
    """Measure every group of every attribute against the rest."""
    np.seterr(all="ignore")
    held = dict(np.load(sys.argv[1]))
    label, prediction = pd.Series(held.pop("label")), pd.Series(held.pop("prediction"))
    stratum = pd.Series(held.pop("stratum"))
    start, count = time.process_time(), 0
    for values in held.values():
        for group in np.unique(values):
            given = {
                "feature": pd.Series(values),
                "sensitive_facet_index": pd.Series(values == group),
                "label": label,
                "positive_label_index": label == 1,
                "predicted_label": prediction,
                "positive_predicted_label_index": prediction == 1,
                "group_variable": stratum,
            }
            for metric in (*metrics.PRETRAINING_METRICS, *metrics.POSTTRAINING_METRICS):
                if metric.__name__ != "FT":
                    metrics.call_metric(metric, **given)
                    count += 1
    print(time.process_time() - start, count)


if __name__ == "__main__":
    main()
