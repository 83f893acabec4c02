"""The library against its own past: what runs, and what it costs, on literal problems of well-known networks.

One thread throughout, for which the variables must be set before NumPy is imported.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"
