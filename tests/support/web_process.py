"""The web workers and the plain port of one mirror as processes of their own.

Run as a program (`python -m tests.support.web_process JSON`) it is such a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.free_ports import free_port
from hgfleet.adapters.location_files import LocationOptions
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.cli.probes import is_listening
from hgfleet.web.options import CloneLaneOptions, RedirectOptions, SiteOptions, WebOptions
from tests.support.clients import ROOT, HgClient, clean_environment
from tests.support.waiting import wait_until


class WebProcess:
    """gunicorn on a free port of loopback, with a certificate of its own."""

    def __init__(self, directory: Path, site: SiteOptions, *, workers: int = 2, threads: int = 4) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port = free_port()
        self.base_url = f"https://localhost:{self.port}"
        files = CertificateFiles(*(directory / f"{name}.pem" for name in ("ca", "ca-key", "server", "key")))
        ensure_certificates(files, ["localhost"])
        self.ca_file = files.ca
        self.options = WebOptions(
            site=replace(site, base_url=self.base_url),
            address="127.0.0.1",
            port=self.port,
            certificate=files.certificate,
            key=files.key,
            workers=workers,
            threads=threads,
            graceful_timeout_seconds=20,
        )
        self.log = directory / "web.log"
        self.process = start_process("web", asdict(self.options), self.log)
        wait_until(
            lambda: self.get("/-/livez")[0] == 200, what="the web workers answer", explain=self.log.read_text
        )

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Ask with a plain HTTP client; status 0 when nobody answers."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        request = urllib.request.Request(self.base_url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (urllib.error.URLError, ConnectionError):
            return 0, b""

    def client(self, hg: HgClient) -> HgClient:
        """Return an hg that knows the certificate."""
        return HgClient(hg.executable, hg.home, (*hg.config, f"web.cacerts={self.ca_file}"))

    def worker_pids(self) -> list[int]:
        """Return the processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def connect(self) -> ssl.SSLSocket:
        """Open a connection for requests that no client would send."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return context.wrap_socket(
            socket.create_connection(("localhost", self.port)), server_hostname="localhost"
        )

    def lines(self) -> list[dict[str, Any]]:
        """Return what was logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def kill(self) -> None:
        """Kill it and its workers, which would look after themselves only after a while."""
        if self.process.poll() is None:
            for pid in (*self.worker_pids(), self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """Ask it to end and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def running_redirect(directory: Path, base_url: str) -> Iterator[int]:
    """Run the plain port; yield its number."""
    directory.mkdir(parents=True, exist_ok=True)
    options = RedirectOptions(address="127.0.0.1", port=free_port(), base_url=base_url)
    process = start_process("redirect", asdict(options), directory / "redirect.log")
    try:
        wait_until(lambda: _is_open(options.port), what="the plain port answers")
        yield options.port
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


class CloneLaneProcess:
    """What makes full clones for the web workers of a site."""

    def __init__(self, directory: Path, site: SiteOptions, *, threads: int = 4) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "clones.log"
        self.socket = directory / "clones.sock"
        options = CloneLaneOptions(replace(site, demand=None, clone_lane=None), self.socket, threads=threads)
        self.process = start_process("clones", asdict(options), self.log)
        wait_until(
            lambda: is_listening(self.socket, socket.SOCK_STREAM),
            what="the clone lane listens",
            explain=self.log.read_text,
        )

    def clones(self, path: str) -> int:
        """Return how many it has made of a repository."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return sum(line.get("command") == "getbundle" and line["path"] == path for line in lines)

    def kill(self) -> None:
        """Kill it and its workers; once is enough."""
        if self.process.poll() is not None:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (*map(int, children.split()), self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start_process(kind: str, options: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    """Start this module as a program."""
    argv = [sys.executable, "-m", "tests.support.web_process", kind, json.dumps(options, default=str)]
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            env=clean_environment(log.parent),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _main(kind: str, text: str) -> None:
    from hgfleet.runtime.observability import configure_logging
    from hgfleet.web.redirect import run_redirect
    from hgfleet.web.server import run_clone_lane, run_web

    configure_logging(kind, "info")
    os.chdir("/")
    fields = json.loads(text)
    if kind == "redirect":
        run_redirect(RedirectOptions(**fields))
        return
    given = fields["site"]
    names = ("repositories", "catalogue", "serving", "demand", "clone_lane")
    paths = {name: Path(given[name]) for name in names if given[name] is not None}
    rest = {
        "trusted_proxies": tuple(given["trusted_proxies"]),
        "locations": LocationOptions(**given["locations"]),
    }
    site = SiteOptions(**(given | paths | rest))
    if kind == "clones":
        run_clone_lane(CloneLaneOptions(**(fields | {"site": site, "socket": Path(fields["socket"])})))
        return
    files = {name: Path(fields[name]) for name in ("certificate", "key")}
    run_web(WebOptions(**(fields | files | {"site": site})))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
