"""Sums that don't depend on where a matrix lies in memory.

By default MKL chooses its kernels by the alignment of their operands, so that two equal lanes of one batch can round
differently, and a child could drift from its reference by rounding alone. Its conditional numerical reproducibility in
strict mode takes that away. MKL reads the variable at its first call: importing this module comes before.
"""

import os

MKL_VARIABLE, MKL_MODE = "MKL_CBWR", "AVX2,STRICT"

os.environ.setdefault(MKL_VARIABLE, MKL_MODE)
