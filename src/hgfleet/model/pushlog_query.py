"""What a client asks the pushlog: the parameters of json-pushes, pushlog and pushloghtml, parsed and checked.

    startID <  id <= endID            startdate < date < enddate        fromchange < push <= tochange
    user, changeset (repeatable)      branch      tipsonly=1            full      version=1|2

Promises: pure; a value that is no value of its parameter is a RejectedError `pushlog.bad-value` (400) that
names it; an empty parameter counts as absent, and `full` may stand without a value. What names a changeset
stays a symbol: it is never an expression, a path or an option.
Does not: resolve symbols or read the pushlog (hgext.pushlog_pages).
"""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from hgfleet.errors import RejectedError
from hgfleet.model.ids import PushId

PAGE_PUSHES = 10
MAX_PUSHES = 1000  # in one answer
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_MAX_DIGITS = 18
_MAX_SYMBOL = 200
_SECONDS = re.compile(r"\d{1,12}(\.\d{1,9})?")
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)? ?(Z|[+-]\d\d(:?\d\d)?)?", re.IGNORECASE
)
# A plus sign that was not quoted in the URL arrives as a space.
_LOST_PLUS = re.compile(r"(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (\d\d:?\d\d)$")

_Choice = TypeVar("_Choice", int, bool)
Pair = tuple[str, str | None]  # name and value; None: there was no "="


@dataclass(frozen=True, slots=True)
class PushQuery:
    """One question; None and () where nothing is asked."""

    version: int = 1
    is_full: bool = False
    tips_only: bool = False
    after_id: PushId | None = None  # exclusive
    through_id: PushId | None = None  # inclusive
    after_date: float | None = None  # exclusive, Unix seconds
    before_date: float | None = None  # exclusive
    from_change: str | None = None  # its push is exclusive
    to_change: str | None = None  # its push is inclusive
    users: tuple[str, ...] = ()  # any of these
    changesets: tuple[str, ...] = ()  # in any push that has one of these
    branch: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing narrows it: then the newest pushes are meant."""
        asked = (self.after_id, self.through_id, self.after_date, self.before_date)
        symbols = (self.from_change, self.to_change, self.branch)
        return not self.users and not self.changesets and all(item is None for item in (*asked, *symbols))


def parse_push_query(query: str) -> PushQuery:
    """Parse a URL's query."""
    values = _values_by_name(split_query(query))
    return PushQuery(
        version=_choice(values, "version", {"1": 1, "2": 2}, 1),
        is_full=_choice(values, "full", _FLAGS, False),
        tips_only=_choice(values, "tipsonly", _FLAGS, False),
        after_id=_push_id(values, "startID"),
        through_id=_push_id(values, "endID"),
        after_date=_date(values, "startdate"),
        before_date=_date(values, "enddate"),
        from_change=_symbol(values, "fromchange"),
        to_change=_symbol(values, "tochange"),
        users=tuple(values.get("user", ())),
        changesets=tuple(_checked_symbol("changeset", value) for value in values.get("changeset", ())),
        branch=_symbol(values, "branch"),
    )


def split_query(query: str) -> list[Pair]:
    """Split and unquote a URL's query."""
    pairs: list[Pair] = []
    for item in query.split("&"):
        name, equals, value = item.partition("=")
        pairs.append((_unquoted(name), _unquoted(value) if equals else None))
    return pairs


def next_query(query: str, after: PushId) -> str:
    """Return the query for what follows the push `after`, all other parameters kept."""
    kept = [pair for pair in split_query(query) if pair[0] not in {"startID", ""}]
    quoted = [_quoted(name) if value is None else f"{_quoted(name)}={_quoted(value)}" for name, value in kept]
    return "&".join([*quoted, f"startID={after}"])


def parse_page(text: str) -> int:
    """Parse the page number of a page form, from 1; "" is the first."""
    if not text:
        return 1
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise _bad("page", text)
    return int(text)


def narrowed(query: PushQuery, *, after: PushId | None, through: PushId | None) -> PushQuery:
    """Return the query with the ids that its changesets stand for taken into its bounds."""
    lower = [bound for bound in (query.after_id, after) if bound is not None]
    upper = [bound for bound in (query.through_id, through) if bound is not None]
    return replace(query, after_id=max(lower, default=None), through_id=min(upper, default=None))


def parse_date(text: str) -> float:
    """Parse Unix seconds, `YYYY-MM-DD` or ISO 8601 with or without `T` and zone (none is UTC); ValueError."""
    text = _LOST_PLUS.sub(r"\1+\2", text)
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _DATE.fullmatch(text):
        raise ValueError("not a date")
    value = datetime.fromisoformat(re.sub(r" (?=[+-]|Z$)", "", text.upper()))
    seconds = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError("not a date")
    return seconds


def _values_by_name(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, given in pairs:
        value = "1" if given is None and name == "full" else given
        if value:
            values.setdefault(name, []).append(value)
    return values


def _last(values: Mapping[str, Sequence[str]], name: str) -> str | None:
    found = values.get(name)
    return found[-1] if found else None


def _choice(
    values: Mapping[str, Sequence[str]], name: str, choices: Mapping[str, _Choice], absent: _Choice
) -> _Choice:
    text = _last(values, name)
    if text is None:
        return absent
    if text.lower() not in choices:
        raise _bad(name, text)
    return choices[text.lower()]


def _push_id(values: Mapping[str, Sequence[str]], name: str) -> PushId | None:
    text = _last(values, name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise _bad(name, text)
    return PushId(int(text))


def _date(values: Mapping[str, Sequence[str]], name: str) -> float | None:
    text = _last(values, name)
    if text is None:
        return None
    try:
        return parse_date(text.strip())
    except (ValueError, OverflowError) as error:
        raise _bad(name, text) from error


def _symbol(values: Mapping[str, Sequence[str]], name: str) -> str | None:
    text = _last(values, name)
    return None if text is None else _checked_symbol(name, text)


def _checked_symbol(name: str, text: str) -> str:
    if len(text) > _MAX_SYMBOL or any(ord(character) < 32 for character in text):
        raise _bad(name, text)
    return text


def _bad(name: str, text: str) -> RejectedError:
    return RejectedError("pushlog.bad-value", f"bad value for {name}: {text[:60]!a}")


def _unquoted(text: str) -> str:
    return urllib.parse.unquote_plus(text, errors="replace")


def _quoted(text: str) -> str:
    return urllib.parse.quote_plus(text)
