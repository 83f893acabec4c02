"""Hypothesis' profiles: `dev` by default, the others by --hypothesis-profile; and the garbage collector's rounds.

`ci` draws the same examples each time, `brief` few of them (for versions, not for kernels), `thorough` thousands.
"""

import gc

from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=24, derandomize=True, print_blob=True)
settings.register_profile("brief", settings.get_profile("ci"), max_examples=15)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5000)
settings.load_profile("dev")


def pytest_collection_finish():
    """Let the garbage collector look seldom at the 400,000 objects that were imported and collected.

    It took a seventh of the suite's time.
    """
    gc.set_threshold(100_000, 20, 100)
