"""Named limits on everything that a client can ask of the server. Sizes in bytes, times in seconds."""

from __future__ import annotations

CONNECTIONS_MAX = 16
"""Connections that are served at once; each has a thread. One more waits `ADMIT_S`, then it is answered 503."""
CONNECTION_BYTES = 384 << 10
"""What a connection takes in the process: its thread's stack and heap, its buffers, an answer that waits."""

HEAD_MAX = 16 << 10
"""The request line and all headers together."""
ENVELOPE_MAX = 64 << 10
"""The JSON of a request without the numbers in "data"."""
STRINGS_MAX = 4096
"""Strings in it: names, keys and values."""
ID_MAX = 256
"""Characters of a request's id, which is sent back."""
BODY_MAX = 256 << 20
"""What no request may exceed, whatever the model takes."""
BODY_FREE = 64 << 20
"""What a request may have where neither the model nor a plan limits its inputs."""
BODIES_SPARE = 1 << 20
"""All bodies that are held at once may have this much beyond the largest one: small requests pass a big one."""

PORTION = 64 << 10
"""Text that is converted to numbers, or back, at once."""
CONVERSION_BYTES = 4 << 20
"""What the conversion of a portion takes at its highest: lists of Python's numbers."""
ANSWER_HELD = 64 << 10
"""Answers up to this size are sent after the next run may begin. Larger ones keep their arrays, which the plan
counts once: they are sent before it."""

ADMIT_S = 1.0
IDLE_S = 15.0
"""How long a connection may stay open between two requests."""
HEAD_S = 10.0
BODY_S = 10.0
BODY_RATE = 64 << 10
"""A body must come within BODY_S and its size at this rate [B/s]."""
WAIT_S = 30.0
"""How long a request waits for the memory of its body, then it is answered 503."""
ANSWER_S = 30.0
"""How long a client may take to read an answer."""
LINGER_S = 2.0
"""How long the rest of a refused request is read and thrown away, so that the client sees the answer."""
GRACE_S = 30.0
"""How long the requests that run may still take once the server has been told to end."""
