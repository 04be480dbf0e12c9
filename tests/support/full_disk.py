"""A small file system that a test can fill: a tmpfs of its own.

Needs the right to mount, as root has it; a test that uses it fails where that is missing, with that reason.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK = b"\0" * 4096


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system."""

    path: Path

    def fill(self) -> None:
        """Take all the space there is."""
        with (self.path / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(CHUNK)

    def free(self) -> None:
        """Give the space back."""
        (self.path / "filler").unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)

    def make_writable(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", str(self.path)], check=True)


@contextmanager
def small_disk(size: str) -> Iterator[SmallDisk]:
    """Mount a tmpfs of that size; it is unmounted at the end, whatever still uses it."""
    with tempfile.TemporaryDirectory(prefix="hgfleet-disk-") as directory:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", directory]
        subprocess.run(command, check=True)
        try:
            yield SmallDisk(Path(directory))
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)
