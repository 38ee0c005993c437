"""Put the bodies of a model's own functions where they are called.

A function imports opsets of its own. onnx's inliner leaves calls of functions whose opsets differ from the model's,
and its conversion of their nodes guesses where shapes matter, so all are first brought to one opset in which no node
of any of them changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from seed_exporter.graph.versions import is_same_at, plain_domain
from seed_runtime.errors import UnsupportedError


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without functions, weights of their bodies included.

    Args:
        model: it is changed: its opsets are made those of its functions.

    Raises:
        UnsupportedError: a function is written for another opset in which its nodes, or the model's, mean another
            thing; or the functions can't be expanded.
    """
    from onnx import inliner

    for domain in dict.fromkeys(plain_domain(each.domain) for _, _, imports in _bodies(model) for each in imports):
        _unify(model, domain)
    try:
        inlined = inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises whatever its C++ side threw
        raise UnsupportedError(
            f"the model's functions can't be expanded ({error}); export it without functions"
        ) from error
    if inlined.functions:
        names = ", ".join(repr(function.name) for function in inlined.functions)
        raise UnsupportedError(f"the model's functions {names} can't be expanded; export it without functions")
    return inlined


def _unify(model: onnx.ModelProto, domain: str) -> None:
    """Make the model and all functions import one opset of a domain: the first in which none of them changes."""
    used = {name: (nodes, version) for name, nodes, imports in _bodies(model) if (version := _version(imports, domain))}
    versions = dict.fromkeys(version for _, version in used.values())
    # Functions of the model's own domains have no schemas: what their calls mean doesn't depend on the opset.
    own = domain in {plain_domain(function.domain) for function in model.functions}
    for target in versions:
        if own or all(old == target or is_same_at(nodes, domain, old, target) for nodes, old in used.values()):
            break
    else:
        first, *_ = versions
        name, other = next((name, version) for name, (_, version) in used.items() if version != first)
        raise UnsupportedError(
            f"{name} is written for opset {other} of {domain or 'ai.onnx'} and other parts of the model for {first}, "
            f"between which its operators changed; export all of it for one opset"
        )
    for _, _, imports in _bodies(model):
        for each in imports:
            if plain_domain(each.domain) == domain:
                each.version = target
    if _version(model.opset_import, domain) is None:
        model.opset_import.add(domain=domain, version=target)


def _bodies(
    model: onnx.ModelProto,
) -> Iterator[tuple[str, Sequence[onnx.NodeProto], Sequence[onnx.OperatorSetIdProto]]]:
    """Yield the model and each function: what it is called in messages, its nodes and its opsets."""
    yield "the model's graph", model.graph.node, model.opset_import
    for function in model.functions:
        yield f"function {function.name!r}", function.node, function.opset_import


def _version(imports: Sequence[onnx.OperatorSetIdProto], domain: str) -> int | None:
    return next((each.version for each in imports if plain_domain(each.domain) == domain), None)
