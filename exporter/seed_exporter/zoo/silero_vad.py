"""Silero VAD: from when to when somebody speaks."""

from __future__ import annotations

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WHEEL = Wheel(
    project="silero-vad",
    version="6.2.3",
    file="silero_vad-6.2.3-py3-none-any.whl",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    size=11_317_527,
)
_RATE, _FRAME, _CONTEXT = 16_000, 512, 64  # samples a second, new ones in a call, and those that it gets once more


def _make(sources: Sources) -> Made:
    import onnx

    # Of the models in the wheel, the one of 16 kHz alone and without branches.
    model = onnx.load_model_from_string(sources.read(_WHEEL, "silero_vad/data/silero_vad_openvino_16k.onnx"))
    audio = {"kind": "audio", "fills": {"samples": "input"}, "rate": _RATE, "frame": _FRAME, "context": _CONTEXT}
    segments = {"kind": "segments", "reads": {"probability": "output"}}
    return Made(model, {"inputs": [audio], "outputs": [segments], "state": {"state": "stateN"}})


RECIPE = Recipe(
    name="silero-vad",
    about="from when to when somebody speaks in a recording",
    example="speech.wav",
    license=License("MIT", "Silero Team"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=281_000, ratio=4.4),
)
