"""Part 0x8002: what stands before and behind a model, as a description and files that it names.

What the description means is in processing/; here are the bytes alone (SPEC.md, "Processing").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seed_runtime.errors import FormatError
from seed_runtime.format import primitives
from seed_runtime.format.parts.kind import PartKind
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import ATTACHMENTS_MAX, DESCRIPTION_MAX, PROCESSING_RAW_MAX

PROCESSING: Final = PartKind(0x8002, "processing", None, is_early=True)

_WHERE: Final = "processing"


def unpack(data: bytes | memoryview) -> tuple[bytes, dict[str, memoryview]]:
    """Split the part into its description and its attachments by name; nothing is copied but the description.

    Raises:
        FormatError: it breaks a rule of SPEC.md.
    """
    cursor = Cursor(data, _WHERE)
    size = cursor.varint("size of the description", limit=DESCRIPTION_MAX)
    description = bytes(cursor.take(size, "description"))
    attachments: dict[str, memoryview] = {}
    last = ""
    for _ in range(cursor.varint("number of attachments", limit=ATTACHMENTS_MAX)):
        name = cursor.string("name of an attachment")
        if name.encode() <= last.encode():
            raise FormatError(_WHERE, f"attachment {name!r} may not stand behind {last!r}")
        size = cursor.varint("size of an attachment", limit=PROCESSING_RAW_MAX)
        attachments[name], last = cursor.take(size, f"attachment {name!r}"), name
    cursor.end()
    return description, attachments


def pack(description: bytes, attachments: Mapping[str, bytes]) -> bytes:
    """Join a description and attachments to the bytes that `unpack` reads; ValueError for a name that can't be one."""
    return b"".join(
        [
            primitives.varint(len(description)),
            description,
            primitives.varint(len(attachments)),
            *(
                primitives.string(name) + primitives.varint(len(data)) + data
                for name, data in sorted(attachments.items(), key=lambda item: item[0].encode())
            ),
        ]
    )
