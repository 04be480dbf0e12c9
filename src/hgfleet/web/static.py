"""The static files: hgweb's own and the style sheet of the pages around it, all held in memory.

Promises: only files that were there at the start are served, by exact name.
Does not: read the disk for a request.
"""

from __future__ import annotations

import mimetypes
from importlib import resources

from hgfleet.web.answers import Answer, text

_PACKAGES = ("mercurial.templates.static", "hgfleet.web")
_KINDS = (".css", ".js", ".png")
_KEPT_SECONDS = 86_400


class StaticFiles:
    """What lies at /-/static/."""

    def __init__(self) -> None:
        files = [file for package in _PACKAGES for file in resources.files(package).iterdir()]
        self._data_by_name = {file.name: file.read_bytes() for file in files if file.name.endswith(_KINDS)}

    def answer(self, name: str) -> Answer:
        """Return the file."""
        data = self._data_by_name.get(name)
        if data is None:
            return text(404, "no such file")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Answer("200 OK", data, [("Content-Type", kind), ("Cache-Control", f"max-age={_KEPT_SECONDS}")])
