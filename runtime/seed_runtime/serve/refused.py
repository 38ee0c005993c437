"""A request that can't be answered as asked."""

from __future__ import annotations

from http import HTTPStatus

from seed_runtime.errors import InputError, MemoryBudgetError, UnsupportedError


class RefusedError(Exception):
    """The request can't be answered as asked."""

    def __init__(self, status: HTTPStatus, line: str, *, close: bool = False, header: str = "") -> None:
        """Describe the answer.

        Args:
            status: its status.
            line: the text of the error.
            close: close the connection after it.
            header: one more header line.
        """
        super().__init__(line)
        self.status, self.line, self.close, self.header = status, line, close, header


def busy(line: str) -> RefusedError:
    """Return the refusal of a request for which there is no room now; it may be sent again."""
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, line, close=True, header="Retry-After: 1")


def refusal_of(error: BaseException) -> RefusedError | None:
    """Return the refusal of a request by what its work raised; None where the server is at fault."""
    if isinstance(error, InputError):
        return RefusedError(HTTPStatus.BAD_REQUEST, str(error))
    if isinstance(error, MemoryBudgetError):
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
    if isinstance(error, UnsupportedError):  # a package that it needs is missing, or the backend too old for it
        return RefusedError(HTTPStatus.NOT_IMPLEMENTED, str(error))
    return None
