"""JSON of requests that are texts, pictures and sound: small beside its strings, so that it is parsed at once.

A parser makes values of more than twenty times the size of a hostile text such as `[[],[],...`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

from seed_runtime.errors import InputError
from seed_runtime.serve.limits import ENVELOPE_MAX, STRINGS_MAX

# Possessive, so that it keeps nothing to go back to. One that doesn't end is matched as far as the end.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read_object(body: memoryview, what: str, fields: Collection[str]) -> dict[str, Any]:
    """Parse a request.

    Args:
        body: the request, in UTF-8.
        what: names it in messages.
        fields: that it may have.

    Raises:
        InputError: it isn't a JSON object with no other fields, or has more than STRINGS_MAX strings or ENVELOPE_MAX
            bytes beside them.
    """
    beside = len(body)
    for count, match in enumerate(_STRING.finditer(body), start=1):
        if count > STRINGS_MAX:
            raise InputError(f"the {what} has more than {STRINGS_MAX:,} strings; send only {', '.join(fields)}")
        beside -= match.end() - match.start()
    if beside > ENVELOPE_MAX:
        raise InputError(
            f"the {what} has {beside:,} bytes beside its strings, and {ENVELOPE_MAX:,} are allowed; send only "
            f"{', '.join(fields)}"
        )
    try:
        # Not as bytes, in which the parser would also find UTF-16, with other strings.
        found = json.loads(str(body, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the {what} is no JSON ({error})") from None
    if not isinstance(found, dict) or not found.keys() <= set(fields):
        raise InputError(f"a {what} is an object with {', '.join(fields)}")
    return found
