"""LDAP search filters (RFC 4515) from templates of the configuration and values of strangers.

Promises: pure; a value is a string or it is refused, and whatever is in it stays a value: no list, no NUL and
no parenthesis gets through as syntax (python-ldap's CVE-2025-61911 and CVE-2025-61912 were such holes).
Does not: check that a template is a filter (config.ldap_table, and then the server).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Everything else is escaped: a space at an end, for one, ldap3 would take away.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._+-=,")
_PLACE = re.compile(r"\{([a-z]*)\}")


def escape_value(value: str) -> str:
    """Return the value as it stands in a filter. Raises TypeError for anything but a string."""
    if type(value) is not str:
        raise TypeError("a filter's value is a string")
    return "".join(_escape(character) for character in value)


def fill_filter(template: str, values: Mapping[str, str]) -> str:
    """Put escaped values in the places of a template, such as `(memberUid={account})`."""
    return _PLACE.sub(lambda match: escape_value(values[match[1]]), template)


def _escape(character: str) -> str:
    if character in _PLAIN:
        return character
    return "".join(f"\\{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
