"""Vocabularies of the texts: 30,522 WordPieces as BERT's, 50,257 byte pairs as GPT-2's, of the training sides.

Written are `wordpiece.json.xz` and `bytepairs.json.xz`, files of the package `tokenizers`.
"""

from __future__ import annotations

import json
from pathlib import Path

from .files import BETWEEN, Said, read_text, write_text

WORDPIECES, BYTEPAIRS = 30522, 50257
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids 0 to 4
END = "<|endoftext|>"  # the last id of the byte pairs
ENOUGH = 60_000_000  # characters to learn from


def make(cache: Path, out: Path, say: Said, jobs: int = 1) -> dict[str, int]:
    """Learn both vocabularies from the data in `out`; all cores work, and the result doesn't depend on their number."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    documents = _documents(out)
    say(f"learning from {len(documents)} documents")
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(
        documents,
        trainers.WordPieceTrainer(
            vocab_size=WORDPIECES, special_tokens=SPECIAL, limit_alphabet=400, show_progress=False
        ),
    )
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        documents, trainers.BpeTrainer(vocab_size=BYTEPAIRS - 1, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    pairs.add_special_tokens([END])
    for tokenizer, name in ((words, "wordpiece"), (pairs, "bytepairs")):
        write_text(out / f"{name}.json.xz", tokenizer.to_str())
    return {"wordpieces": words.get_vocab_size(), "byte pairs": pairs.get_vocab_size()}


def _documents(out: Path) -> list[str]:
    found: list[str] = json.loads(read_text(out / "sections-train.json.xz"))["text"]
    size = sum(map(len, found))
    for path in sorted(out.glob("english-train-*.txt.xz")):
        if size < ENOUGH:
            part = read_text(path).split(BETWEEN)
            found += part
            size += sum(map(len, part))
    return found
