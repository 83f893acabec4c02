"""Tiles and instruction sets."""

from __future__ import annotations

from importlib import util

import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import isa
from convkernels.kernels.compiled.filters import split
from convkernels.kernels.compiled.tile import Shape, address


@given(size=st.integers(1, 300), most=st.integers(1, 28))
def test_tiles_are_of_nearly_the_same_height_and_cover_all(size, most):
    starts, heights = split(size, most)
    assert sum(heights) == size
    assert list(starts) == [sum(heights[:n]) for n in range(len(heights))]
    assert max(heights) <= most
    assert max(heights) - min(heights) <= 1


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(
        ck.OptionError, match="CONVKERNELS_ISA='sse9' must be one of 'avx512', 'avx2', 'neon', 'generic'"
    ):
        isa.find("sse9")


@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "generic"])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_a_tile_fits_the_registers(name, itemsize):
    found = next(each for each in isa.ISAS if each.name == name)
    for vectors in (1, 2, 3):
        rows = found.rows(vectors)
        assert rows * vectors + vectors + 1 <= found.registers < (rows + 1) * vectors + vectors + 1


def test_a_tile_is_compiled_once():
    host = isa.host()
    assert address(Shape(3, 2, 4, masked=False), host) == address(Shape(3, 2, 4, masked=False), host)
    assert address(Shape(3, 2, 4, masked=False), host) != address(Shape(2, 2, 4, masked=False), host)
