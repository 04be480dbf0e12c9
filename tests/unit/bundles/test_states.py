"""What becomes of a repository's bundle state: made anew, checked, changed by people, cleaned up after."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hgfleet.adapters.bundler_status import BundlerStatus, read_bundler_status, write_bundler_status
from hgfleet.adapters.directory_objects import DirectoryObjects
from hgfleet.bundles import by_hand
from hgfleet.bundles.check_times import CheckPolicy, ChecksDue, CheckTimes
from hgfleet.bundles.checking import Condition, check_entries, renew_entries, to_be_dropped
from hgfleet.bundles.publishing import BundleStore, Failure, Published
from hgfleet.bundles.replacing import (
    due_for_removal,
    named_objects,
    with_entries,
    with_new_bundles,
    without_bundles,
    without_removed,
)
from hgfleet.bundles.sweeping import sweep
from hgfleet.bundles.tally import Tally
from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.bundle_state import NOTHING, BundleSet, BundleState, Made, Retired, parse_bundle_state
from hgfleet.model.ids import Digest, Node, Seq, new_repo_id
from hgfleet.ports.object_store import ReadBack

REPOSITORY = new_repo_id()
DOWN = TransientError("object.unreachable", "the public URL does not answer")


def store(name: str, root: Path = Path("/nowhere"), expiry_seconds: float = 0.0) -> BundleStore:
    return BundleStore(name, DirectoryObjects(root), f"https://{name}.example", {}, expiry_seconds)


NEAR, FAR = store("near"), store("far")
STORES = [NEAR, FAR]


def entry(at: str, name: str, kind: BundleType = BundleType.ZSTD, **attributes: str) -> ManifestEntry:
    digest = Digest(f"{len(name):064x}")
    return ManifestEntry(f"https://{at}.example/{name}", kind, "zstd-v2", 7, digest, at, attributes)


BY_HAND = ManifestEntry("https://else.example/x.hg", BundleType.OTHER, "bzip2-v2", 7, Digest("0" * 64))


def made(at: float) -> Made:
    return Made(Seq(3), Node("a" * 40), 5, at)


def remade(
    before: BundleState, at: float, *entries: ManifestEntry, failed: tuple[str, ...] = ()
) -> BundleState:
    failures = tuple(Failure(name, DOWN) for name in failed)
    return with_new_bundles(before, Published(entries, failures), made(at), ["near", "far"], STORES)


# ---- made anew


def test_the_set_before_is_kept_and_the_one_before_that_is_retired() -> None:
    first = remade(NOTHING, 1.0, entry("near", "1"))
    second = remade(first, 2.0, entry("near", "2"))
    third = remade(second, 3.0, entry("near", "3"))

    assert [one.url for one in third.offered] == ["https://near.example/3"]
    assert third.previous == second.current
    assert third.retired == (Retired("near", "1", 3.0),)


def test_an_object_that_is_named_again_is_retired_no_more() -> None:
    state = NOTHING
    for at, name in enumerate(["1", "2", "3", "1"]):
        state = remade(state, float(at), entry("near", name))

    assert state.retired == (Retired("near", "2", 3.0),)


def test_a_store_that_failed_keeps_what_it_had_and_people_keep_what_they_added() -> None:
    before = remade(NOTHING, 1.0, entry("near", "1"), entry("far", "1"))
    before = by_hand.with_added(before, BY_HAND, STORES, 1.5)

    after = remade(before, 2.0, entry("near", "2"), failed=("far",))

    assert {one.url for one in after.offered} == {
        "https://near.example/2",
        "https://far.example/1",
        BY_HAND.url,
    }


def test_a_type_is_not_offered_only_to_clients_with_sni() -> None:
    cdn = entry("near", "1", REQUIRESNI="true")

    assert remade(NOTHING, 1.0, cdn, failed=("far",)).offered == ()
    assert len(remade(NOTHING, 1.0, cdn, entry("far", "1")).offered) == 2


def test_what_is_withdrawn_is_retired_but_for_what_people_added() -> None:
    before = by_hand.with_added(remade(NOTHING, 1.0, entry("near", "1")), BY_HAND, STORES, 1.0)

    after = without_bundles(before, STORES, 2.0)

    assert after.offered == (BY_HAND,)
    assert (after.previous, after.retired) == (None, (Retired("near", "1", 2.0),))


def test_objects_are_removed_after_the_grace_and_then_forgotten() -> None:
    state = replace(NOTHING, retired=(Retired("near", "1", 10.0), Retired("near", "2", 20.0)))

    due = due_for_removal(state, 5.0, 15.0)

    assert due == [Retired("near", "1", 10.0)]
    assert without_removed(state, due).retired == (Retired("near", "2", 20.0),)


# ---- checked


class Urls:
    """Answers what it is told, everything else as it should be."""

    def __init__(self, **answer_by_host: ReadBack | Exception | None) -> None:
        self._answer_by_host = answer_by_host

    def read(self, url: str) -> ReadBack | None:
        host = url.removeprefix("https://").partition(".")[0]
        name = url.rpartition("/")[2]
        answer = self._answer_by_host.get(host, ReadBack(7, Digest(f"{len(name):064x}")))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def size_of(self, url: str) -> int | None:
        found = self.read(url)
        return found.size_bytes if found is not None else None


REFUSED = RejectedError("object.url", "clients cannot fetch from the public URL")


@pytest.mark.parametrize(
    ("answer", "is_whole", "condition"),
    [
        (None, False, Condition.GONE),
        (ReadBack(8, Digest(f"{1:064x}")), False, Condition.GONE),
        (ReadBack(7, Digest(f"{2:064x}")), False, Condition.WELL),  # only the bytes tell
        (ReadBack(7, Digest(f"{2:064x}")), True, Condition.GONE),
        (ReadBack(7, Digest(f"{1:064x}")), True, Condition.WELL),
        (REFUSED, True, Condition.GONE),
        (DOWN, False, Condition.UNREACHABLE),
        (DOWN, True, Condition.UNREACHABLE),
    ],
)
def test_what_is_gone_is_told_from_what_we_cannot_reach(
    answer: ReadBack | Exception | None, is_whole: bool, condition: Condition
) -> None:
    [checked] = check_entries([entry("near", "1")], Urls(near=answer), is_whole=is_whole)

    assert checked.condition is condition
    assert bool(checked.reason) is (condition is not Condition.WELL)


def test_what_is_gone_is_dropped_at_once_even_the_last() -> None:
    checked = check_entries([entry("near", "1")], Urls(near=None), is_whole=False)

    assert to_be_dropped(checked, set()) == checked


def test_what_we_cannot_reach_is_dropped_at_the_second_look_while_its_type_has_another() -> None:
    both = [entry("near", "1"), entry("far", "1")]
    lone = entry("near", "2", BundleType.GZIP_V1)
    checked = check_entries([*both, lone], Urls(near=DOWN), is_whole=False)

    assert to_be_dropped(checked, set()) == []
    assert [one.entry for one in to_be_dropped(checked, {e.url for e in [*both, lone]})] == [both[0]]


def test_stores_that_are_all_unreachable_empty_no_manifest() -> None:
    both = [entry("near", "1"), entry("far", "1")]
    checked = check_entries(both, Urls(near=DOWN, far=DOWN), is_whole=False)

    assert to_be_dropped(checked, {one.url for one in both}) == []


def test_only_stores_that_expire_are_renewed_and_say_what_they_have_lost(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    expiring = store("near", tmp_path, expiry_seconds=60.0)

    failed = renew_entries(
        [entry("near", "there"), entry("near", "lost"), entry("far", "any")], [expiring, FAR]
    )

    assert [(one.entry.url, one.condition) for one in failed] == [
        ("https://near.example/lost", Condition.GONE)
    ]


def test_after_a_start_everything_is_asked_for_and_then_as_often_as_the_policy_says() -> None:
    times = CheckTimes(CheckPolicy(check_seconds=10.0, verify_seconds=100.0))

    assert times.due(REPOSITORY, 950.0, 0.0, 1000.0) == ChecksDue(True, False, False)
    times.note_check(REPOSITORY, 1000.0, is_whole=False, unreachable={"u"})
    assert times.unreachable(REPOSITORY) == {"u"}
    assert times.due(REPOSITORY, 950.0, 0.0, 1005.0) == ChecksDue(False, False, False)
    assert times.due(REPOSITORY, 950.0, 0.0, 1050.0) == ChecksDue(True, True, False)
    times.note_check(REPOSITORY, 1050.0, is_whole=True, unreachable=set())
    assert times.due(REPOSITORY, 950.0, 0.0, 1060.0) == ChecksDue(True, False, False)


def test_renewals_come_well_before_the_end() -> None:
    times = CheckTimes(CheckPolicy(1e9, 1e9))
    times.note_check(REPOSITORY, 1000.0, is_whole=False, unreachable=set())

    assert not times.due(REPOSITORY, 1000.0, 40.0, 1009.0).is_renewal
    assert times.due(REPOSITORY, 1000.0, 40.0, 1010.0).is_renewal
    times.note_renewal(REPOSITORY, 1010.0)
    assert not times.due(REPOSITORY, 1000.0, 40.0, 1019.0).is_renewal


# ---- by people


def test_what_is_disabled_is_kept_and_restored() -> None:
    state = remade(NOTHING, 1.0, entry("near", "1"))

    off = by_hand.disabled(state)

    assert off.offered == ()
    assert by_hand.restored(off) == state
    for change in (by_hand.disabled, by_hand.disabled):
        with pytest.raises(RejectedError):
            change(off)
    with pytest.raises(RejectedError):
        by_hand.disabled(NOTHING)


def test_the_set_before_can_be_brought_back_and_forth() -> None:
    first = remade(NOTHING, 1.0, entry("near", "1"))
    second = remade(first, 2.0, entry("near", "2"))

    back = by_hand.restored(second)

    assert back.current == first.current
    assert by_hand.restored(back) == second
    with pytest.raises(RejectedError):
        by_hand.restored(first)


def test_what_people_added_they_may_remove_and_nothing_else() -> None:
    state = by_hand.with_added(remade(NOTHING, 1.0, entry("near", "1")), BY_HAND, STORES, 1.0)

    assert by_hand.without_url(state, BY_HAND.url, STORES, 2.0).offered == (entry("near", "1"),)
    for url in ("https://near.example/1", "https://near.example/9"):
        with pytest.raises(RejectedError):
            by_hand.without_url(state, url, STORES, 2.0)


def test_what_people_add_is_what_lies_at_the_url() -> None:
    found = by_hand.verified_entry(
        "https://else.example/x", {"BUNDLESPEC": "gzip-v2", "datacenter": "ams"}, Urls()
    )

    assert (found.kind, found.size_bytes, found.is_by_hand) == (BundleType.GZIP_V2, 7, True)
    assert found.attributes == {"datacenter": "ams"}


@pytest.mark.parametrize(
    ("url", "attributes", "answer"),
    [
        ("https://else.example/x", {"BUNDLESPEC": "gzip-v2"}, None),
        ("https://else.example/x", {"BUNDLESPEC": ""}, ReadBack(1, Digest("0" * 64))),
        ("ftp://else.example/x", {"BUNDLESPEC": "gzip-v2"}, ReadBack(1, Digest("0" * 64))),
        ("https://else.example/x", {"BUNDLESPEC": "gzip-v2", "a b": "c"}, ReadBack(1, Digest("0" * 64))),
        (
            "https://else.example/x",
            {"BUNDLESPEC": "gzip-v2", "DIGEST": "sha256:" + "1" * 64},
            ReadBack(1, Digest("0" * 64)),
        ),
    ],
)
def test_what_no_client_could_use_is_not_added(
    url: str, attributes: dict[str, str], answer: ReadBack | None
) -> None:
    with pytest.raises(RejectedError):
        by_hand.verified_entry(url, attributes, Urls(**{"else": answer, "ftp://else": answer}))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("zstd-v2", BundleType.ZSTD),
        ("zstd-v2;level=19", BundleType.ZSTD),
        ("gzip-v1", BundleType.GZIP_V1),
        ("none-packed1;requirements=generaldelta", BundleType.PACKED1),
        ("none-v2;stream=v2;requirements=x", BundleType.STREAM_V2),
        ("none-v2", BundleType.OTHER),
        ("bzip2-v1", BundleType.OTHER),
    ],
)
def test_a_specification_names_its_type(spec: str, kind: BundleType) -> None:
    assert by_hand.kind_of(spec) is kind


# ---- in messages


def test_a_state_is_read_back_whole() -> None:
    state = by_hand.disabled(remade(remade(NOTHING, 1.0, entry("near", "1")), 2.0, entry("near", "2")))
    state = with_entries(state, (*state.current.entries, BY_HAND), STORES, 3.0)

    assert parse_bundle_state({"replaces": "", **state.to_json()}) == state
    assert parse_bundle_state(NOTHING.to_json()) == BundleState(BundleSet())


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": None},
        {"made": 3},
        {"made": {"seq": -1, "tip": "a" * 40, "changesets": 1, "at": 1.0}},
        {"made": {"seq": 1, "tip": "x", "changesets": 1, "at": 1.0}},
        {"previous": []},
        {"is_disabled": 1},
        {"retired": [{"store": 1, "name": "x", "at": 1.0}]},
        {"retired": [3]},
    ],
)
def test_a_damaged_body_is_none(damage: dict[str, object]) -> None:
    with pytest.raises(PoisonError) as poison:
        parse_bundle_state({**NOTHING.to_json(), **damage})
    assert poison.value.code == "bundles.damaged"


# ---- swept


OBJECT = f"team/app/{'a' * 40}.{'b' * 12}.zstd.hg"


@pytest.mark.parametrize(
    ("name", "is_named", "is_old", "is_exclusive", "is_removed"),
    [
        (OBJECT, False, True, True, True),
        (OBJECT, True, True, True, False),
        (OBJECT, False, False, True, False),
        (OBJECT, False, True, False, False),
        ("index.html", False, True, True, False),
        ("team/app/notes.hg", False, True, True, False),
    ],
)
def test_only_bundles_that_nothing_names_are_removed_and_only_after_the_grace(
    tmp_path: Path, name: str, *, is_named: bool, is_old: bool, is_exclusive: bool, is_removed: bool
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    before = path.stat().st_mtime + (1.0 if is_old else -1.0)
    here = replace(store("near", tmp_path), is_exclusive=is_exclusive)

    gone = list(sweep(here, {("near", name)} if is_named else {("far", name)}, before))

    assert (gone == [name], path.exists()) == (is_removed, not is_removed)


@pytest.mark.parametrize(
    ("age_seconds", "is_exclusive", "stays"),
    [(2 * 86_400, True, False), (3600, True, True), (2 * 86_400, False, True)],
)
def test_what_a_killed_upload_left_is_removed_once_it_cannot_be_under_way(
    tmp_path: Path, *, age_seconds: float, is_exclusive: bool, stays: bool
) -> None:
    draft = tmp_path / ".incoming" / "draft"
    draft.parent.mkdir()
    draft.write_bytes(b"half")
    began_at = draft.stat().st_mtime - age_seconds
    os.utime(draft, (began_at, began_at))

    assert list(sweep(replace(store("near", tmp_path), is_exclusive=is_exclusive), set(), began_at)) == []

    assert draft.exists() == stays


def test_what_is_offered_could_be_restored_or_is_to_be_removed_is_named() -> None:
    state = NOTHING
    for at in range(3):
        state = remade(state, float(at), entry("near", str(at)))

    assert named_objects(state, STORES) == {("near", "0"), ("near", "1"), ("near", "2")}


# ---- told to metrics


def test_a_tally_tells_of_the_last_look_at_each_repository() -> None:
    tally, other = Tally(), new_repo_id()
    tally.note_run(REPOSITORY, is_failed=True, stores=["near"])
    tally.note_run(other, is_failed=True)
    tally.note_check(REPOSITORY, unreachable=2, gone=1)
    tally.note_check(REPOSITORY, unreachable=1, gone=1)

    assert tally.status(5.0) == BundlerStatus(5.0, 2, {"near": 1}, unreachable=1, gone=2)
    tally.note_run(other, is_failed=False)
    tally.keep_only(set())
    assert tally.status(6.0) == BundlerStatus(6.0, gone=2)


def test_what_a_bundler_tells_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "bundler.json"
    assert read_bundler_status(path) is None
    write_bundler_status(path, BundlerStatus(5.0, 2, {"near": 1}))
    assert read_bundler_status(path) == asdict(BundlerStatus(5.0, 2, {"near": 1}))
    path.write_text("{}")
    assert read_bundler_status(path) is None
