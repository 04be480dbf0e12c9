"""A program that commits and pushes many times from one Mercurial process, which saves its start each time.

python tests/support/many_pushes.py CLONE URL SSH-COMMAND COUNT
"""

from __future__ import annotations

import sys
from pathlib import Path


def push_many(clone: Path, url: str, ssh: str, count: int) -> int:
    """Make one changeset after the other and push each by itself; return the first failing status, or 0."""
    from mercurial import dispatch, initialization, main_script

    initialization.init()
    options = [b"-R", bytes(clone), b"--config", b"ui.ssh=" + ssh.encode()]
    for number in range(count):
        (clone / "file.txt").write_text(f"{number}\n")
        for words in ([b"commit", b"-q", b"-m", b"%d" % number], [b"push", b"-q", url.encode()]):
            status: int = dispatch.dispatch(main_script.request(options + words))
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(push_many(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
