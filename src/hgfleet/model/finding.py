"""What a check of one of the fleet's parts found.

Promises: a finding that is not good says what is wrong and which command or setting mends it.
Does not: check anything.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str  # such as "blob store"
    is_good: bool
    text: str  # one line: what was seen
    remedy: str = ""  # what mends it; "" when it is good
