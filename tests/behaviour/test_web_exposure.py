"""A repository exposed at a seq equals, for every kind of reader, a copy that was replayed to that seq."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mercurial import error

from hgfleet.adapters import view_files
from hgfleet.model.ids import Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import SERVER, STEPS, Exposures, build, open_ui, write_extension

SEQS = range(1, len(STEPS) + 1)
NAMESPACES = ("namespaces", "bookmarks", "phases", "obsolete")
WIRE = ("?cmd=heads", "?cmd=branchmap", "?cmd=capabilities", "?cmd=batch&cmds=heads+%3Bknown+nodes%3D")
PAGES = (
    "",
    "shortlog",
    "shortlog?revcount=200",
    "changelog",
    "log?rev=third",
    "graph",
    "tags",
    "bookmarks",
    "branches",
    "summary?style=gitweb",
    "rss-log",
    "atom-log",
    "atom-tags",
    "rss-bookmarks",
    "help",
    "file",
    "json-log?revcount=200",
    "json-tags",
    "json-bookmarks",
    "json-branches",
    "json-manifest",
    "json-graph?revcount=200",
    "raw-log",
    "json-pushes?startID=0&full=1&version=2",
    "json-pushes?changeset=tip",
    "pushloghtml",
    "pushlog",
)
PER_CHANGESET = ("rev", "json-rev", "raw-rev", "file")
PER_FILE = (
    "file",
    "annotate",
    "diff",
    "comparison",
    "log",
    "raw-file",
    "json-annotate",
    "json-filelog",
    "rss-log",
    "filelog",
)
FILES = ("a.txt", "d.txt", "dir/g.txt")


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("exposures")
    return build(directory, HgClient(CURRENT_HG, directory))


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_extension(tmp_path_factory.mktemp("extension"))


class Reader:
    """hgweb over one directory, called in this process."""

    def __init__(self, directory: Path, role: str, extension: Path) -> None:
        from mercurial.hgweb import hgweb_mod
        from mercurial.repo import factory

        config = (
            "phases.publish=no",
            "experimental.evolution=all",
            "server.uncompressed=no",
            "web.allow-archive=zip",
        )
        ui = open_ui(role, extension=extension, config=config)
        self.repo = factory.repository(ui, str(directory).encode())
        self._app: Any = hgweb_mod.hgweb(self.repo, b"repo")

    def get(self, url: str) -> tuple[str, bytes]:
        """Return status and body; hgweb lets it escape when a bundle of unknown heads is asked for."""
        try:
            return self._get(url)
        except error.LookupError as unknown:
            return "raised", str(unknown).encode()

    def _get(self, url: str) -> tuple[str, bytes]:
        path, _, query = url.partition("?")
        info = f"/{path}" if path else ""
        status: list[str] = []
        body = io.BytesIO()

        def start(text: str, _headers: Any, _failure: Any = None) -> Any:
            status.append(text)
            return body.write

        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "/repo",
            "PATH_INFO": info,
            "QUERY_STRING": query,
            "SERVER_NAME": "host",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
        }
        for chunk in self._app(environ, start):
            body.write(chunk)
        return status[0], body.getvalue()


@pytest.fixture(params=SEQS)
def seq(request: pytest.FixtureRequest) -> Seq:
    return Seq(request.param)


@pytest.fixture
def readers(exposures: Exposures, extension: Path, seq: Seq) -> tuple[Reader, Reader]:
    hg_directory = exposures.full / ".hg"
    (hg_directory / view_files.EXPOSED).unlink(missing_ok=True)
    assert view_files.expose(hg_directory, seq) == seq
    return Reader(exposures.full, "web", extension), Reader(exposures.copy(seq), "plain", extension)


def urls(exposures: Exposures) -> list[str]:
    """Everything a reader may ask, about known, hidden, unknown and later changesets alike."""
    nodes = exposures.hg.run("-R", str(exposures.full), "log", "--hidden", "-T", "{node}\n").ok().out.split()
    wire = [*WIRE, *(f"?cmd=listkeys&namespace={name}" for name in NAMESPACES)]
    wire += [f"?cmd=known&nodes={'+'.join(nodes)}", *(f"?cmd=lookup&key={node}" for node in nodes)]
    wire += [f"?cmd=lookup&key={key}" for key in ("tip", "stable", "doomed", "v1", "release", "0", "9", "13")]
    capabilities = quote("HG20\nchangegroup=01,02\nobsmarkers=V0,V1\nphases=heads\nbookmarks\nlistkeys")
    asked = "cg=1&phases=1&bookmarks=1&obsmarkers=1&listkeys=bookmarks,phases"
    bundle = f"?cmd=getbundle&bundlecaps=HG20,bundle2={quote(capabilities)}&{asked}"
    wire += [f"{bundle}&common={'0' * 40}&heads={node}" for node in nodes[::3]]
    wire += [f"{bundle}&common={nodes[1]}&heads={node}" for node in nodes[5::4]]
    pages = [f"{page}/{node[:12]}" for node in nodes[::2] for page in PER_CHANGESET]
    chosen = (nodes[4], "tip")
    files = [f"{page}/{node[:12]}/{name}" for node in chosen for page in PER_FILE for name in FILES]
    return [*PAGES, *wire, *pages, *files, f"archive/{nodes[0]}.zip", f"archive/{nodes[-2]}.zip"]


def differences(exposed: Reader, replayed: Reader, asked: list[str]) -> dict[str, tuple[object, object]]:
    """Return what the two answer differently; most of what is asked must be there to be compared."""
    answers = {url: (exposed.get(url), replayed.get(url)) for url in asked}
    return {url: pair for url, pair in answers.items() if pair[0] != pair[1]}


def test_every_page_and_wire_command_equals_the_replayed_copy(
    exposures: Exposures, readers: tuple[Reader, Reader], seq: Seq
) -> None:
    different = differences(*readers, urls(exposures))
    assert not different, (exposures.what_by_seq[seq], list(different), next(iter(different.values())))


def test_most_of_what_is_compared_exists(exposures: Exposures, extension: Path) -> None:
    reader = Reader(exposures.copy(exposures.seqs[-1]), "plain", extension)
    found = [url for url in urls(exposures) if reader.get(url)[0].startswith("200")]
    assert len(found) > 100


@pytest.mark.parametrize("seq", [Seq(2), Seq(6), Seq(11), Seq(15)])
def test_an_open_transaction_on_the_same_files_shows_nothing(
    exposures: Exposures, extension: Path, seq: Seq, tmp_path: Path
) -> None:
    """The state between Mercurial's finalizers and its commit point is on disk; no reader may meet it."""
    directory = tmp_path / "copy"
    shutil.copytree(exposures.copy(seq), directory)
    view_files.expose(directory / ".hg", seq)
    before = Reader(directory, "web", extension)
    before.get("shortlog")
    replayed = Reader(exposures.copy(seq), "plain", extension)
    asked = urls(exposures)
    with half_applied(directory, exposures.full):
        assert differences(Reader(directory, "plain", extension), replayed, ["?cmd=heads"])
        assert not differences(Reader(directory, "web", extension), replayed, asked)
        assert not differences(before, replayed, asked)


@contextlib.contextmanager
def half_applied(directory: Path, source: Path) -> Iterator[None]:
    """Pull everything into `directory`, stop where all is written and nothing committed, then roll back."""
    from mercurial import exchange, hg
    from mercurial.repo import factory

    ui = open_ui("apply")
    repo = factory.repository(ui, str(directory).encode()).unfiltered()
    with repo.wlock(), repo.lock():
        transaction = repo.transaction(b"apply")
        exchange.pull(repo, hg.peer(ui, {}, str(source).encode()), force=True)
        transaction.writepending()
        transaction._generatefiles(group=b"prefinalize")
        for category in sorted(transaction._finalizecallback):
            if category.startswith((b"000-cl", b"fncache")):
                transaction._finalizecallback[category](transaction)
        yield
        transaction.abort()


def test_one_reader_goes_on_showing_its_view_while_the_copy_grows_past_it(
    exposures: Exposures, extension: Path, tmp_path: Path
) -> None:
    seq = Seq(5)
    directory = tmp_path / "copy"
    shutil.copytree(exposures.copy(seq), directory)
    view_files.expose(directory / ".hg", seq)
    exposed, replayed = Reader(directory, "web", extension), Reader(exposures.copy(seq), "plain", extension)
    assert not differences(exposed, replayed, urls(exposures))
    options = [word for item in SERVER for word in ("--config", item)]
    exposures.hg.run("-R", str(directory), "pull", "-q", "-f", str(exposures.full), *options).ok()
    exposures.hg.run("-R", str(directory), "bookmark", "-r", "tip", "later", *options).ok()
    assert not differences(Reader(directory, "web", extension), replayed, urls(exposures))


@pytest.mark.parametrize("attempt", ["lock", "wlock", "transaction"])
def test_a_web_worker_cannot_write(exposures: Exposures, extension: Path, attempt: str) -> None:
    view_files.expose(exposures.full / ".hg", Seq(3))
    repo = Reader(exposures.full, "web", extension).repo
    with pytest.raises(error.LockError):
        getattr(repo, attempt)(*([b"x"] if attempt == "transaction" else []))
    for vfs in (repo.vfs, repo.svfs, repo.cachevfs):
        with pytest.raises(OSError, match="Read-only"):
            vfs.write(b"anything", b"")
