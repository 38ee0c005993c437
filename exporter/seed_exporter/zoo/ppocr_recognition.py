"""PP-OCRv4 recognition: the text of a picture of one line."""

from __future__ import annotations

from seed_exporter.zoo import ppocr
from seed_exporter.zoo.recipe import Goal, Made, Recipe, Sources

_LEAST, _LONGEST = 320, 3200  # widths [pixel]


def _make(sources: Sources) -> Made:
    model = ppocr.model(sources, "ch_PP-OCRv4_rec_infer.onnx")
    text = {
        "kind": "ctc",
        "reads": {"scores": model.graph.output[0].name},
        "characters": "metadata:character",
        "space": True,
    }
    return Made(model, {"inputs": [ppocr.line_step(_LEAST, _LONGEST)], "outputs": [text]})


RECIPE = Recipe(
    name="ppocr-recognition",
    about="the text of a picture of one line, in English and Chinese: 6,623 characters",
    example="line.png",
    license=ppocr.LICENSE,
    wheels=(ppocr.WHEEL,),
    make=_make,
    goal=Goal(size=2_420_000, ratio=4.4),
    extras=("pictures",),
)
