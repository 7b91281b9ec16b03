"""What can go wrong. Up to `Tensor` every class is an error of the Rust client under the same name."""

from __future__ import annotations

from collections.abc import Sequence


class Error(Exception):
    """Whatever mixfeed raises about servers, jobs and batches."""

    queued = False
    """Whether `report` raised this about an earlier report, and has taken the new one."""


class Argument(Error, ValueError):
    """An endpoint, an option or an argument that cannot be used."""


class Invalid(Error, ValueError):
    """The server refused fields of the request; `violations` lists (field, what was expected)."""

    def __init__(self, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class NotFound(Error, LookupError):
    """The server does not know the job, group or source."""


class OtherDigest(Error):
    """The job of this name is another one.

    `expected` and `found` are digests in hexadecimal, empty when not told.
    """

    def __init__(self, message: str, expected: str = "", found: str = "") -> None:
        super().__init__(message)
        self.expected, self.found = expected, found


class FailedPrecondition(Error):
    """Cursor of another spec or branch, other numerics, other data.

    `reason` is a stable key, `details` what belongs to it.
    """

    def __init__(self, message: str, reason: str = "", details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason, self.details = reason, dict(details or {})


class Exhausted(Error):
    """A quota or budget is used up; `retry_after` in seconds where the server says when to ask again."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DataLoss(Error):
    """Records cannot be served: too many bad ones, or the data changed."""


class Aborted(Error):
    """The job was closed, or another loader of the same rank and replica took this one's place."""


class Unavailable(Error, ConnectionError):
    """No endpoint could be reached, or served, for as long as `patience` says."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unimplemented(Error):
    """The server's build lacks this."""


class Denied(Error, PermissionError):
    """Token missing, wrong, or not allowed to do this."""


class Server(Error):
    """The server failed in a way that it has no better code for; `code` is the gRPC status code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


class Corrupt(Error):
    """A tensor arrived with other bytes than the server sent, twice."""


class Protocol(Error):
    """The server does not keep to the contract."""


class Timeout(Error, TimeoutError):
    """Nothing arrived in time."""


class Tensor(Error, KeyError):
    """A batch lacks the tensor, or it is not of the kind that is asked for."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Refused(Error):
    """A report does not count: the server said so, or it lacks what is due."""


class Fenced(Refused):
    """Another attempt of the job's trainer has begun: reports of this one no longer count."""


class StateMismatch(Error, ValueError):
    """A state that does not belong to this loader's job."""


class Closed(Error):
    """The loader, or the stream, was closed."""
