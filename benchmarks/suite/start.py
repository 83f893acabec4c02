"""What a call costs besides its arithmetic: importing, choosing, compiling."""

import subprocess
import sys
import tempfile

import numpy as np

import convkernels as ck

from .calls import skip_what_is_declined

PROBLEM = "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"
READY = """
import os, tempfile
os.environ["NUMBA_CACHE_DIR"] = {cache}
import numpy as np
import convkernels as ck
x, w = np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
"""
CALL = "ck.conv2d(x, w, padding=1, strategy='direct')"


def timeraw_import():
    return "import convkernels"


def timeraw_import_numpy():
    return "import numpy"


class Dispatch:
    """A call on almost nothing."""

    def setup(self):
        self.x, self.w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32)
        self.y = ck.conv2d(self.x, self.w)

    def time_conv2d(self):
        ck.conv2d(self.x, self.w)

    def time_conv2d_into_out(self):
        ck.conv2d(self.x, self.w, out=self.y)

    def time_max_pool2d(self):
        ck.max_pool2d(self.x, 2)

    def time_explain(self):
        ck.explain("conv2d", self.x, self.w)


class FirstCall:
    """The first compiled call of a process, Numba's import included."""

    number, repeat, rounds, warmup_time = 1, (3, 5, 60.0), 1, 0

    def setup(self):
        skip_what_is_declined(PROBLEM, strategy="direct")
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self):
        self.folder.cleanup()

    def timeraw_cold_cache(self):
        return CALL, READY.format(cache=f"tempfile.mkdtemp(dir={self.folder.name!r})")

    def timeraw_warm_cache(self):
        ready = READY.format(cache=repr(self.folder.name))
        subprocess.run([sys.executable, "-c", ready + CALL], check=True)
        return CALL, ready
