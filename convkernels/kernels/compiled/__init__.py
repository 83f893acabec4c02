"""What needs Numba and its llvmlite (the extra ``jit``); importing this package imports neither.

    isa.py        what vectors the processor has
    tile.py       the register tile: a small matrix product in registers, emitted as LLVM vectors
    nest.py       loops that call tiles
    direct.py     convolution and its gradients as products of tiles, without im2col
    parallel.py   one pool of threads

    pooling.py    pools and their gradients: what is planned, and run
    runs.py       what a pool reads along one axis; boxes.py and row_tables.py make tables of it
    lines.py      loops over lines of vectors, emitted; rows.py and wholes.py over rows and whole planes
    reductions.py what they do with vectors: reduce, find winners, collect gradients
    calls.py      emitted code, ready to be called

"Anatomy of High-Performance Matrix Multiplication" (Goto and van de Geijn, 2008) and BLIS (Van Zee and van de Geijn,
2015) explain the tile; "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (Georganas et
al., 2018) what a convolution makes of it.
"""
