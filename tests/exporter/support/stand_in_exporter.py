"""Stand in for seed-export in tests of batches: write a seed at once, or do what the model's name says. No tests.

A seed is a digest of the model's bytes and the options, so that equal seeds are made of equal things.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
model, output = Path(sys.argv[-1]), Path(options["output"])
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if model.stem == "bad":
    sys.exit("seed-export: the model is bad; give a good one")
if model.stem == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if model.stem == "endless":
    part = output.with_name(".seed-00000000.part")

    def stop(*_: object) -> None:
        part.unlink()
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    part.write_bytes(b"half a seed")
    time.sleep(60)
facts = {name: value for name, value in options.items() if name not in ("jobs", "output", "report")}
output.write_bytes(b"\x89SEED\r\n\x1a" + hashlib.sha256(model.read_bytes() + repr(facts).encode()).digest())
if "report" in options:
    Path(options["report"]).write_text("<!doctype html>")
print(json.dumps({"seed": str(output), "bytes": 40, "ratio": 5.0, "cores": cores, "jobs": int(options["jobs"])}))
if model.stem == "interrupted":
    sys.exit(130)
if model.stem == "missed":
    print("seed-export: the goal was not met; ask for less", file=sys.stderr)
    sys.exit(15)
