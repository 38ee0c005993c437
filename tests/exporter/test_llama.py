"""Decoders that are built of GGUF's blocks: their integers, and their answers beside NumPy's."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from seed_exporter.zoo import llama

SIZES = llama.Sizes(width=64, layers=2, heads=4, kv_heads=2, epsilon=1e-5, rope_base=10_000.0, context=64)
INNER, TOKENS = 96, 40


def q4_1(rng: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes of Q4_1 blocks, and the floats that they stand for."""
    codes = rng.integers(0, 16, (rows, columns // 32, 32), np.uint8)
    scales = rng.uniform(0.01, 0.02, (rows, columns // 32)).astype("<f2")
    lows = (-8 * scales + rng.normal(0, 0.01, scales.shape)).astype("<f2")
    numbers = np.stack([scales, lows], axis=2).view(np.uint8)
    packed = np.concatenate([numbers, codes[:, :, :16] | codes[:, :, 16:] << 4], axis=2)
    floats = codes * scales[:, :, None].astype(np.float32) + lows[:, :, None].astype(np.float32)
    return packed.reshape(rows, -1), floats.reshape(rows, columns)


def q8_0(rng: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes of Q8_0 blocks, and the floats that they stand for."""
    codes = rng.integers(-127, 128, (rows, columns // 32, 32)).astype(np.int8)
    scales = rng.uniform(0.005, 0.01, (rows, columns // 32)).astype("<f2")
    packed = np.concatenate([scales[:, :, None].view(np.uint8), codes.view(np.uint8)], axis=2)
    return packed.reshape(rows, -1), (codes * scales[:, :, None].astype(np.float32)).reshape(rows, columns)


@pytest.fixture(scope="module")
def weights() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return weights as a GGUF file has them, and as floats."""
    rng = np.random.default_rng(0)
    side = SIZES.kv_heads * SIZES.head
    made = {"token_embd.weight": q8_0(rng, TOKENS, SIZES.width)}
    for layer in range(SIZES.layers):
        shapes = {"attn_q": (64, 64), "attn_k": (side, 64), "attn_v": (side, 64), "attn_output": (64, 64)}
        shapes |= {"ffn_gate": (INNER, 64), "ffn_up": (INNER, 64), "ffn_down": (64, INNER)}
        made |= {f"blk.{layer}.{name}.weight": q4_1(rng, *shape) for name, shape in shapes.items()}
        norms = {f"blk.{layer}.{name}_norm.weight": rng.uniform(0.5, 1.5, 64) for name in ("attn", "ffn")}
        made |= {name: (value.astype(np.float32),) * 2 for name, value in norms.items()}
    made["output_norm.weight"] = (np.ones(64, np.float32),) * 2
    return {name: pair[0] for name, pair in made.items()}, {name: pair[1] for name, pair in made.items()}


def expected(ids: list[int], floats: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits of a text, by the definition of the architecture."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + SIZES.epsilon) * floats[name]

    def rotated(x: np.ndarray) -> np.ndarray:
        rates = SIZES.rope_base ** -(np.arange(0, SIZES.head, 2) / SIZES.head)
        turns = np.exp(1j * np.arange(len(ids))[:, None] * rates)[:, None]
        return np.asarray((x[..., ::2] + 1j * x[..., 1::2]) * turns)

    x = floats["token_embd.weight"][ids]
    for layer in range(SIZES.layers):
        part = {name: floats[f"blk.{layer}.{name}.weight"] for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        normed = norm(x, f"blk.{layer}.attn_norm.weight")
        query, key, value = (
            (normed @ part[name].T).reshape(len(ids), -1, SIZES.head) for name in ("attn_q", "attn_k", "attn_v")
        )
        group = SIZES.heads // SIZES.kv_heads
        key, value = rotated(key).repeat(group, axis=1), value.repeat(group, axis=1)
        scores = np.einsum("qhd,khd->hqk", rotated(query), key.conj()).real / np.sqrt(SIZES.head)
        scores = np.where(np.tri(len(ids)) > 0, scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", shares, value).reshape(len(ids), -1) @ part["attn_output"].T
        normed = norm(x, f"blk.{layer}.ffn_norm.weight")
        gate = normed @ floats[f"blk.{layer}.ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (normed @ floats[f"blk.{layer}.ffn_up.weight"].T)
        x = x + inner @ floats[f"blk.{layer}.ffn_down.weight"].T
    return np.asarray(norm(x, "output_norm.weight") @ floats["token_embd.weight"].T)


def test_a_decoder_answers_as_its_architecture_says_at_once_and_word_by_word(
    weights: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
) -> None:
    if tuple(map(int, ort.__version__.split(".")[:2])) < (1, 22):
        pytest.skip("MatMulNBits of 8 bits came with ONNX Runtime 1.22")
    blocks, floats = weights
    session = ort.InferenceSession(llama.decoder(SIZES, blocks).SerializeToString())
    ids, past = [3, 17, 0, 39, 8], llama.past(SIZES.layers)
    assert [each.name for each in session.get_outputs()] == ["logits", *past.values()]
    empty = np.zeros((1, SIZES.kv_heads, 0, SIZES.head), np.float32)

    def ask(tokens: list[int], held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = session.run(None, {"input_ids": np.array([tokens], np.int64), **held})
        return dict(zip(["logits", *past], found, strict=True))

    whole = ask(ids, dict.fromkeys(past, empty))
    logits, wanted = whole.pop("logits")[0], expected(ids, floats)
    # MatMulNBits rounds its inputs to 8 bits.
    assert np.corrcoef(logits.ravel(), wanted.ravel())[0, 1] > 0.999
    assert whole["past_key_values.0.key"].shape == (1, SIZES.kv_heads, len(ids), SIZES.head)
    held = dict.fromkeys(past, empty)
    for token, row in zip(ids, logits, strict=True):
        held = ask([token], held)
        assert np.abs(held.pop("logits")[0, 0] - row).max() < 0.02 * np.abs(row).max()
