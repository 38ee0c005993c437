"""Serve one model on a Unix socket or a loopback port, with the REST calls of the Open Inference Protocol (v2).

Call `plan_server` before the session is opened, `listen` once it is open, then use `Server`. Messages are in
protocol.py and numbers.py, HTTP in http.py, connections and their threads in server.py. Only the address decides who
may ask: a socket that only its owner can open, or a port that only this machine can reach.
"""

from __future__ import annotations

from seed_runtime.serve.address import Address, listen, parse_address
from seed_runtime.serve.notify import notify_manager
from seed_runtime.serve.plan import ServePlan, generation_of, plan_server, planned_bytes, processing_of
from seed_runtime.serve.protocol import ServedModel, Writer
from seed_runtime.serve.server import Server

__all__ = [
    "Address",
    "ServePlan",
    "ServedModel",
    "Server",
    "Writer",
    "generation_of",
    "listen",
    "notify_manager",
    "parse_address",
    "plan_server",
    "planned_bytes",
    "processing_of",
]
