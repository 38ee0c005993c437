"""BlazeFace, the short range of MediaPipe's face detection: faces within two meters of a camera, by LiteRT."""

from __future__ import annotations

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

# A wheel of one platform, in which the models are the same as in those of the others.
_WHEEL = Wheel(
    project="mediapipe",
    version="0.10.14",
    file="mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
    size=35_664_771,
)
_SIDE = 128  # [pixel]


def _make(sources: Sources) -> Made:
    image = {
        "kind": "image",
        "fills": {"pixels": "input"},
        "size": [_SIDE, _SIDE],
        "resize": "letterbox",
        "layout": "NHWC",
        "mean": [127.5],
        "scale": [127.5],
    }
    # 2 anchors in each of 16 x 16 cells and 6 in each of 8 x 8, from which boxes differ by pixels; six points of the
    # face are behind each box. Source: MediaPipe, modules/face_detection/face_detection_short_range.pbtxt.
    boxes = {
        "kind": "boxes",
        "reads": {"boxes": "regressors", "scores": "classificators"},
        "layout": "separate",
        "order": "center",
        "unit": "relative",
        "cells": [8, 2, 16, 6],
        "logarithms": False,
        "variances": [1 / _SIDE, 1 / _SIDE],
        "extra": 12,
        "activation": "sigmoid",
        "labels": "labels.txt",
        "threshold": 0.5,
        "iou": 0.3,
    }
    model = sources.read(_WHEEL, "mediapipe/modules/face_detection/face_detection_short_range.tflite")
    return Made(model, {"inputs": [image], "outputs": [boxes]}, {"labels.txt": b"face"})


RECIPE = Recipe(
    name="face-detection",
    about="where faces are in a photo, of people within two meters",
    example="photo.jpg --draw faces.png",
    license=License("Apache-2.0", "The MediaPipe Authors"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=105_000, ratio=1.9),
    needs=("ai_edge_litert",),
    extras=("pictures", "tflite"),
)
