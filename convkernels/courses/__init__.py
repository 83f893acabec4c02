"""The functions of two courses' convolution assignments, with the courses' own signatures, over this package.

`cs231n` has those of Stanford's CS231n, assignment 2 (NCHW), `deeplearning_ai` those of deeplearning.ai's
"Convolution model: step by step" (NHWC).
"""
