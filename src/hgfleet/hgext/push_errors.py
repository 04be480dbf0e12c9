"""Turns whatever stops a push on this host into the one line that its pusher reads.

Mercurial answers an Abort in its protocol; anything else would end the stream with "stream ended
unexpectedly".

Promises: the line says "nothing was changed" only when the log has not taken the change and was not asked, or
refused; after the log has accepted it, the line says that.
Does not: hide defects: what is none of the expected failures stays an internal error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from mercurial import bundle2, error
from mercurial.pure.mpatch import mpatchError

from hgfleet.hgext import binding
from hgfleet.hgext.refusals import nothing_changed

# What Mercurial raises when the data that it is given is damaged or does not fit.
MISFITS = (
    error.Error,
    error.RepoError,
    mpatchError,
    struct.error,
    zlib.error,
    ValueError,
    IndexError,
    KeyError,
    AssertionError,
)


def unbundle(orig: Callable[..., Any], repo: Any, bundle: Any, *args: Any) -> Any:
    """Stand in for `exchange.unbundle`: the same, but every expected failure is an Abort."""
    if getattr(repo, "hgfleet", None) is None:
        return orig(repo, bundle, *args)
    bound = binding.of(repo)
    bound.accepted = None
    try:
        return orig(repo, bundle, *args)
    except (error.Abort, error.BundleValueError, error.PushRaced):
        raise
    except OSError as exc:
        raise _abort(bound, exc, bundle, exc.strerror or str(exc)) from exc
    except MISFITS as exc:
        raise _abort(bound, exc, bundle, f"damaged or unfit data: {exc}") from exc


def _abort(bound: binding.Binding, cause: BaseException, bundle: Any, reason: str) -> error.Abort:
    if bound.accepted is not None:
        abort = error.Abort(bound.accepted.wording)
    else:
        abort = nothing_changed(reason)
    # What Mercurial's command looks for when it answers inside the bundle2 protocol.
    abort.duringunbundle2 = isinstance(bundle, bundle2.unbundle20)
    abort._bundle2salvagedoutput = getattr(cause, "_bundle2salvagedoutput", ())
    return abort
