"""Hypothesis' profiles: `dev` by default, `ci` and `thorough` by --hypothesis-profile."""

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=150, derandomize=True, print_blob=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5000)
settings.load_profile("dev")
