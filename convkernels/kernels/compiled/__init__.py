"""What needs Numba and its llvmlite (the extra ``jit``); importing this package imports neither.

    available.py    what can be said without Numba: what each strategy takes, and when; needs.py in what memory
    parts.py        problems whose weights do not fit it, some channels at a time
    thread_count.py how many threads work gets
    isa.py          what vectors the processor has
    tile.py         the register tile: a small matrix product in registers, emitted as LLVM vectors
    turn.py         a square of a matrix turned in registers
    machine.py      what compiled loops need of the machine
    straight.py     rows of a matrix copied as they lie
    copies.py       copies between any two orders of memory
    axes.py         correlations along each axis
    amounts.py      how much of one to work on at a time
    geometry.py     arrays and blocks in numbers
    filters.py      weights in panels
    blocks.py       the loops around tiles
    operands.py     an operation's arrays as a correlation takes them
    ways.py         what vectors hold, and what the depth goes over
    choice.py       which of these ways is taken
    spaced.py       rows of cells some steps apart, copied next to each other
    lowering.py     blocks in which rows of outputs are one line
    steps.py        the depth and the taps of tiles
    correlation.py  plans of correlations
    dots.py         windows that take in a whole picture, as products of vectors
    one_tap.py      windows that are whole pictures, as products of matrices
    scattered.py    input gradients as products that are scattered: by pictures, and by few pixels
    scattering.py   when, and how many at a time
    adding.py       the products added up where windows overlap
    direct.py       the strategy `direct`: convolution and its input gradient
    weights.py      and its weight gradient
    toom_cook.py    Winograd's algebra
    pictures.py     the dense correlations that his algorithm takes one apart into
    transform.py    his transforms, emitted
    squares.py      the loops of his algorithm
    winograd.py     the strategy `winograd`: plans of convolutions and input gradients by squares
    winograd_weights.py  and of weight gradients
    reach.py        what depthwise outputs reach along each axis
    stencil.py      a few of them in registers, emitted
    cover.py        the outputs of a channel covered with stencils
    channels.py     the loops around stencils
    depthwise.py    the strategy `depthwise`
    weighted.py     plans that first rearrange the weights
    inward.py       problems whose axes of one cell come first
    conv_plans.py   convolutions on other arrays that lie alike, and with the same weights
    parallel.py     one pool of threads
    scratch.py      memory that a thread keeps

    pooling.py    pools and their gradients: what is planned, and run
    pool_plans.py what of a pool's call does not depend on where its arrays are
    runs.py       what a pool reads along one axis; boxes.py and row_tables.py make tables of it
    lines.py      loops over lines of vectors, emitted; rows.py and wholes.py over rows and whole planes
    planes.py     small planes turned, so that lines lie along channels
    pairs.py      rows taken two at a time, by windows of 2 x 2
    slides.py     planes gone through from their first cell to their last, by windows with steps of 1
    strides.py    rows kept in registers, by windows with longer steps; spans.py has what these three share
    pool_forms.py which planes are reduced in these ways
    pool_blocks.py  what can be said of them without Numba: when they are taken, and in what memory
    reductions.py what they do with vectors: reduce, find winners, collect gradients
    arithmetic.py   and what vectors compute with
    calls.py      emitted code, ready to be called

    norms.py         the norms, by the form in which data lie in memory (norm_forms.py)
    norm_rows.py     runs of row_code.py and row_gradients.py: rows of numbers that share statistics; of
                     row_together.py: a vector of them at a time; and of short ones a few abreast, row_moments.py
                     forward and row_abreast.py for gradients
    norm_totals.py   gradients of coefficients, added up
    norm_available.py  what can be said of them without Numba
    norm_plans.py    what of a norm's call does not depend on where its arrays are
    norm_columns.py  runs of column_code.py and column_sums.py: rows that go through many families of them, laid out in
                     column_block.py
    values.py        numbers that both compute with, in memory and in vectors, as LLVM assembly
    code.py          what both are written with: loops over these; function.py runs it

    pointwise.py  numbers one by one, and sums by channel

"Anatomy of High-Performance Matrix Multiplication" (Goto and van de Geijn, 2008) and BLIS (Van Zee and van de Geijn,
2015) explain the tile; "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (Georganas et
al., 2018) what a convolution makes of it.
"""
