"""Attack cases: for each field of SPEC.md, values that a hostile seed may write into it.

Each is a seed whose digests are all valid for the bytes that it has.
"""

from __future__ import annotations

from tests.attacks.support import delta_attacks, header_attacks, stream_attacks
from tests.attacks.support.attack import ATTACKS, Attack

__all__ = ["ATTACKS", "Attack"]

CASES = (header_attacks, stream_attacks, delta_attacks)
"""The modules that fill ATTACKS."""
