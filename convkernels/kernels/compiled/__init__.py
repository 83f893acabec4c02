"""What needs Numba and its llvmlite (the extra ``jit``); importing this package imports neither.

    isa.py        what vectors the processor has
    tile.py       the register tile: a small matrix product in registers, emitted as LLVM vectors
    nest.py       loops that call tiles
    direct.py     convolution and its gradients as products of tiles, without im2col
    parallel.py   one pool of threads

    norms.py         the norms, by the form in which data lie in memory (norm_forms.py)
    norm_rows.py     runs of row_code.py: rows of numbers that share statistics
    norm_columns.py  runs of column_code.py: rows that go through many families of them
    code.py          what both are written with: loops over vectors, as LLVM assembly

"Anatomy of High-Performance Matrix Multiplication" (Goto and van de Geijn, 2008) and BLIS (Van Zee and van de Geijn,
2015) explain the tile; "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (Georganas et
al., 2018) what a convolution makes of it.
"""
