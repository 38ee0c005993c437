"""Basic Pitch: the notes of a recording, of any instrument and many at once."""

from __future__ import annotations

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WHEEL = Wheel(
    project="basic-pitch",
    version="0.4.0",
    file="basic_pitch-0.4.0-py2.py3-none-any.whl",
    sha256="738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    size=758_279,
)
# Numbers of the wheel's constants.py and inference.py: windows of 43,844 samples, of which 30 frames of 256 are shared.
_RATE, _WINDOW, _HOP, _SHARED = 22_050, 43_844, 256, 30


def _make(sources: Sources) -> Made:
    import onnx

    # Of the models in the wheel the ONNX file: LiteRT's is as large, and would ask devices for one more package.
    model = onnx.load_model_from_string(
        sources.read(_WHEEL, "basic_pitch/saved_models/icassp_2022/nmp.onnx")
    )  # fmt: skip
    half = _SHARED // 2
    audio = {
        "kind": "audio",
        "fills": {"samples": model.graph.input[0].name},
        "rate": _RATE,
        "frame": _WINDOW - _SHARED * _HOP,
        "context": half * _HOP,
        "ahead": half * _HOP,
        "channel": True,
    }
    notes = {
        "kind": "notes",
        "reads": {"notes": "StatefulPartitionedCall:1", "onsets": "StatefulPartitionedCall:2"},
        "trim": half,
    }
    return Made(model, {"inputs": [audio], "outputs": [notes]})


RECIPE = Recipe(
    name="basic-pitch",
    about="the notes of a recording: when, which pitch, how loud",
    example="melody.wav",
    license=License("Apache-2.0", "Spotify AB"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=36_400, ratio=3.9),
)
