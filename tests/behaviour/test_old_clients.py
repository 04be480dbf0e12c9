"""Mercurial clients of ten years clone by every type of bundle that they can read, and go on from there.

Those before 5 need Python 2.7 (tools/old_clients.py); a machine without it runs the others, and pytest's head
names what was left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hgfleet.model.bundle_manifest import BundleType, ManifestEntry, arrange
from hgfleet.model.demand import CloneReason
from tests.support.clients import CURRENT_HG, OLDER_HG, HgClient, Outcome, left_out, old_clients
from tests.support.offload import KINDS, PATH, Offload, running_offload, state_of
from tests.support.web_process import WebProcess

OLD_KINDS = frozenset({BundleType.GZIP_V1, BundleType.GZIP_V2, BundleType.PACKED1})
KINDS_SINCE = {
    (4, 1): frozenset({BundleType.ZSTD}),
    (5, 0): frozenset({BundleType.STREAM_V2}),
}
NO_SNI = "from mercurial import sslutil\nsslutil.hassni = False\n"
_APPLIED = re.compile(r"applying clone bundle from (\S+)")


@dataclass(frozen=True)
class Client:
    """One version of Mercurial."""

    version: str
    executable: Path

    @property
    def number(self) -> tuple[int, ...]:
        """For comparison."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def kinds(self) -> list[BundleType]:
        """What it can read, in the manifest's order."""
        newer = [kinds for since, kinds in KINDS_SINCE.items() if self.number >= since]
        return [kind for kind in KINDS if kind in OLD_KINDS.union(*newer)]

    @property
    def first_of_modern_streams(self) -> BundleType:
        """What it takes where the streams are of repositories in today's format, and come first."""
        if self.number >= (6,):
            return BundleType.PACKED1
        return BundleType.STREAM_V2 if self.number >= (5,) else self.kinds[0]

    @property
    def switches(self) -> list[str]:
        """What its user has to set so that it uses bundles at all."""
        return ["experimental.clonebundles=true"] if self.version == "3.6" else []

    def prefer(self, preference: str) -> list[str]:
        """Return its setting for a preference."""
        section = "experimental" if self.number < (3, 7) else "ui"
        return [f"{section}.clonebundleprefers={preference}"]


OLD = [Client(version, hg) for version, hg in old_clients().items() if hg.exists()]
CLIENTS = [*OLD, Client("6.9", OLDER_HG), Client("7.2", CURRENT_HG)]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.version)


@pytest.fixture(scope="module")
def offload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offload]:
    with running_offload(tmp_path_factory.mktemp("offload")) as running:
        yield running


@pytest.fixture(scope="module")
def wanted(offload: Offload, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a full clone of the newest Mercurial has."""
    home = tmp_path_factory.mktemp("full")
    outcome, clone = clone_with(Client("7.2", CURRENT_HG), offload, [], home, "ui.clonebundles=false")
    assert applied(outcome) == ""
    return state_of(clone)


def clone_with(
    client: Client,
    offload: Offload,
    entries: list[ManifestEntry],
    home: Path,
    *config: str,
    web: WebProcess | None = None,
) -> tuple[Outcome, Path]:
    """Clone while these entries are offered."""
    web = web or offload.web
    offload.offer(entries)
    target = home / f"clone{len(list(home.iterdir()))}"
    hg = web.client(HgClient(client.executable, home, (*client.switches, *config)))
    return hg.run("clone", "-U", f"{web.base_url}/{PATH}", str(target)).ok(), target


def applied(outcome: Outcome) -> str:
    """Return the URL of the bundle that was applied, "" for a full clone."""
    found = _APPLIED.search(outcome.text)
    return found[1] if found else ""


def test_no_client_is_left_out_where_all_have_to_run() -> None:
    assert not (os.environ.get("CI") and left_out()), left_out()


@pytest.mark.parametrize("store", ["http", "s3"])
@each_client
def test_every_type_that_a_client_can_read_and_a_pull_give_a_full_clone(
    client: Client, offload: Offload, wanted: str, store: str, tmp_path: Path
) -> None:
    for kind in client.kinds:
        entry = offload.find(kind, store)
        outcome, clone = clone_with(client, offload, [entry], tmp_path)
        assert applied(outcome) == entry.url, (kind, outcome)
        assert "added" in outcome.text, "what was pushed since the bundle was pulled"
        assert state_of(clone) == wanted, (kind, outcome)


@each_client
def test_of_the_whole_manifest_a_client_takes_the_first_type_that_it_can_read(
    client: Client, offload: Offload, wanted: str, tmp_path: Path
) -> None:
    outcome, clone = clone_with(client, offload, list(offload.entries), tmp_path)
    assert applied(outcome) == offload.find(client.kinds[0], "cdn").url
    assert state_of(clone) == wanted


@each_client
def test_a_client_passes_over_what_it_cannot_read(
    client: Client, offload: Offload, wanted: str, tmp_path: Path
) -> None:
    unreadable = [offload.find(kind, "http") for kind in KINDS if kind not in client.kinds]
    if client.number < (5,):
        unreadable += [entry for entry in offload.modern_streams if entry.store == "http"]
    outcome, clone = clone_with(client, offload, unreadable, tmp_path)
    assert applied(outcome) == ""
    assert state_of(clone) == wanted


@pytest.mark.parametrize("streams", ["old", "modern"])
@each_client
def test_in_a_location_a_client_takes_the_first_stream_that_it_can_read_and_another_type_without_one(
    client: Client, offload: Offload, wanted: str, streams: str, tmp_path: Path
) -> None:
    entries = offload.entries if streams == "old" else offload.modern_streams + offload.entries
    here = {(entry.kind, entry.store): entry for entry in reversed(entries) if entry.store == "http"}
    offered = [replace(entry, attributes={"ec2region": "us-west-2"}) for entry in here.values()]
    expected = here[BundleType.PACKED1 if streams == "old" else client.first_of_modern_streams, "http"]
    listed = list(arrange(offered, ["http"]))
    outcome, clone = clone_with(client, offload, listed, tmp_path, web=offload.west)
    assert applied(outcome) == expected.url, outcome
    assert state_of(clone) == wanted


@each_client
def test_a_client_before_stream_v2_survives_a_location_that_has_nothing_else(
    client: Client, offload: Offload, wanted: str, tmp_path: Path
) -> None:
    entry = offload.find(BundleType.STREAM_V2, "http")
    only = [replace(entry, attributes={"ec2region": "us-west-2"})]
    outcome, clone = clone_with(client, offload, only, tmp_path, web=offload.west)
    assert applied(outcome) == (entry.url if entry.kind in client.kinds else "")
    assert state_of(clone) == wanted


@pytest.mark.parametrize(
    ("preference", "kind", "store"),
    [
        ("VERSION=packed1", BundleType.PACKED1, "cdn"),
        ("COMPRESSION=gzip", BundleType.GZIP_V2, "cdn"),
        ("COMPRESSION=zstd", BundleType.ZSTD, "cdn"),
        ("cdn=true, VERSION=packed1", BundleType.PACKED1, "cdn"),
        ("ec2region=us-west-2", None, "s3"),
        ("datacenter=ams, VERSION=v1", BundleType.GZIP_V1, "ams"),
    ],
)
@each_client
def test_a_preference_is_followed(
    client: Client,
    offload: Offload,
    preference: str,
    kind: BundleType | None,
    store: str,
    tmp_path: Path,
) -> None:
    expected = kind if kind in client.kinds else client.kinds[0]
    outcome, _ = clone_with(client, offload, list(offload.entries), tmp_path, *client.prefer(preference))
    assert applied(outcome) == offload.find(expected, store).url, outcome


@each_client
def test_a_client_without_sni_takes_the_entry_that_needs_none(
    client: Client, offload: Offload, wanted: str, tmp_path: Path
) -> None:
    extension = tmp_path / "nosni.py"
    extension.write_text(NO_SNI)
    outcome, clone = clone_with(
        client, offload, list(offload.entries), tmp_path, f"extensions.nosni={extension}"
    )
    assert applied(outcome) == offload.find(client.kinds[0], "http").url
    assert state_of(clone) == wanted


@pytest.mark.parametrize("client", [client for client in OLD if client.version == "3.6"])
def test_the_oldest_one_gets_a_full_clone_unless_it_is_told_to_use_bundles_and_that_is_counted(
    client: Client, offload: Offload, wanted: str, tmp_path: Path
) -> None:
    offload.offer(list(offload.entries))
    before = offload.clones(CloneReason.NOT_ENABLED)
    hg = offload.web.client(HgClient(client.executable, tmp_path))
    outcome = hg.run("clone", "-U", f"{offload.web.base_url}/{PATH}", str(tmp_path / "clone")).ok()
    assert applied(outcome) == ""
    assert state_of(tmp_path / "clone") == wanted
    assert offload.clones(CloneReason.NOT_ENABLED) == before + 1
