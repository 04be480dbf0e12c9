"""The files of one mirror as its applier leaves them, without an applier: for tests of what readers see."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters import view_files
from hgfleet.adapters.bundle_offers import OfferedManifest, write_offers
from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.adapters.serving_file import write_serving
from hgfleet.model.fleet_records import Stage
from hgfleet.model.ids import RepoId, RepoPath, Seq
from hgfleet.runtime import clock
from hgfleet.web.options import SiteOptions

_REQUIREMENT = "hgfleet-log\n"


@dataclass
class MirrorHost:
    """A host's directory."""

    directory: Path

    def __post_init__(self) -> None:
        (self.directory / "repos").mkdir(parents=True)
        self.catalogue = MirrorCatalogue(self.directory / "catalogue.sqlite")
        self._seq = 0
        self.serve()

    def site(self, base_url: str = "https://localhost:8443") -> SiteOptions:
        """Return what its web workers are told."""
        return SiteOptions(
            repositories=self.directory / "repos",
            catalogue=self.directory / "catalogue.sqlite",
            serving=self.directory / "serving.json",
            demand=self.directory / "demand.sqlite",
            host="mirror1",
            base_url=base_url,
            ssh_url="ssh://localhost:2222",
        )

    def serve(
        self, stage: Stage = Stage.SERVING, *, lease_seconds: float = 600.0, has_served: bool = False
    ) -> None:
        """Write the mirror's stage."""
        lease_ends_at = clock.boottime() + lease_seconds
        write_serving(self.directory / "serving.json", stage, 1, lease_ends_at, has_served=has_served)

    def add(self, path: str, copy: Path, seq: Seq, repository: RepoId | None = None) -> RepoId:
        """Serve a copy of a repository, which has a view of `seq`, under a path."""
        repository = repository or RepoId(uuid.uuid4().hex)
        generation = self.directory / "repos" / repository / "g1"
        shutil.copytree(copy, generation)
        with (generation / ".hg" / "requires").open("a") as file:
            file.write(_REQUIREMENT)
        (generation.parent / "current").symlink_to("g1")
        self.expose(repository, seq)
        self.bind(path, repository)
        return repository

    def bind(self, path: str, repository: RepoId) -> None:
        """Make a repository reachable."""
        self._seq += 1
        self.catalogue.expose((), {RepoPath(path): repository}, Seq(self._seq))

    def unbind(self, path: str) -> None:
        """Make a path unknown."""
        self._seq += 1
        self.catalogue.expose((RepoPath(path),), {}, Seq(self._seq))

    def expose(self, repository: RepoId, seq: Seq) -> None:
        """Show a repository as of a seq."""
        assert view_files.expose(self.hg_directory(repository), seq) == seq

    def offer(self, repository: RepoId, *manifests: OfferedManifest) -> None:
        """Offer clone bundles, the manifest in force first; none takes the offer back."""
        write_offers(self.directory / "repos" / repository, manifests)

    def hg_directory(self, repository: RepoId) -> Path:
        """Return the `.hg` of the generation in use."""
        link = self.directory / "repos" / repository / "current"
        return link.parent / link.readlink() / ".hg"
