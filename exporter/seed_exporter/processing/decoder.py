"""What a decoder's package says of text generation: the files that transformers writes beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from seed_exporter.processing.chat_template import render
from seed_exporter.processing.package import TOKENIZER, Found, Package
from seed_exporter.processing.text import compact_tokenizer
from seed_runtime.limits import TOKENS_MAX

_ROLES: Final = {"input_ids": "ids", "attention_mask": "mask", "position_ids": "positions"}
_PAST: Final = re.compile(r"past_key_values(\.\d+\.(?:key|value))")
_LENGTHS: Final = ("max_position_embeddings", "n_positions", "n_ctx")
_MARK: Final = "0b4ae1f7"
"""Text of a prompt that is looked for in what a template makes of it."""


def read(package: Package) -> Found | None:
    """Return how a model of optimum's names is asked for text: it has a tokenizer.json, and a length in config.json."""
    past = {name: f"present{found[1]}" for name in package.inputs if (found := _PAST.fullmatch(name))}
    fills = {role: name for name, role in _ROLES.items() if name in package.inputs}
    is_known = len(past) + len(fills) == len(package.inputs) and "logits" in package.outputs
    if not past or "ids" not in fills or not is_known:
        return None
    data, config = package.bytes(TOKENIZER), package.json("config.json")
    lengths = [config.get(name) for name in _LENGTHS]
    context = next((each for each in lengths if isinstance(each, int) and each > 1), None)
    if data is None or context is None:
        return None
    settings = package.json("generation_config.json")
    before, after = _around(package)
    words: dict[str, Any] = {
        "fills": fills,
        "reads": {"scores": "logits"},
        "past": past,
        "context": min(context, TOKENS_MAX),
        "tokenizer": TOKENIZER,
        "before": before,
        "after": after,
        "stop": _stop(settings.get("eos_token_id", config.get("eos_token_id"))),
    }
    return {"generation": words | _sampling(settings)}, {TOKENIZER: compact_tokenizer(data)}


def _stop(value: object) -> list[int]:
    tokens = value if isinstance(value, list) else [value]
    return [token for token in tokens if isinstance(token, int) and token >= 0]


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how tokens are chosen, as transformers reads a generation_config.json: greedily unless it samples."""
    found = {"repetition_penalty": settings.get("repetition_penalty"), "max_tokens": settings.get("max_new_tokens")}
    if settings.get("do_sample"):
        found |= {name: settings.get(name) for name in ("top_k", "top_p")}
        found["temperature"] = settings.get("temperature", 1.0)
    return {name: value for name, value in found.items() if value is not None}


def _around(package: Package) -> tuple[str, str]:
    """Return what the chat template puts in front of one prompt and behind it; nothing where there is none."""
    config = package.json("tokenizer_config.json")
    template = (package.bytes("chat_template.jinja") or b"").decode() or config.get("chat_template")
    if isinstance(template, list):
        template = next((each.get("template") for each in template if each.get("name") == "default"), None)
    if not isinstance(template, str):
        return "", ""
    names = {name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    messages = [{"role": "user", "content": _MARK}]
    text = render(template, {"messages": messages, "add_generation_prompt": True, **names})
    before, mark, after = text.partition(_MARK)
    if not mark or _MARK in after:
        raise ValueError("its chat template doesn't hold a prompt once")
    return before, after


def _token(value: object) -> str:
    """Return the text of a special token, which is an object in some packages."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
