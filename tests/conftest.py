"""Hypothesis: the same examples each time, and no deadlines: a kernel may compile within one."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "numba-lstm",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("numba-lstm")
