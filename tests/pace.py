"""How fast this machine is: what takes a second of a processor elsewhere may take some more here."""

import time

USUALLY = 0.06
"""What the work below takes of a processor for which limits are written down, seconds."""


def slower() -> float:
    """Return how many times slower than that this machine is now; never less than 1."""
    began = time.thread_time()
    sum(number * number for number in range(600_000))
    return max(1.0, (time.thread_time() - began) / USUALLY)
