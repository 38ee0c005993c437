"""Section SIGNATURE: an SSHSIG blob without armour, which seed_runtime.trust reads."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.sections.section import OPTIONAL, opaque
from seed_runtime.limits import SIGNATURE_MAX

SIGNATURE: Final = opaque(OPTIONAL | 0x7FFF, "SIGNATURE", SIGNATURE_MAX)
"""Section of the signature. Its id is the last one that there is, so that all other sections stand before it and are
signed."""
