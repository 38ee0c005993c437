"""A tokenizer.json of the package tokenizers, checked before that package reads it.

What it may hold is a list: kinds of components whose time and memory are bounded by the text, and regular expressions
that were looked at one by one. So a hostile one can neither run without end nor make a text grow without bound.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from seed_runtime.errors import FormatError, LimitError, UnsupportedError, too_new
from seed_runtime.limits import VOCABULARY_MAX
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline

_COMPONENTS: Final[dict[str, frozenset[str]]] = {
    "normalizer": frozenset(
        ("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
         "Replace", "Sequence", "Strip", "StripAccents")
    ),
    "pre_tokenizer": frozenset(
        ("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence",
         "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit")
    ),
    "post_processor": frozenset(
        ("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing")
    ),
    "decoder": frozenset(
        ("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece")
    ),
}  # fmt: skip
_MODELS: Final = ("BPE", "Unigram", "WordLevel", "WordPiece")
_GPT4: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
"""What stands before and behind the digits in the expressions of cl100k, Llama 3 and Qwen 2."""
_PATTERNS: Final = frozenset(
    (
        r"\s+",
        r" {2,}",
        r"\p{N}",
        r"\p{N}{1,3}",
        # GPT-2.
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"\p{N}{1,3}".join(_GPT4),
        r"\p{N}".join(_GPT4),
    )
)
"""Regular expressions whose alternatives never match the same text in many ways."""
_PARTS_MAX: Final = 16
"""Largest number of components of a role, in all sequences together."""
_WORD_MAX: Final = 200
"""Largest word of WordPiece, whose time grows with its square [character]."""
_PIECE_MAX: Final = 64
"""Largest piece of Unigram, which looks for all pieces that begin at each character [character]."""
_PIECES_MAX: Final = 6 << 20
"""Largest number of characters of all its pieces."""
_TREE_BYTES: Final = 340
"""Memory that a character of a piece takes in Unigram's tree, at most [B]."""
_READING: Final = 24
"""Memory that reading takes at its peak, in sizes of the file: SmolLM2's 3.5 MB took 69 MB."""
_TEXT_BYTES: Final = 512
"""Memory that a byte of a text takes while it is split, most of it for tokens of one byte [B]: 390 were measured."""
_AFFIX_MAX: Final = 16
"""Largest mark of parts of words, which is copied at each attempt to find one [character]."""
_MODEL_FIELDS: Final = {
    "max_input_chars_per_word": _WORD_MAX,
    "continuing_subword_prefix": _AFFIX_MAX,
    "end_of_word_suffix": _AFFIX_MAX,
}
"""Largest values of a model's fields: a number of characters, or a text of so many."""
_GROWTH_MAX: Final = 16.0
"""How much longer all replacements together may make a text."""
_REPLACED_MAX: Final = 64
"""Largest text that a table of `Precompiled` puts in place of a character [B]."""
_PRECOMPILED_GROWTH: Final = 8.0
"""What such a table counts as among the replacements, so that there is no second one and no long one beside it."""
_TEMPLATE_MAX: Final = 64
"""Largest number of tokens that a template adds."""
_ADDED_MAX: Final = 1 << 16
_ADDED_TEXT_MAX: Final = 1 << 20
"""Largest number of characters of all tokens that are added: those of 13 MB took 40 s to read."""
_Found = TypeVar("_Found")


def load_tokenizer(data: bytes | memoryview, where: str, limit: int | None = None) -> Any:
    """Return the tokenizer of package tokenizers, without truncation and padding.

    Args:
        data: a tokenizer.json, whose vocabulary may be in the form of `expanded`.
        where: names the place in error messages.
        limit: of --max-memory; None for none [B].

    Raises:
        FormatError: it is none, or asks for too much.
        MemoryBudgetError: reading it takes too much memory.
        UnsupportedError: it has a component that isn't on the list, or the package is missing.
    """
    try:
        import tokenizers
    except ImportError:
        raise UnsupportedError(
            "texts are split by the package tokenizers, which isn't installed here; install it "
            "(pip install 'seed-runtime[text]'), or give the model's inputs with --input x.npz"
        ) from None
    parsed = parse_tokenizer(data, where)
    check_budget("reading the tokenizer", baseline().resident + _reading_bytes(parsed, data), limit, cgroup_limit())
    checked = expanded(parsed, where)
    checked["truncation"] = checked["padding"] = None
    # Merges that are left out at random are for training; an answer is the same each time.
    checked["model"].pop("dropout", None)
    return call_tokenizer(lambda: tokenizers.Tokenizer.from_str(json.dumps(checked)), where, "can't be read")


def check_splitting(name: str, size: int, limit: int | None = None) -> None:
    """Check that there is memory to split a text.

    Args:
        name: of the text, for messages.
        size: of the text [B].
        limit: of --max-memory; None for none [B].

    Raises:
        MemoryBudgetError: it takes too much.
    """
    check_budget(f"splitting {name}", baseline().resident + size * _TEXT_BYTES, limit, cgroup_limit())


def _reading_bytes(tokenizer: Mapping[str, Any], data: bytes | memoryview) -> int:
    """Return the memory that reading a tokenizer takes at its peak [B]."""
    model = tokenizer["model"]
    pieces = model["vocab"] if model["type"] == "Unigram" else ()
    tree = sum(len(each[0]) for each in pieces if isinstance(each, list) and each and isinstance(each[0], str))
    return _READING * len(data) + _TREE_BYTES * tree


def call_tokenizer(work: Callable[[], _Found], where: str, problem: str = "fails") -> _Found:
    """Return what a call of the package gives; what it raises becomes a FormatError.

    Args:
        work: the call.
        where: names the place in error messages.
        problem: what the tokenizer does if the call raises.
    """
    try:
        return work()
    except MemoryError:
        raise
    except BaseException as error:
        # A panic of the package is no Exception, but neither is a signal.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FormatError(where, f"the tokenizer {problem} ({error})") from None


def parse_tokenizer(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """Read and check a tokenizer.json; for what is raised see `load_tokenizer`."""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"the tokenizer is no JSON ({error})") from None
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise FormatError(where, "the tokenizer has no model")
    growth = 1.0
    for role, kinds in _COMPONENTS.items():
        for count, part in enumerate(_parts(value.get(role), where, 0), start=1):
            if count > _PARTS_MAX:
                raise FormatError(where, f"the tokenizer has more than {_PARTS_MAX} components as {role}")
            kind = part.get("type")
            if not isinstance(kind, str) or kind not in kinds:
                raise too_new(where, f"{role} {str(kind)[:40]!r}")
            growth *= _growth(part, role, where)
            _check_template(part, where)
    if growth > _GROWTH_MAX:
        raise FormatError(where, "the tokenizer's replacements would make a text too long")
    _check_model(value["model"], where)
    added = value.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > _ADDED_MAX:
        raise FormatError(where, f"the tokenizer adds no list of at most {_ADDED_MAX:,} tokens")
    if sum(len(str(each.get("content", ""))) for each in added if isinstance(each, dict)) > _ADDED_TEXT_MAX:
        raise FormatError(where, f"the tokenizer adds tokens of more than {_ADDED_TEXT_MAX:,} characters")
    return value


def expanded(tokenizer: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a tokenizer whose vocabulary is an object, from one that may have it as a list in the order of ids.

    An element of the list is a token, null for an id without one, or a number n: the next n tokens are those that the
    next n merges make.
    """
    model = tokenizer["model"]
    vocabulary = model.get("vocab")
    if model.get("type") == "Unigram" or not isinstance(vocabulary, list):
        return tokenizer
    merges = model.get("merges")
    merged = ("".join(_pair(merge)) for merge in (merges if isinstance(merges, list) else []))
    found: dict[str, int] = {}
    number = 0
    for element in vocabulary:
        if isinstance(element, int) and not isinstance(element, bool):
            if not 0 < element <= VOCABULARY_MAX - number:
                raise LimitError(f"{where}: tokens", number + max(element, 0), VOCABULARY_MAX)
            for _ in range(element):
                token = next(merged, None)
                if token is None:
                    raise FormatError(where, "the vocabulary refers to merges that aren't there")
                found[token] = number
                number += 1
            continue
        if element is not None:
            found[str(element)] = number
        number += 1
    return {**tokenizer, "model": {**model, "vocab": found}}


def _pair(merge: object) -> Sequence[str]:
    if isinstance(merge, str):
        return merge.split(" ")
    return [str(each) for each in merge] if isinstance(merge, list) else []


def _parts(part: object, where: str, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield a component, and those that it is a sequence of."""
    if part is None:
        return
    if not isinstance(part, dict) or depth > 2:
        raise FormatError(where, "a component of the tokenizer is no object")
    yield part
    if part.get("type") == "Sequence":
        lists = [each for key, each in part.items() if key != "type"]
        inner = lists[0] if len(lists) == 1 else None
        if not isinstance(inner, list):
            raise FormatError(where, "a sequence of the tokenizer is no list of components")
        for each in inner:
            yield from _parts(each, where, depth + 1)


def _growth(part: Mapping[str, Any], role: str, where: str) -> float:
    """Check the pattern of a component, and return how many times longer it can make a text."""
    if part["type"] == "Prepend":
        return 1.0 if len(str(part.get("prepend", ""))) <= _TEMPLATE_MAX else _GROWTH_MAX + 1
    if part["type"] == "Precompiled":
        _check_precompiled(part.get("precompiled_charsmap"), where)
        return _PRECOMPILED_GROWTH
    if part["type"] == "ByteLevel":
        # A byte above 127 becomes a character of two bytes.
        return 2.0 if role in ("normalizer", "pre_tokenizer") else 1.0
    if part["type"] not in ("Replace", "Split"):
        return 1.0
    pattern = part.get("pattern")
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise FormatError(where, "a pattern of the tokenizer is no object")
    ((kind, text),) = pattern.items()
    if not isinstance(text, str) or not text:
        raise FormatError(where, "a pattern of the tokenizer is empty")
    if kind == "Regex" and text not in _PATTERNS:
        raise UnsupportedError(
            f"{where}: the tokenizer's regular expression {text[:60]!r} isn't among those that are known to end; "
            f"update seed-runtime, or give the model's inputs with --input x.npz"
        )
    least = 1 if kind == "Regex" else len(text)
    return max(1.0, len(str(part.get("content", ""))) / least)


def _check_precompiled(table: object, where: str) -> None:
    """Raise FormatError for a table of replacements that holds a long one.

    Source: sentencepiece, normalizer.cc: the size of a tree, the tree, and replacements that end with a zero.
    """
    try:
        data = base64.b64decode(table if isinstance(table, str) else "", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    start = 4 + int.from_bytes(data[:4], "little")
    if len(data) < 4 or start > len(data):
        raise FormatError(where, "the tokenizer's table of replacements is damaged")
    if max(map(len, data[start:].split(b"\0"))) > _REPLACED_MAX:
        raise FormatError(where, "the tokenizer's replacements would make a text too long")


def _check_template(part: Mapping[str, Any], where: str) -> None:
    if part["type"] != "TemplateProcessing":
        return
    tokens = part.get("special_tokens")
    lists = [part.get("single"), part.get("pair")]
    if isinstance(tokens, dict):
        lists += [each.get("ids") for each in tokens.values() if isinstance(each, dict)]
    if any(not isinstance(each, list) or len(each) > _TEMPLATE_MAX for each in lists):
        raise FormatError(where, f"a template of the tokenizer has more than {_TEMPLATE_MAX} parts")
    # Each time that a template names the text, all of its tokens are copied.
    if sum("Sequence" in each for each in part["single"] if isinstance(each, dict)) > 1:
        raise FormatError(where, "a template of the tokenizer repeats the text")


def _check_model(model: Mapping[str, Any], where: str) -> None:
    if model.get("type") not in _MODELS:
        raise too_new(where, f"a tokenizer's model {str(model.get('type'))[:40]!r}")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict | list):
        raise FormatError(where, "the tokenizer has no vocabulary")
    if len(vocabulary) > VOCABULARY_MAX:
        raise LimitError(f"{where}: tokens", len(vocabulary), VOCABULARY_MAX)
    for field, most in _MODEL_FIELDS.items():
        value = model.get(field)
        if value is None:
            continue
        size = value if isinstance(value, int) else len(value) if isinstance(value, str) else -1
        if size < 0:
            raise FormatError(where, f"the tokenizer's {field} can't be used")
        if size > most:
            raise LimitError(f"{where}: characters of {field}", size, most)
    if model["type"] == "Unigram":
        pieces = [len(each[0]) for each in vocabulary if isinstance(each, list) and each and isinstance(each[0], str)]
        for what, size, most in (("a piece", max(pieces, default=0), _PIECE_MAX), ("pieces", sum(pieces), _PIECES_MAX)):
            if size > most:
                raise LimitError(f"{where}: characters of {what}", size, most)
