"""PP-OCR's direction classifier: whether a line of text is upside down."""

from __future__ import annotations

from seed_exporter.zoo import ppocr
from seed_exporter.zoo.recipe import Goal, Made, Recipe, Sources

_WIDTH = 192  # [pixel]


def _make(sources: Sources) -> Made:
    model = ppocr.model(sources, "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    labels = {
        "kind": "labels",
        "reads": {"scores": model.graph.output[0].name},
        "labels": "labels.txt",
        "activation": "none",
    }
    description = {"inputs": [ppocr.line_step(_WIDTH, _WIDTH)], "outputs": [labels]}
    return Made(model, description, {"labels.txt": b"upright\nupside down"})


RECIPE = Recipe(
    name="ppocr-direction",
    about="whether a line of text is upside down",
    example="line.png",
    license=ppocr.LICENSE,
    wheels=(ppocr.WHEEL,),
    make=_make,
    goal=Goal(size=127_000, ratio=4.2),
    extras=("pictures",),
)
