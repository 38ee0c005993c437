"""Protocol between the agent and its client: one JSON object per line, UTF-8, at most 1 MiB.

    the agent's first line   {"agent": 1, "runtime": "0.1.0", "python": "3.11.2"}
    a request                {"op": "switch", "name": "magika", "digest": "...", "keep": 3}
    on the way to an answer  {"progress": ["switch", 0, 1]}
    an answer                {"ok": true, ...} or {"ok": false, "exit": 14, "kind": "MemoryBudgetError", "error": "..."}

`schema` says which fields each operation takes and which it answers with: the agent checks requests with it, and the
host checks the answers of a device, which may be hostile, damaged or of another version. Both ignore fields that
aren't in the table, as the other side may be newer.

    schema     the table of operations
    fields     checks of a request's fields
    checks     checks of an answer's values
    failures   errors as answers
    transport  the agent's end of the connection
"""
