"""Names for the arrays that decoders pass to one another."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
Values = npt.NDArray[Any]
"""Decoded elements, of whichever type a hole has."""

WINDOW: Final = 1 << 17
"""Symbols that are decoded at a time: the floats of a window and the tables stay in a 1 MiB cache."""
