"""One fine-tune by a peer in this process, which holds nothing else: `python finetune_peers.py PEER JOB.json`.

Each peer trains the tensors of a tier with Adam, batch norms as each one trains them: torch with frozen statistics,
MNN with those of the batch, which is what its converter keeps for training. Printed is one JSON object with VmHWM.
Only NumPy and the peer are imported, and what a peer imports on its own is part of what it takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RATE = 1e-4


def main(peer: str, job: Path) -> None:
    """Run a job of `bench.finetune_memory` and print what it took."""
    asked = json.loads(job.read_text())
    with np.load(asked["data"]) as arrays:
        images, labels = arrays["image"], arrays["labels"]
    start = time.perf_counter()
    losses, trained = {"torch": _torch, "mnn": _mnn}[peer](asked, images, labels)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": peak, "losses": losses, "trained": trained, "seconds": time.perf_counter() - start}))


def _batches(asked: dict[str, Any], count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(asked["steps"]):
        yield rng.permutation(count)[: asked["batch"]]


def _torch(asked: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> tuple[list[float], int]:
    """Train in PyTorch's eager mode; gradients of micro-batches are added up, as autograd does by itself."""
    sys.path[:0] = asked["import_from"]
    import torch
    from torch import nn

    torch.set_num_threads(asked["threads"])
    model = torch.load(asked["torch"], weights_only=False).eval().requires_grad_(False)
    layers = list(model.modules())
    of_kind: dict[str, Callable[[], list[nn.Module]]] = {
        "head": lambda: [layer for layer in layers if isinstance(layer, nn.Linear)],
        "small": lambda: [layer for layer in layers if isinstance(layer, nn.Linear | nn.BatchNorm2d)],
        "full": lambda: layers,
    }
    trained = list(dict.fromkeys(each for layer in of_kind[asked["mode"]]() for each in layer.parameters()))
    for each in trained:
        each.requires_grad_()
    optimizer, losses = torch.optim.Adam(trained, RATE), []
    for rows in _batches(asked, len(images)):
        optimizer.zero_grad()
        loss = 0.0
        for start in range(0, len(rows), asked["micro"]):
            part = rows[start : start + asked["micro"]]
            y = model(torch.from_numpy(images[part]))
            share = nn.functional.cross_entropy(y, torch.from_numpy(labels[part]), reduction="sum") / len(rows)
            share.backward()
            loss += float(share.detach())
        optimizer.step()
        losses.append(round(loss, 4))
    return losses, len(trained)


def _mnn(asked: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> tuple[list[float], int]:
    """Train in MNN, whose optimizers add up no gradients: a step has a micro-batch, and only one of 32 is the same job.

    The head is trained on features that a module for inference computes, as nothing below it needs gradients.
    """
    import MNN.expr as expr
    import MNN.nn as nn
    from MNN import optim

    # Otherwise it computes each expression at once and forgets what it was made of, and `step` changes nothing.
    expr.lazy_eval(True)
    expr.set_lazy_mode(0)
    expr.set_thread_number(asked["threads"])
    by_name, mode, size = expr.load_as_dict(asked["mnn"]), asked["mode"], asked["micro"]
    module = nn.load_module([by_name["image"]], [by_name["mean" if mode == "head" else "logits"]], mode != "head")
    del by_name
    classes = asked["classes"]
    module.train(mode != "head")
    features: Any = None
    if mode == "head":
        found = []
        for at in range(0, len(images), size):
            # Read at once: otherwise all parts would be computed together.
            part = expr.convert(module.forward(_variable(expr, images[at : at + size])), expr.NCHW).read()
            found.append(np.array(part).reshape(len(part), -1))
        features = np.concatenate(found)
        module = nn.linear(features.shape[1], classes)
    else:
        for each in module.parameters:
            # Norms are (1, n, 1, 1), kernels have other first sizes; biases of convolutions stay out as they are 0.
            shape = tuple(each.shape)
            is_head, is_norm = shape[0] == classes, len(shape) == 4 and shape[0] == 1
            if each.op_type == "Trainable" and not (is_head or is_norm or (mode == "full" and len(shape) == 4)):
                each.fix_as_const()
    trained = sum(each.op_type == "Trainable" for each in module.parameters)
    optimizer, losses = optim.ADAM(module, RATE), []
    for rows in _batches(asked, len(images)):
        part = rows[:size]
        x = _variable(expr, (images if features is None else features)[part])
        target = expr.one_hot(expr.const(labels[part].astype(np.int32), [size], expr.NCHW, expr.int), classes, 1.0, 0.0)
        y = expr.reshape(expr.convert(module.forward(x), expr.NCHW), [size, classes])
        loss = nn.loss.cross_entropy(expr.softmax(y, 1), target)
        if not optimizer.step(loss):
            raise RuntimeError("MNN found no gradient")
        losses.append(round(float(loss.read()), 4))
    return losses, trained


def _variable(expr: Any, array: np.ndarray) -> Any:
    return expr.const(np.ascontiguousarray(array), list(array.shape), expr.NCHW)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
