"""A tiny decoder of random weights that reads and writes bytes, with a cache of keys and values and without."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_runtime.format.parts import PROCESSING
from seed_runtime.format.parts import processing as part
from seed_runtime.memory.footprint import Footprint, ModeFootprint
from tests.support.model_seeds import build_model_seed, onnx_model

LAYERS, HEADS, HEAD, WIDTH = 2, 2, 8, 16
CONTEXT = 48
END = 256  # the token <end>, behind 256 bytes
VOCABULARY = 258
_LIKELY = tuple(range(ord("a"), ord("z") + 1))
PAST = {
    f"past_key_values.{layer}.{name}": f"present.{layer}.{name}" for layer in range(LAYERS) for name in ("key", "value")
}


@functools.cache
def decoder(*, cached: bool = True, in_place: bool = False) -> onnx.ModelProto:
    """Return a model of input_ids, position_ids and a past, if it is cached, to logits: float32[1, n, VOCABULARY].

    One that adds to its past in place has attention of ONNX Runtime's own, and computes the same.
    """
    nodes: list[onnx.NodeProto] = []
    rng = np.random.default_rng(5)
    weights = {
        "table": rng.normal(size=(VOCABULARY, WIDTH)),
        "places": rng.normal(size=(CONTEXT, WIDTH)),
        "shares": np.full(1, HEAD**-0.5),
        "far": np.full(1, -1e9),
        # Letters are likely, so that texts can be read and no special token comes by chance.
        "bias": np.where(np.isin(np.arange(VOCABULARY), _LIKELY), 0.0, -100.0),
    }

    def op(kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(value: Any) -> str:
        return op("Constant", value=onnx.numpy_helper.from_array(np.array(value, np.int64)))

    def linear(x: str, name: str, columns: int = WIDTH) -> str:
        weights[name] = rng.normal(size=(WIDTH, columns))
        return op("MatMul", x, name)

    def heads(x: str) -> str:
        return op("Transpose", op("Reshape", x, const([0, 0, HEADS, HEAD])), perm=[0, 2, 1, 3])

    x = op("Add", op("Gather", "table", "input_ids"), op("Gather", "places", "position_ids"))
    # A token sees those whose positions aren't behind its own.
    whole = op("Shape", "attention_mask" if cached else "input_ids", start=1, end=2)
    seen = op("Range", const(0), op("Squeeze", whole), const(1))
    later = op("Greater", op("Unsqueeze", seen, const([0])), op("Unsqueeze", "position_ids", const([2])))
    mask = op("Unsqueeze", op("Mul", op("Cast", later, to=TensorProto.FLOAT), "far"), const([1]))
    if cached:
        given = op("Cast", op("Unsqueeze", "attention_mask", const([1, 2])), to=TensorProto.FLOAT)
        one = op("Constant", value=onnx.numpy_helper.from_array(np.ones(1, np.float32)))
        mask = op("Add", mask, op("Mul", op("Sub", one, given), "far"))

    def attention(layer: int, x: str) -> str:
        new = [linear(x, f"{name}{layer}") for name in ("q", "k", "v")]
        names = [name for name in PAST if f".{layer}." in name]
        length = op("Cast", whole, to=TensorProto.INT32)
        single = op("Constant", value=onnx.numpy_helper.from_array(np.ones(1, np.int32)))
        last, total = op("Sub", length, single), op("Squeeze", length)
        made = [f"mixed_{layer}", *(PAST[name] for name in names)]
        known: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": HEADS, "domain": "com.microsoft"}
        nodes.append(helper.make_node("GroupQueryAttention", [*new, *names, last, total], made, **known))
        return made[0]

    for layer in range(LAYERS):
        if in_place:
            x = op("Tanh", op("Add", x, linear(attention(layer, x), f"o{layer}")))
            continue
        query, key, value = (heads(linear(x, f"{name}{layer}")) for name in ("q", "k", "v"))
        if cached:
            key, value = (
                op("Concat", f"past_key_values.{layer}.{name}", new, out=f"present.{layer}.{name}", axis=2)
                for name, new in (("key", key), ("value", value))
            )
        scores = op("Mul", op("MatMul", query, op("Transpose", key, perm=[0, 1, 3, 2])), "shares")
        mixed = op("MatMul", op("Softmax", op("Add", scores, mask), axis=-1), value)
        joined = op("Reshape", op("Transpose", mixed, perm=[0, 2, 1, 3]), const([0, 0, WIDTH]))
        x = op("Tanh", op("Add", x, linear(joined, f"o{layer}")))
    op("Add", linear(x, "head", VOCABULARY), "bias", out="logits")
    inputs: dict[str, list[int | str]] = {"input_ids": ["batch", "new"], "position_ids": ["batch", "new"]}
    outputs: dict[str, list[int | str]] = {"logits": ["batch", "new", VOCABULARY]}
    if cached:
        total, present = ("total", "present") if in_place else ("past + new", "past + new")
        inputs |= {"attention_mask": ["batch", total]}
        inputs |= {name: ["batch", HEADS, "past", HEAD] for name in PAST}
        outputs |= {name: ["batch", HEADS, present, HEAD] for name in PAST.values()}
    integers = ("input_ids", "position_ids", "attention_mask")
    model = onnx_model(nodes, inputs, outputs, weights, dict.fromkeys(integers, TensorProto.INT64))
    if in_place:
        model.opset_import.add(domain="com.microsoft", version=1)
        model.ir_version = 11
    return model


def description(*, cached: bool = True, **changes: Any) -> dict[str, Any]:
    """Return the object `generation` of the decoder; `changes` are fields of it, None for one that is left out."""
    fills = {"ids": "input_ids", "positions": "position_ids"} | ({"mask": "attention_mask"} if cached else {})
    words = {
        "fills": fills,
        "reads": {"scores": "logits"},
        "past": PAST if cached else {},
        "context": CONTEXT,
        "tokenizer": "tokenizer.json",
        "before": "<start>",
        "after": ":",
        "stop": [END],
        "max_tokens": 12,
    }
    return {name: value for name, value in (words | changes).items() if value is not None}


WIDE_TOKEN = 1_000_000
"""Memory of a token in the cache of `wide_seed` [B]."""
WIDE_CONTEXT = 40


@functools.cache
def wide_seed(past_max: int = WIDE_CONTEXT) -> bytes:
    """Return the seed of a model whose cache is large; it writes the letters from a on.

    Its memory was measured up to a past of `past_max` tokens.
    """
    width = WIDE_TOKEN // 4
    following = np.zeros((VOCABULARY, VOCABULARY))
    for token in range(VOCABULARY):
        following[token, token + 1 if ord("a") <= token < ord("z") else ord("a")] = 1
    nodes = [
        helper.make_node("Gather", ["following", "input_ids"], ["logits"]),
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["axes"], value=onnx.numpy_helper.from_array(np.array([1, 3]))),
        helper.make_node("Unsqueeze", ["numbers", "axes"], ["column"]),
        helper.make_node("MatMul", ["column", "ones"], ["new"]),
        helper.make_node("Concat", ["past", "new"], ["present"], axis=2),
    ]
    model = onnx_model(
        nodes,
        {"input_ids": [1, "n"], "past": [1, 1, "past", width]},
        {"logits": [1, "n", VOCABULARY], "present": [1, 1, "past + n", width]},
        {"following": following, "ones": np.ones((1, width))},
        {"input_ids": TensorProto.INT64},
    )
    # What goes in and out, new keys twice, and 16 MiB above the imported library.
    points = ((1, 1), (1, past_max), (WIDE_CONTEXT, past_max))
    peaks = [256 + ((2 * past + 3 * new) * WIDE_TOKEN >> 16) for new, past in points]
    footprint = Footprint((("input_ids", 1), ("past", 2)), points, (ModeFootprint("fast", 256, 1, tuple(peaks)),))
    words = description(cached=True, fills={"ids": "input_ids"}, past={"past": "present"}, context=WIDE_CONTEXT)
    text = json.dumps({"generation": words}).encode()
    packed = part.pack(text, {"tokenizer.json": tokenizer_json()})
    return build_model_seed(model, model_id="wide", step=None, parts=[(PROCESSING.number, packed)], footprint=footprint)


def decoder_seed(*, cached: bool = True, **changes: Any) -> bytes:
    """Return the seed of the decoder; `changes` are fields of its description."""
    text = json.dumps({"generation": description(cached=cached, **changes)}).encode()
    packed = part.pack(text, {"tokenizer.json": tokenizer_json()})
    model = decoder(cached=cached, in_place=bool(changes.get("in_place")))
    return build_model_seed(model, model_id="decoder", parts=[(PROCESSING.number, packed)])


@functools.cache
def tokenizer_json() -> bytes:
    """Return a tokenizer of single bytes, and of <end> and <start>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {char: index for index, char in enumerate(_byte_characters())}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken("<end>", special=True), AddedToken("<start>", special=True)])
    return str(built.to_str()).encode()


def _byte_characters() -> list[str]:
    """Return the characters that stand for bytes 0 to 255, as GPT-2's tokenizer writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]
