"""Limits on everything that a client can make the server do or hold. Sizes are in bytes, times in seconds."""

from __future__ import annotations

CONNECTIONS_MAX = 64
"""Number of connections served at once. One more waits `ADMIT_S` for a place, or gets that of one that has sent no
whole head for `PATIENCE_S`; otherwise it is answered 503."""
CONNECTION_BYTES = 96 << 10
"""Memory of one connection: its head, its buffers, an answer that waits to be sent."""
BESIDE_MAX = 64
"""Number of connections beside them, which wait to be served, or were answered for the last time and whose rest is
discarded. Further ones wait in the kernel."""
REQUESTS_MAX = 16
"""Number of inference requests at once, from their heads to their answers. One more waits `ADMIT_S` for a place,
or gets that of one whose body comes too slowly; otherwise it is answered 503."""

HEAD_MAX = 16 << 10
"""Largest size of the request line and all headers together."""
ENVELOPE_MAX = 64 << 10
"""Largest size of a request's JSON without the numbers in "data"."""
TEXTS_MAX = 1 << 16
"""Largest number of elements of an input of text: a short text takes ten times its size in memory."""
TEXT_COPIES = 5
"""Memory of an input of text, in sizes of the request: four bytes a character, and a copy for the model."""
TEXT_BYTES = 4096
"""Size of a text that a plan makes room for, in a model whose inputs were measured."""
STRINGS_MAX = 4096
"""Largest number of strings in that JSON: names, keys and values."""
ID_MAX = 256
"""Longest id of a request, in characters; it is sent back."""
BODY_MAX = 256 << 20
"""Largest body of a request, whatever the model takes."""
BODY_FREE = 64 << 20
"""Largest body of a request where neither the model nor a plan limits the inputs."""
BODY_BESIDE_TEXTS = 8 << 20
"""Largest body of tensors under --max-memory for a model that writes texts: a past in JSON would have several times
its size, and take the room of texts."""
ASKED_BODY = 8 << 20
"""Largest body of a question about a picture or a sound: in base64, a file of 6 MB. Smaller than what tensors may be
where these are larger."""
ASKED_TEXT = 1 << 20
"""Largest body of a question about texts."""
ASKED_MAX = 64
"""Largest number of samples in a question."""
ASKED_TOP_MAX = 1000
"""Largest number of labels or boxes that a question may ask for: an answer has as many for each sample."""
WRITTEN_MAX = 4
"""Number of texts that are written side by side, where memory has room for their keys and values. Further ones wait
`WAIT_S`; then they are answered 503."""
PROMPTS_MAX = 12
"""Number of requests for texts among REQUESTS_MAX: written and waiting ones keep their places for minutes, and would
leave none for tensors."""
PROMPT_BODY = 256 << 10
"""Largest body of a request for a text."""
ASKED_COPIES = 3
"""Memory of a question in sizes of its body: as text, as its values, and decoded."""
BODIES_SPARE = 1 << 20
"""Size that all bodies held at once may have beyond the largest one, so that small requests pass a large one."""
EMPTY_MAX = 1 << 20
"""Largest product of the other sizes of a tensor that has a size of 0."""

PORTION = 64 << 10
"""Size of the text that is converted to numbers, or back, at once."""
CONVERSION_BYTES = 4 << 20
"""Peak memory of converting a portion: lists of Python's numbers."""
ANSWER_HELD = 64 << 10
"""Largest answer that is sent after the next run may begin. The arrays of larger answers stay allocated while they are
sent, and the plan counts them once, so these are sent before the next run."""

ADMIT_S = 1.0
"""Time that a connection or a request waits for a place; then it is answered 503."""
PATIENCE_S = 0.5
"""As HEAD_S and BODY_S, while others wait for a place. It is half of ADMIT_S, so
that who waits can get the place of one that came just before."""
IDLE_S = 15.0
"""Time that a connection may stay open between two requests."""
HEAD_S = 10.0
"""Time within which the request line and all headers must arrive."""
BODY_S = 10.0
"""Time by which a body may be behind one that comes at BODY_RATE."""
BODY_RATE = 64 << 10
"""Lowest rate at which a body must arrive, in bytes per second."""
WAIT_S = 30.0
"""Time that a request waits for the memory of its body, and one for a text for its place; then it is answered 503."""
ANSWER_S = 30.0
"""Time within which a client must read an answer."""
GENERATE_S = 120.0
"""Time after which a text ends with what there is, as others wait for its place."""
LINGER_S = 2.0
"""Time for which the rest of a refused request is read and discarded, so that the client sees the answer."""
GRACE_S = 30.0
"""Time that running requests may still take once the server is ending."""
ENDING_S = 2.0
"""Time in which a request that is coming must be complete once the server is ending; otherwise it is answered 503."""
