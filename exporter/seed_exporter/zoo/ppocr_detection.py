"""PP-OCRv4 detection: where lines of text are on a page."""

from __future__ import annotations

from seed_exporter.zoo import ppocr
from seed_exporter.zoo.recipe import Goal, Made, Recipe, Sources

_LONGEST, _MULTIPLE = 1280, 32  # of a page's sides [pixel]


def _make(sources: Sources) -> Made:
    model = ppocr.model(sources, "ch_PP-OCRv4_det_infer.onnx")
    page = {
        "kind": "image",
        "fills": {"pixels": model.graph.input[0].name},
        "size": [_MULTIPLE, _MULTIPLE],
        "resize": "longest",
        "longest": _LONGEST,
        "multiple": _MULTIPLE,
        "channels": "BGR",
        "mean": [127.5],
        "scale": [127.5],
    }
    # Numbers of the wheel's config.yaml.
    regions = {
        "kind": "regions",
        "reads": {"map": model.graph.output[0].name},
        "threshold": 0.3,
        "dilate": True,
        "score": 0.5,
        "grow": 1.6,
    }
    return Made(model, {"inputs": [page], "outputs": [regions]})


RECIPE = Recipe(
    name="ppocr-detection",
    about="where lines of text are on a page",
    example="page.png --draw lines.png",
    license=ppocr.LICENSE,
    wheels=(ppocr.WHEEL,),
    make=_make,
    goal=Goal(size=1_057_000, ratio=4.4),
    extras=("pictures",),
)
