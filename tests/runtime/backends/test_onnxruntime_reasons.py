"""What is shown of ONNX Runtime's errors: the reason, which stands at their end."""

from __future__ import annotations

import pytest

from seed_runtime.backends.onnxruntime_errors import reason
from seed_runtime.backends.onnxruntime_releases import is_older, oldest_release

LOADING = "[ONNXRuntimeError] : 1 : FAIL : Load model from /srv/models/7e3c/model.onnx failed:"
MODEL_CC = (
    "/onnxruntime_src/onnxruntime/core/graph/model.cc:180 onnxruntime::Model::Model(onnx::ModelProto&&, const "
    "onnxruntime::PathString&, const std::function<void(int)>&, const onnxruntime::ModelOptions&) "
)
RESHAPE = "/o/reshape_helper.h:45 onnxruntime::ReshapeHelper::ReshapeHelper(const T&, bool) const [with T = int] "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"{LOADING}{MODEL_CC}Unsupported model IR version: 14, max supported IR version: 10",
            "Unsupported model IR version: 14, max supported IR version: 10",
        ),
        (f"{LOADING}Fatal error: q:Foo(-1) is not registered", "Fatal error: q:Foo(-1) is not registered"),
        (
            f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Status Message: {RESHAPE}size was false.\n It can't",
            "Status Message: size was false. It can't",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Status Message: matmul_helper.h:59 Compute mismatch (x)",
            "Status Message: Compute mismatch (x)",
        ),
        ("a.cc:1 f::g(", "f::g("),
        ("plain", "plain"),
    ],
)
def test_paths_and_places_in_the_source_are_left_out(text: str, shown: str) -> None:
    assert reason(RuntimeError(text)) == shown


def test_a_long_reason_keeps_its_end() -> None:
    shown = reason("x" * 1000 + " is till opset 21")
    assert (len(shown), shown[:4], shown[-17:]) == (300, "...x", " is till opset 21")


def test_the_oldest_release_follows_from_both_versions() -> None:
    assert oldest_release(8, {"": 17}) == "1.19"
    assert oldest_release(11, {"": 17}) == "1.23"
    assert oldest_release(10, {"": 25, "com.microsoft": 1}) == "1.24"
    assert oldest_release(10, {"": 17, "ai.onnx.ml": 5}) == "1.19"
    assert oldest_release(10, {"": 17, "ai.onnx.ml": 6}) is None
    assert oldest_release(99, {"": 17}) is None


def test_versions_are_compared_as_numbers() -> None:
    assert is_older("1.9.1", "1.19")
    assert not is_older("1.19.0", "1.19")
    assert not is_older("2.0", "1.19")
    assert not is_older("1.x", "1.19")
    assert not is_older("", "1.19")
