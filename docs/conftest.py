"""Pages whose examples show what compiled code does are run where there is a compiler."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("numba") else ["strategies.md"]
