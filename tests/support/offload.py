"""A mirror whose repository has clone bundles: made, published and checked by the real parts, served by real
servers, one over plain HTTP and one that speaks S3 over HTTPS.

The bundles are of a seq before the exposed one, so each client pulls after it has applied one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mercurial import verify
from mercurial.repo import factory

from bench.free_ports import free_port
from hgfleet.adapters import view_files
from hgfleet.adapters.bundle_offers import OfferedManifest
from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.adapters.directory_objects import DirectoryObjects
from hgfleet.adapters.location_files import LocationOptions
from hgfleet.adapters.public_url import PublicUrls
from hgfleet.adapters.s3_objects import S3Objects
from hgfleet.bundles.publishing import BundleStore, FinishedFile, Publisher
from hgfleet.hgext.bundle_files import BundleOptions, make_bundle_files
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry, arrange
from hgfleet.model.demand import CloneReason
from hgfleet.model.ids import RepoId, RepoPath, Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build, open_ui, write_extension
from tests.support.mirror_host import MirrorHost
from tests.support.s3_server import S3Server
from tests.support.server_process import ServerProcess
from tests.support.web_process import WebProcess

PATH = RepoPath("team/app")
STEPS = (
    "first changesets",
    "bookmarks",
    "a named branch",
    "the other branch, so that revisions interleave",
    "a merge",
    "a publication",
    "a draft and a moved bookmark",
    "a removed file",
)
BUNDLED, EXPOSED = Seq(6), Seq(len(STEPS))
KINDS = (
    BundleType.ZSTD,
    BundleType.GZIP_V2,
    BundleType.GZIP_V1,
    BundleType.PACKED1,
    BundleType.STREAM_V2,
)
OLD_STREAMS: Mapping[str, bool | str] = {"sparse-revlog": False, "revlog-compression": "zlib"}
ATTRIBUTES: Mapping[str, dict[str, str]] = {
    "cdn": {"cdn": "true", "REQUIRESNI": "true"},
    "http": {},
    "s3": {"ec2region": "us-west-2"},
    "ams": {"datacenter": "ams"},
}


class FileServer:
    """A plain HTTP server of a directory that logs what is asked for."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "files"
        self.root.mkdir(parents=True)
        self._log = directory / "files.log"
        port = free_port()
        command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1"]
        self.process = ServerProcess(
            [*command, "--directory", str(self.root), str(port)],
            log=self._log,
            address="127.0.0.1",
            port=port,
        )
        self.url = f"http://127.0.0.1:{port}"


@dataclass
class Offload:
    """The site while it runs."""

    host: MirrorHost
    web: WebProcess
    west: WebProcess  # another one of the same host, for which its clients are in ec2region=us-west-2
    repository: RepoId
    entries: tuple[ManifestEntry, ...]
    modern_streams: tuple[ManifestEntry, ...]  # in the format that repositories have by default

    def find(self, kind: BundleType, store: str) -> ManifestEntry:
        """Return the entry of a type in a store."""
        return next(entry for entry in self.entries if (entry.kind, entry.store) == (kind, store))

    def clones(self, reason: CloneReason) -> int:
        """Return how many clones were counted for a reason."""
        counts = DemandCounts(self.host.directory / "demand.sqlite").last_day()
        return sum(count.clones for key, count in counts.items() if key.reason is reason)

    def offer(self, entries: Sequence[ManifestEntry]) -> None:
        """Let these be all that there are."""
        manifests = [OfferedManifest(BUNDLED, tuple(entries))] if entries else []
        self.host.offer(self.repository, *manifests)


@contextmanager
def running_offload(directory: Path) -> Iterator[Offload]:
    """Build the repository and its bundles, and serve all of it."""
    exposures = build(directory / "exposures", HgClient(CURRENT_HG, directory), STEPS)
    host = MirrorHost(directory / "host")
    repository = host.add(PATH, exposures.full, EXPOSED)
    with ExitStack() as stack:
        web = WebProcess(directory / "web", host.site(), workers=1)
        stack.callback(web.stop)
        locations = LocationOptions(places=(("127.0.0.0/8", "ec2region", "us-west-2"),))
        west = WebProcess(directory / "west", replace(host.site(), locations=locations), workers=1)
        stack.callback(west.stop)
        stores = _start_stores(directory, web, stack)
        publisher = Publisher(stores, PublicUrls(web.ca_file))
        entries = _make_and_publish(exposures, directory / "old", publisher, KINDS, OLD_STREAMS)
        streams = [kind for kind in KINDS if kind.is_streaming]
        modern = _make_and_publish(exposures, directory / "modern", publisher, streams, None)
        yield Offload(host, web, west, repository, entries, modern)


def _start_stores(directory: Path, web: WebProcess, stack: ExitStack) -> list[BundleStore]:
    files = FileServer(directory / "http")
    files.process.start()
    stack.callback(files.process.stop)
    pair = (web.options.certificate, web.options.key)
    s3 = S3Server(directory / "s3", certificate=pair, ca_file=web.ca_file)
    s3.make_bucket("bundles")
    s3.start()
    stack.callback(s3.stop)
    s3.let_everybody_read("bundles")
    bucket = S3Objects(s3.options("bundles", prefix="hg/"))
    places: dict[str, tuple[Any, str]] = {
        name: (DirectoryObjects(files.root / name), f"{files.url}/{name}") for name in ("cdn", "http", "ams")
    }
    places["s3"] = (bucket, s3.url_of("bundles", "hg"))
    return [BundleStore(name, *places[name], attributes) for name, attributes in ATTRIBUTES.items()]


def _make_and_publish(
    exposures: Exposures,
    directory: Path,
    publisher: Publisher,
    kinds: Sequence[BundleType],
    stream_format: Mapping[str, bool | str] | None,
) -> tuple[ManifestEntry, ...]:
    """Make these types of what is exposed at BUNDLED and publish them to every store."""
    directory.mkdir()
    root = exposures.copy(BUNDLED)
    assert view_files.expose(root / ".hg", BUNDLED) == BUNDLED
    ui = open_ui("web", extension=write_extension(directory.parent))
    repo = factory.repository(ui, str(root).encode())
    bundled = make_bundle_files(repo, directory, BundleOptions(frozenset(kinds), stream_format=stream_format))
    assert bundled is not None
    files = [
        FinishedFile(file.kind, file.path, file.spec, file.size_bytes, file.sha256) for file in bundled.files
    ]
    published = publisher.publish(PATH, bundled.tip, files)
    assert not published.failures, published.failures
    return arrange(published.entries, list(ATTRIBUTES))


def state_of(clone: Path) -> str:
    """Return a digest of everything that a clone has, in whatever order and format; it is verified, too."""
    ui = open_ui("plain", config=())
    ui.quiet = True
    repo = factory.repository(ui, str(clone).encode())
    assert verify.verify(repo) in {0, None}
    total = hashlib.sha256()
    for line in sorted(b"%s %d" % (repo[rev].node(), repo[rev].phase()) for rev in repo):
        total.update(line)
    for name, node in sorted(repo._bookmarks.items()):
        total.update(name + node)
    return total.hexdigest()
