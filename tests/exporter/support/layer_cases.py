"""Cases of recurrent layers, of sampling and of packed matrices."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tests.exporter.support.gradients import Case

_RNG: Final = np.random.default_rng(6)


def draw(*shape: int) -> np.ndarray:
    """Draw values between -1 and 1."""
    return _RNG.uniform(-1, 1, shape)


def positive(*shape: int) -> np.ndarray:
    """Draw values between 0.2 and 1."""
    return _RNG.uniform(0.2, 1, shape)


def recurrent(op: str, gates: int, name: str = "", ways: int = 1, *, states: int = 1, **rest: Any) -> Case:
    """Make a layer of 4 steps, 2 sequences of 3 inputs and 2 units, with biases and first states."""
    lengths, outputs = rest.pop("lengths", None), 1 + states
    peepholes = [draw(ways, 6)] if rest.pop("peepholes", False) else []
    inputs = [draw(4, 2, 3), draw(ways, gates * 2, 3), draw(ways, gates * 2, 2), draw(ways, gates * 4), lengths]
    inputs += [draw(ways, 2, 2) for _ in range(states)] + peepholes
    attributes = {"hidden_size": 2, **rest}
    return Case(op, inputs, attributes, outputs=outputs, seeded=outputs, name=name, single=True)


_BOTH = {"ways": 2, "direction": "bidirectional"}
_LENGTHS = np.array([4, 2], np.int32)
_LSTM = {"states": 2}
RECURRENT = [
    recurrent("RNN", 1),
    recurrent("RNN", 1, "both ways of functions", **_BOTH, activations=["Sigmoid", "Tanh"]),
    Case(
        "RNN",
        # The second unit is off.
        [
            positive(3, 2, 3),
            positive(1, 2, 3),
            positive(1, 2, 2) * 0.3,
            np.array([[0.1, -50, 0, 0]]),
            None,
            positive(1, 2, 2),
        ],
        {"hidden_size": 2, "activations": ["Relu"]},
        single=True,
        name="of Relu",
    ),
    recurrent("RNN", 1, "of lengths", **_BOTH, lengths=_LENGTHS),
    recurrent("GRU", 3),
    recurrent("GRU", 3, "reverse", direction="reverse", linear_before_reset=1),
    recurrent("GRU", 3, "both ways of lengths", **_BOTH, lengths=_LENGTHS),
    recurrent("GRU", 3, "of lengths, reset after", **_BOTH, lengths=_LENGTHS, linear_before_reset=1),
    recurrent("LSTM", 4, **_LSTM),
    recurrent("LSTM", 4, "reverse, peepholes", **_LSTM, direction="reverse", peepholes=True),
    recurrent("LSTM", 4, "both ways of lengths", **_LSTM, **_BOTH, lengths=_LENGTHS),
    recurrent("LSTM", 4, "of lengths, peepholes", **_LSTM, **_BOTH, lengths=_LENGTHS, peepholes=True),
    recurrent("LSTM", 4, "of an empty sequence", **_LSTM, lengths=np.array([0, 3], np.int32)),
    recurrent("LSTM", 4, "of functions", **_LSTM, activations=["Sigmoid", "Sigmoid", "Tanh"]),
    *(
        Case(
            op,
            [draw(3, 2, 3), draw(1, gates * 2, 3), draw(1, gates * 2, 2)],
            {"hidden_size": 2},
            single=True,
            name="bare",
        )
        for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    ),
]
# Not near the middle of a pixel of 3 x 4, where slopes jump.
_PLACES = np.array(
    [[-0.6, -0.23], [0.51, 0.44], [0.57, -0.33], [1.38, -0.39], [-1.47, -0.4], [-0.47, 1.48],
     [1.45, 0.21], [-0.6, 0.52], [-0.02, -0.22], [-0.47, -0.21], [-0.63, -0.26], [0.56, 0.45]]
)  # fmt: skip
SAMPLING = [
    Case(
        "GridSample",
        [draw(2, 2, 3, 4), _PLACES.reshape(2, 3, 2, 2)],
        {"padding_mode": padding, "align_corners": aligned, "mode": mode},
        opset=opset,
        name=f"{padding} {aligned} {opset}",
    )
    for padding in ("zeros", "border")
    for aligned in (0, 1)
    for mode, opset in (("bilinear", 16), ("linear", 20))
]
_PACKED = np.random.default_rng(4).integers(0, 256, (3, 2, 16)).astype(np.uint8)
_ZEROS = np.array([120, 130, 125, 9, 0, 255], np.uint8)


def _packed(bits: int, *others: np.ndarray | None, name: str, **more: Any) -> Case:
    return Case(
        "MatMulNBits",
        [draw(2, 2, 24), _PACKED[..., : 2 * bits], positive(6), *others],
        {"K": 24, "N": 3, "bits": bits, "block_size": 16},
        domain="com.microsoft",
        single=True,
        name=name,
        **more,
    )


PACKED = [
    _packed(4, None, None, draw(3), name="with a bias"),
    _packed(4, _ZEROS[:3], name="with zero points"),
    _packed(4, positive(6), name="with zero points of floats", constant=(3,)),
    _packed(8, _ZEROS, name="of 8 bits", since=(1, 22)),
]
