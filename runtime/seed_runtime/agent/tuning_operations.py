"""The operations of a fine-tune: samples that are sent, and the run on them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import Any

from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.store import Store
from seed_runtime.agent.store.tuning_folder import TuningFolder
from seed_runtime.errors import UsageError


class TuningOperations(ABC):
    """Operations as those of `Agent`, which holds what they need."""

    _transport: Transport
    _store: Store
    _held: contextlib.ExitStack
    _tuned: tuple[str, str] | None

    def tuning_inputs(self, name: str) -> dict[str, Any]:
        """Describe what the version that runs takes as samples."""
        from seed_runtime.agent import tuning

        return tuning.describe_inputs(self._require_model(name))

    def begin_tuning(self, name: str, digest: str, file_size: int) -> dict[str, Any]:
        """Lock a model's fine-tune, and find out what of the samples is here already.

        The lock is held until `release`, the next `begin` or the end of the process.
        """
        from seed_runtime.agent import tuning

        self.release()
        self._require_model(name)
        folder = TuningFolder.of(self._store, name)
        with contextlib.ExitStack() as held:
            held.enter_context(folder.lock(name))
            answer = tuning.receive(folder, digest, file_size)
            self._held = held.pop_all()
        self._tuned = (name, digest)
        return answer

    def tune(
        self,
        name: str,
        digest: str,
        mode: str | None,
        loss: str | None,
        optimizer: str | None,
        steps: int | None,
        rate: float | None,
        rng_seed: int | None,
        time_limit: float | None,
        threads: int | None,
        max_memory: int | None,
        keep: int,
    ) -> dict[str, Any]:
        """Fine-tune the version that runs on the samples that were sent, and switch to it if it is better."""
        if self._tuned != (name, digest):
            raise UsageError(f"no samples were sent for {name}; begin first, and send them")
        from seed_runtime.agent import tuning

        model = self._require_model(name)
        options = {
            "mode": mode, "loss": loss, "optimizer": optimizer, "steps": steps, "rate": rate, "rng_seed": rng_seed,
            "time_limit": time_limit, "threads": threads, "max_memory": max_memory,
        }  # fmt: skip
        return tuning.tune_version(model, digest, options, keep, self._transport, self._locked)

    def stop(self) -> dict[str, Any]:
        """Do nothing: this ends a fine-tune that is under way, and now there is none."""
        return {}

    @abstractmethod
    def release(self) -> dict[str, Any]:
        """Release all locks."""

    @abstractmethod
    def _require_model(self, name: str) -> InstalledModel:
        """Return a model of which there is anything."""

    @abstractmethod
    def _locked(self, name: str) -> contextlib.AbstractContextManager[InstalledModel]:
        """Hold the lock of a model that exists."""
