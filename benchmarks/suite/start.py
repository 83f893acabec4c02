"""What a call costs besides its arithmetic: importing, choosing, compiling."""

import subprocess
import sys
import tempfile

import numpy as np

import convkernels as ck

from .calls import skip_what_is_declined

READY = """
import os, tempfile
os.environ["NUMBA_CACHE_DIR"] = {cache}
import numpy as np
import convkernels as ck
x, w, c = np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32), np.ones(64, np.float32)
"""
CALLS = {
    "direct": "ck.conv2d(x, w, padding=1, strategy='direct')",
    "winograd": "ck.conv2d(x, w, padding=1, strategy='winograd')",
    "depthwise": "ck.conv2d(x, w[:, :1], padding=1, groups=64, strategy='depthwise')",
    "pool": "ck.max_pool2d(x, 3, stride=2, strategy='direct')",
    "norm": "ck.group_norm(x, c, c, 32, strategy='direct')",
}
NEEDED = {
    "direct": "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "winograd": "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "depthwise": "n1g64i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "pool": "pool:n1c64_in56x56_k3x3_s2x2_p0+0x0+0_d1x1_max",
    "norm": "norm:n1c64g32_in56x56_group",
}


def timeraw_import():
    return "import convkernels"


def timeraw_import_numpy():
    return "import numpy"


class Dispatch:
    """A call on almost nothing."""

    def setup(self):
        self.x, self.w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32)
        self.y = ck.conv2d(self.x, self.w)
        self.time_conv2d_vjp()  # compiles
        self.time_max_pool2d()

    def time_conv2d(self):
        ck.conv2d(self.x, self.w)

    def time_conv2d_into_out(self):
        ck.conv2d(self.x, self.w, out=self.y)

    def time_conv2d_vjp(self):
        ck.conv2d_vjp(self.x, self.w)[1](self.y)

    def time_max_pool2d(self):
        ck.max_pool2d(self.x, 2)

    def time_explain(self):
        ck.explain("conv2d", self.x, self.w)


class FirstCall:
    """The first compiled call of a process, Numba's import included."""

    params = (list(CALLS),)
    param_names = ("call",)
    number, repeat, rounds, warmup_time, timeout = 1, (3, 5, 60.0), 1, 0, 300

    def setup(self, call):
        strategy = call if call in ("winograd", "depthwise") else "direct"
        skip_what_is_declined(NEEDED[call], strategy=strategy)
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self, call):
        self.folder.cleanup()

    def timeraw_cold_cache(self, call):
        return CALLS[call], READY.format(cache=f"tempfile.mkdtemp(dir={self.folder.name!r})")

    def timeraw_warm_cache(self, call):
        ready = READY.format(cache=repr(self.folder.name))
        subprocess.run([sys.executable, "-c", ready + CALLS[call]], check=True)
        return CALLS[call], ready
