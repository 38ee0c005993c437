"""Small tokenizer.json files, written by hand: WordPiece, BPE, Unigram."""

from __future__ import annotations

import json
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word_piece(**changes: Any) -> dict[str, Any]:
    """Return BERT's way of splitting, with a few words."""
    words = [*SPECIAL, "a", "dog", "cat", "bark", "##s", "meow"]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for i, word in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {word: i for i, word in enumerate(words)}},
        **changes,
    }  # fmt: skip


def bpe(**changes: Any) -> dict[str, Any]:
    """Return GPT-2's way of splitting, with three merges."""
    vocabulary = ["<|end|>", "a", "b", "c", "Ġ", "ab", "abc", "Ġab"]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(vocabulary)}, "merges": ["a b", "ab c", "Ġ ab"]},
        **changes,
    }  # fmt: skip


def unigram() -> dict[str, Any]:
    """Return SentencePiece's way of splitting, with a few pieces."""
    pieces = [["<unk>", 0.0], ["▁", -2.0], ["▁ab", -1.0], ["c", -3.0], ["a", -4.0], ["b", -4.0]]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }  # fmt: skip


def json_of(tokenizer: dict[str, Any]) -> bytes:
    """Return a tokenizer as its file."""
    return json.dumps(tokenizer).encode()
