"""How hypothesis chooses its examples: the same ones in every run, and as slowly as the machine likes."""

from hypothesis import HealthCheck, settings

SAME = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
