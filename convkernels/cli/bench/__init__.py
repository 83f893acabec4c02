"""The library against its peers, on this machine: layers of well-known networks, timed in turns in one process.

From a choice of problems to a table::

    problems.py   the layers, and the kinds they are of
    cells.py      which of them, in which type, batch, threads: a cell is what all contestants compute
    task.py       a cell's data
    contestant.py, ours.py, peers.py, pytorch.py, onnx_*.py   who computes it
    timing.py, memory.py, machine.py   the stopwatch, the scales, and what the machine could do
    judge.py      whether results are right, and how exact
    measure.py    a cell measured: one row for each layout and precision
    results.py    rows as JSON, to be kept, merged and shared
    summary.py, tables.py, picture.py   what the rows say
    run.py        all of it, with progress

PyTorch and ONNX Runtime take part where they are installed.
"""
