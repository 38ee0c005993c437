"""Call the peers as their own documentation describes, with the options that make them fastest or smallest.

Source: nncodec 2.1.3 (Fraunhofer HHI), `nncodec.nnc`; zipnn 0.5.4, `zipnn.ZipNN`. Both are installed without their
dependencies: see PEERS in the Makefile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seed_exporter.peers.nncodec import DENSITY, module, step_of

WINDOW = 1 << 16


def nncodec_qp(step: float) -> int:
    """Return the quantization parameter whose step is nearest, by ratio."""
    first = math.floor(math.log2(step)) << DENSITY
    return min(range(first, first + (1 << DENSITY) + 1), key=lambda qp: abs(math.log(step_of(qp) / step)))


def nncodec_encode(weights: Mapping[str, np.ndarray], qps: Mapping[str, int]) -> bytearray:
    """Encode the integers that `grid` codes: uniform quantization at these steps, without a trellis.

    NNCodec's defaults choose other integers that take fewer bits. `param_opt` is off: it makes files 0.5 % smaller
    (2.81 bits for 2.82) and decoding no faster.
    """
    stream: bytearray = module().compress(
        dict(weights), bitstream_path=None, return_bitstream=True, use_dq=False, param_opt=False,
        qp_density=DENSITY, qp=min(qps.values()), qp_per_tensor=dict(qps),
    )  # fmt: skip
    return stream


def write_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write all arrays, one after the other, and sync the file."""
    with open(path, "wb", buffering=0) as file:
        for array in arrays.values():
            _write_all(file, memoryview(np.ascontiguousarray(array)).cast("B"))
        _sync(file)


def write_int8(codes: Mapping[str, np.ndarray], path: Path) -> None:
    """Write codes as plain bytes, the input of `dequantize_int8`."""
    path.write_bytes(b"".join(array.tobytes() for array in codes.values()))


def dequantize_int8(
    shapes: Mapping[str, tuple[int, int]], scales: Mapping[str, np.ndarray], source: Path, target: Path
) -> None:
    """Dequantize int8 codes to float32 weights in a file, with one scale per row, as fast as NumPy can.

    It works in windows of about 64 Ki, which stay in the cache between product and write: whole tensors take twice
    as long. No digest is taken.
    """
    out = np.empty(2 * WINDOW, np.float32)
    with open(source, "rb", buffering=0) as codes_file, open(target, "wb", buffering=0) as file:
        for name, (rows, cols) in shapes.items():
            scale, height = scales[name][:, None], max(1, WINDOW // cols)
            codes = np.empty((height, cols), np.int8)
            if out.size < height * cols:
                out = np.empty(height * cols, np.float32)
            for row in range(0, rows, height):
                count = min(height, rows - row)
                codes_file.readinto(memoryview(codes[:count]).cast("B"))
                values = out[: count * cols].reshape(count, cols)
                np.multiply(codes[:count], scale[row : row + count], out=values)
                _write_all(file, memoryview(values).cast("B"))
        _sync(file)


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _sync(file: Any) -> None:
    import os

    os.fsync(file.fileno())
