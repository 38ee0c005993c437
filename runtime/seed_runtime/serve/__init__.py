"""Serves one model on a Unix socket or a loopback port, with the REST calls of the Open Inference Protocol (v2).

`plan` before the session is opened, `listening` once it is open, then `Server`. Messages are in protocol.py and
numbers.py, HTTP in http.py, connections and their threads in server.py. Who may ask is decided by the address alone:
a socket that only its owner can open, or a port that only this machine reaches.
"""

from __future__ import annotations

from seed_runtime.serve.address import Address, listening, parse
from seed_runtime.serve.notify import notify
from seed_runtime.serve.plan import ServePlan, plan, planned_bytes
from seed_runtime.serve.protocol import Model
from seed_runtime.serve.server import Server

__all__ = ["Address", "Model", "ServePlan", "Server", "listening", "notify", "parse", "plan", "planned_bytes"]
