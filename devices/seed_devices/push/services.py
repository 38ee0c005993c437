"""Start the services of a device's models, and restart those that run from an older runtime."""

from __future__ import annotations

from typing import Any

from seed_devices.errors import RemoteError
from seed_devices.push.job import Job
from seed_devices.remote.agent_client import AgentClient


def install_service(job: Job, agent: AgentClient) -> dict[str, Any] | None:
    """Let the device serve the model that was pushed; returns what the agent says of the service."""
    with job.phases.phase("service"):
        answer = agent.call(
            "service", job.phases.progress_of("service"), name=job.name, action="install",
            address=job.options.address, memory_max=job.options.max_memory,
        )  # fmt: skip
    service: dict[str, Any] | None = answer.get("service")
    return service


def restart_stale_services(job: Job, agent: AgentClient) -> tuple[list[str], dict[str, RemoteError]]:
    """Restart the services that run from another runtime than the current one, or that failed with it.

    The service of the model that is pushed is left to its switch. A service that fails doesn't end the push.

    Returns:
        Notes for the user, and the errors of services that didn't start, by the names of their models.
    """
    notes, errors = [], {}
    for model in agent.call("status").get("models") or []:
        name, service = model["name"], model.get("service") or {}
        if name == job.name and model.get("current") not in {each.digest for each in job.candidates.alternatives}:
            continue
        if service.get("stale") or service.get("active") == "failed":
            with job.phases.phase("service"):
                try:
                    agent.call(
                        "service", job.phases.progress_of("service"), name=name, action="install",
                        address=service.get("asked"), memory_max=service.get("memory_asked"),
                    )  # fmt: skip
                    notes.append(f"the service of {name} was restarted with the new runtime")
                except RemoteError as error:
                    errors[name] = error
    return notes, errors
