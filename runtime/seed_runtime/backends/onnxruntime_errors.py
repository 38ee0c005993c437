"""ONNX Runtime's exceptions, and what their messages say without the library's own places and paths."""

from __future__ import annotations

import re
from typing import Any, Final

_FAILURES: Final = (
    *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
    *("ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException"),
)

_LOADING: Final = re.compile(r"^(?:Load model from .*? failed:|Failed to load model with error:) ?")
_PLACE: Final = re.compile(r"\S*\.(?:cc|cpp|cxx|h|hpp):\d+ ")
"""Place in ONNX Runtime's source, behind which the signature of the function follows."""
_QUALIFIERS: Final = re.compile(r"(?:::<?[^ ]*|,? ?const\b| ?mutable\b| ?noexcept\b| ?\[with [^\]]*\])*")
_REASON_MAX: Final = 300
"""Most characters of a reason."""


def failures(ort: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that loading and running a model can raise."""
    state = ort.capi.onnxruntime_pybind11_state
    own = [getattr(state, name) for name in _FAILURES if hasattr(state, name)]
    # pybind turns C++ exceptions that it has no class for into RuntimeError, and bad_alloc into MemoryError.
    return (*own, RuntimeError, ValueError, MemoryError)


def locale_advice(error: Exception | str) -> str | None:
    """Return the next step where this machine lacks the locale of an operator for text; None for other errors."""
    found = re.search(r"locale with name:([\w.@-]+?):", str(error))
    if found is None:
        return None
    return (
        f"generate this locale here (sudo locale-gen {found[1]}), or export the model with one that every machine has: "
        f"StringNormalizer's attribute locale, such as C.UTF-8"
    )


def reason(error: Exception | str) -> str:
    """Return ORT's message on one line, without its prefix, the model's path, and places in its C++ source."""
    text = " ".join(str(error).split()) or type(error).__name__
    parts = text.split(" : ", 3)
    if parts[0] == "[ONNXRuntimeError]":
        text = parts[-1]
    text = _LOADING.sub("", text)
    text, *parts = _PLACE.split(text)
    text += "".join(_without_signature(part) for part in parts)
    # What happened stands at the end.
    return text if len(text) <= _REASON_MAX else "..." + text[3 - _REASON_MAX :]


def _without_signature(text: str) -> str:
    """Remove the C++ signature with which `text` begins: to the end of its brackets and what qualifies them."""
    depth = 0
    if "::" not in text.partition("(")[0]:
        return text
    for pos, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == ")" and depth == 0:
            rest = _QUALIFIERS.match(text, pos + 1)
            return text[rest.end() if rest is not None else pos + 1 :].lstrip()
    return text
