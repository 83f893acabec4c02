"""Turning a square of a matrix in registers: row r of the source becomes column r of the target.

Lines of as many elements as a vector has are loaded, mixed in log2(lanes) steps, and stored. In step h, of each pair of
lines h apart, the first keeps its even blocks of h elements and takes the second's even blocks into its odd ones, the
second the other way round: element (r, c) moves by the bit h from r to c, so all steps together exchange r and c.
"""

from __future__ import annotations

from functools import lru_cache

from llvmlite import ir

from .isa import Isa
from .tile import INDEX, WORD, compiled


def emit(lanes: int, itemsize: int) -> str:
    """The square as LLVM assembly: source, its stride between lines, target, its stride, all in bytes."""
    module = ir.Module("turn")
    vector = ir.VectorType(ir.IntType(8 * itemsize), lanes)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * 4), "turn")
    build = ir.IRBuilder(function.append_basic_block("entry"))
    source, source_step, target, target_step = function.args

    def place(base: ir.Value, step: ir.Value, line: int) -> ir.Value:
        return build.inttoptr(build.add(base, build.mul(step, ir.Constant(WORD, line))), vector.as_pointer())

    lines = []
    for line in range(lanes):
        lines.append(build.load(place(source, source_step, line)))
        lines[-1].align = itemsize
    half = 1
    while half < lanes:
        mixed = list(lines)
        for first in range(lanes):
            if first & half:
                continue
            second = first | half
            for line, bit in ((first, 0), (second, half)):
                # Blocks of the first line whose bit is `bit`, each followed by the second line's.
                chosen = [(c & ~half | bit) + (lanes if c & half else 0) for c in range(lanes)]
                order = ir.Constant(ir.VectorType(INDEX, lanes), chosen)
                mixed[line] = build.shuffle_vector(lines[first], lines[second], order)
        lines = mixed
        half *= 2
    for line, value in enumerate(lines):
        build.store(value, place(target, target_step, line)).align = itemsize
    build.ret_void()
    return str(module)


@lru_cache(maxsize=8)
def address(itemsize: int, isa: Isa) -> int:
    """Where the code for squares of a vector's side is."""
    return compiled(emit(isa.lanes(itemsize), itemsize), "turn", isa)
