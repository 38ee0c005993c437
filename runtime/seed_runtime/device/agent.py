"""The former name of `agent.operations`: older hosts import it to find out whether a runtime starts."""

from __future__ import annotations

from seed_runtime.agent.operations import Agent

__all__ = ["Agent"]
