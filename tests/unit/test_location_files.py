"""The providers' files: read again when they change, and never worse off for a damaged one."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from hgfleet.adapters import location_files
from hgfleet.adapters.location_files import LocationOptions, Locations, read_ranges
from hgfleet.errors import ConfigError
from hgfleet.model.bundle_manifest import ANYWHERE, Place

WEST, EAST = Place("ec2region", "us-west-2"), Place("ec2region", "us-east-1")
ADDRESS = "52.94.1.1"


def write(path: Path, region: str, network: str = "52.94.0.0/16") -> None:
    """Replace the file as whoever fetches it does: by rename."""
    row = {"ip_prefix": network, "region": region, "service": "EC2"}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"prefixes": [row], "ipv6_prefixes": []}))
    fresh.rename(path)


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    path = tmp_path / "ip-ranges.json"
    write(path, "us-west-2")
    return path


def locations_of(path: Path, interval_seconds: float = 0.0, **options: object) -> Locations:
    files = ((str(path), "aws", "ec2region"),)
    return Locations(LocationOptions(files=files, interval_seconds=interval_seconds, **options))  # type: ignore[arg-type]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_a_file_that_changed_is_read_again(ranges: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    locations = locations_of(ranges)
    assert locations.find(ADDRESS) == WEST
    assert locations.find(ADDRESS) == WEST
    write(ranges, "us-east-1")
    assert locations.find(ADDRESS) == EAST
    assert events(caplog) == ["locations.read", "locations.read"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"prefixes": [], "ipv6_prefixes": []}', b"[" * 100_000, None],
    ids=["empty", "cut off", "no text", "no object", "no networks", "too deep", "gone"],
)
def test_a_damaged_one_is_said_once_and_leaves_what_was_known(
    ranges: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    locations = locations_of(ranges)
    assert locations.find(ADDRESS) == WEST
    if content is None:
        ranges.unlink()
    else:
        ranges.write_bytes(content)
    assert [locations.find(ADDRESS) for _ in range(3)] == [WEST] * 3
    assert events(caplog) == ["locations.damaged"]
    write(ranges, "us-east-1")
    assert locations.find(ADDRESS) == EAST


def test_a_file_that_is_not_there_yet_keeps_nobody_from_being_served(tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    locations = locations_of(path, places=(("10.0.0.0/8", "datacenter", "ams"),))
    assert locations.find(ADDRESS) == ANYWHERE
    assert locations.find("10.1.1.1") == Place("datacenter", "ams")
    write(path, "us-west-2")
    assert locations.find(ADDRESS) == WEST


def test_one_files_damage_leaves_the_others_alone(ranges: Path, tmp_path: Path) -> None:
    google = tmp_path / "cloud.json"
    google.write_text(json.dumps({"prefixes": [{"ipv6Prefix": "2600:1900::/28", "scope": "us-west1"}]}))
    files = ((str(ranges), "aws", "ec2region"), (str(google), "google", "gceregion"))
    locations = Locations(LocationOptions(files=files, interval_seconds=0))
    assert locations.find("2600:1900::1") == Place("gceregion", "us-west1")
    google.write_text("damaged")
    write(ranges, "us-east-1")
    assert locations.find("2600:1900::1") == Place("gceregion", "us-west1")
    assert locations.find(ADDRESS) == EAST


def test_what_is_listed_counts_before_a_file_and_a_longer_network_before_both(ranges: Path) -> None:
    places = (("52.94.0.0/16", "datacenter", "ams"),)
    locations = locations_of(ranges, places=places, fast_networks=("52.94.7.0/24", "52.94.0.0/16"))
    assert locations.find(ADDRESS) == Place("datacenter", "ams")
    assert locations.find("52.94.7.7") == Place(is_fast=True)


def test_the_file_is_looked_at_once_in_an_interval(ranges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(location_files.clock, "monotonic", lambda: now[0])
    locations = locations_of(ranges, interval_seconds=60)
    assert locations.find(ADDRESS) == WEST
    write(ranges, "us-east-1")
    now[0] += 59
    assert locations.find(ADDRESS) == WEST
    now[0] += 1
    assert locations.find(ADDRESS) == EAST


def test_while_one_thread_reads_the_others_go_on_with_what_was_known(tmp_path: Path) -> None:
    pipe = tmp_path / "ranges"
    write(pipe, "us-west-2")
    locations = locations_of(pipe)
    assert locations.find(ADDRESS) == WEST
    pipe.unlink()
    os.mkfifo(pipe)  # whoever reads it waits for somebody to write
    reading = threading.Thread(target=locations.find, args=(ADDRESS,))
    reading.start()
    with pipe.open("wb") as writer:  # returns once it is being read
        assert locations.find(ADDRESS) == WEST
        writer.write(b"no ranges")
    reading.join()


def test_all_threads_wait_for_the_first_reading(ranges: Path) -> None:
    locations = locations_of(ranges, interval_seconds=600)
    found: list[Place] = []
    threads = [threading.Thread(target=lambda: found.append(locations.find(ADDRESS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WEST] * 8


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_ranges(tmp_path / "absent", "aws", "ec2region")
    assert caught.value.code == "locations.unreadable"
    (tmp_path / "damaged").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        read_ranges(tmp_path / "damaged", "google", "gceregion")
    assert caught.value.code == "locations.damaged"
    assert "\n" not in str(caught.value)
