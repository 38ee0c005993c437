"""One optimizer step, recorded once and played back on a GPU.

What a GPU computes in a step of ResNet-50 are some 3,000 small pieces, and to start them takes the host longer than the
GPU needs for them. A CUDA graph starts all of them at once. It needs inputs of equal shapes, and a step in which
nothing is asked of the GPU: where that isn't so, steps are computed one piece after another.

Source: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from seed_runtime.errors import UnsupportedError

_WARM: Final = 3
"""Steps of a set of shapes before it is recorded: libraries choose their algorithms and make their workspaces."""
_GRAPHS_MOST: Final = 8
"""Most sets of shapes that are recorded."""


class Stepper:
    """Computes the loss of batches, its gradient, and the optimizer's step.

    A gradient that isn't finite changes nothing. Nothing waits for the GPU.

    Args:
        loss: of a batch.
        optimizer: fused Adam.
        clip: largest norm of a gradient; None for any.
        recordable: whether `loss` computes the same with the same tensors each time.
        heard: is told the norm of each gradient.
    """

    def __init__(
        self,
        loss: Callable[[Mapping[str, Tensor]], Tensor],
        optimizer: torch.optim.Optimizer,
        clip: float | None,
        recordable: bool,
        heard: Callable[[Tensor], None] = lambda norm: None,
    ) -> None:
        self._loss, self._optimizer, self._clip, self._heard = loss, optimizer, clip, heard
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._records = recordable and bool(self._parameters) and self._parameters[0].is_cuda
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self._seen: dict[Any, int] = {}

    def step(self, batch: Mapping[str, Tensor]) -> None:
        """Take one step."""
        if not self._records:
            self._compute(batch)
            return
        shapes = tuple((name, tuple(value.shape), value.dtype) for name, value in sorted(batch.items()))
        if (recorded := self._recorded.get(shapes)) is not None:
            graph, held = recorded
            for name, value in batch.items():
                held[name].copy_(value, non_blocking=True)
            graph.replay()
            return
        self._compute(batch)
        self._seen[shapes] = self._seen.get(shapes, 0) + 1
        if self._seen[shapes] >= _WARM and len(self._recorded) < _GRAPHS_MOST:
            self._record(shapes, batch)

    def _record(self, shapes: Any, batch: Mapping[str, Tensor]) -> None:
        held = {name: value.clone() for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        pool = next((first.pool() for first, _ in self._recorded.values()), None)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what a recorded step computes with is its own
        try:
            with torch.cuda.graph(graph, pool, torch.cuda.current_stream(), "thread_local"):
                self._compute(held)
        except (RuntimeError, UnsupportedError):
            # A step asks the GPU for something, or copies to it from the host.
            self._records = False
            torch.cuda.synchronize()
            _renew_random_state()
            return
        self._recorded[shapes] = graph, held

    @property
    def recorded(self) -> int:
        """Number of sets of shapes whose steps are played back."""
        return len(self._recorded)

    def _compute(self, batch: Mapping[str, Tensor]) -> None:
        optimizer: Any = self._optimizer
        # Gradients stay where they are: a recorded step writes to the same places.
        optimizer.zero_grad(set_to_none=False)
        self._loss(batch).backward()
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._heard(norm.detach())
        # What torch's scaler of mixed precision tells a fused optimizer: to divide gradients, and to leave out a step.
        optimizer.grad_scale = torch.ones_like(norm) if self._clip is None else (norm / self._clip).clamp_min(1)
        optimizer.found_inf = (~torch.isfinite(norm)).to(norm.dtype)
        optimizer.step()


def _renew_random_state() -> None:
    """Let the GPU draw random numbers again, as dropout does.

    A recording that fails doesn't end in the generator, which refuses to draw outside of it from then on.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    fresh = torch.Generator("cuda").manual_seed(generator.initial_seed() + 1)
    generator.graphsafe_set_state(fresh.graphsafe_get_state())
