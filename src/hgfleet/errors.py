"""Every failure of hgfleet, classed by what to do about it.

Promises: each error carries a stable code, a constant lower-case message, structured context and, where a
person can act, a hint; its class says what a loop does, what an HTTP client gets and how a command exits.
Does not: log, translate for Mercurial's wire protocol or decide how often to retry.
"""

from __future__ import annotations

from typing import ClassVar

NOTHING_CHANGED = "nothing was changed"
NOT_CONFIRMED = "not confirmed: it may still appear; push again to find out"


class FleetError(Exception):
    """A failure with a stable `code`, a constant `message`, a `hint` and named context values."""

    exit_code: ClassVar[int] = 70
    http_status: ClassVar[int] = 500

    def __init__(self, code: str, message: str, *, hint: str = "", **context: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        detail = ", ".join(f"{name}={value}" for name, value in self.context.items())
        return f"{self.message} ({detail})" if detail else self.message


class RejectedError(FleetError):
    """A rule refuses the request; the same request will be refused again."""

    exit_code = 1
    http_status = 400

    def __init__(
        self, code: str, message: str, *, hint: str = "", status: int = 400, **context: object
    ) -> None:
        super().__init__(code, message, hint=hint, **context)
        self.status = status


class TransientError(FleetError):
    """The same call may succeed later, and this one changed nothing."""

    exit_code = 75
    http_status = 503


class InDoubtError(FleetError):
    """Handed over and not confirmed: it may still take effect. Settle it; never retry it blindly."""

    exit_code = 75
    http_status = 504


class PoisonError(FleetError):
    """This message can never be applied here: park its repository on this host, nothing else."""


class ConfigError(FleetError):
    """The operator must change something before this can start."""

    exit_code = 78


class InvariantError(FleetError):
    """Something proven impossible happened: stop at once and never commit."""
