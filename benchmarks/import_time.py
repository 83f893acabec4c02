"""What importing the package costs beyond importing NumPy: the median of alternating fresh interpreters."""

import subprocess
import sys
from statistics import median

MEASURE = "import numpy, time; start = time.perf_counter(); import convkernels; print(time.perf_counter() - start)"


def main():
    """Print the median of 21 starts, in milliseconds."""
    times = [float(subprocess.check_output([sys.executable, "-c", MEASURE])) for _ in range(21)]
    print(f"import convkernels after numpy: {1e3 * median(times):.1f} ms (least {1e3 * min(times):.1f})")


if __name__ == "__main__":
    main()
