"""The one checker of what must hold for every copy of every repository, whatever happened before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.copies import read_copy
from tests.support.fleet import Fleet


def check_everything(fleet: Fleet) -> None:
    """Wait until all mirrors have all pushes, then check every repository (D2, D4, R1, R5, R6)."""
    for repository in fleet.cli_json("repo", "list"):
        check_repository(fleet, repository["path"])


def check_repository(fleet: Fleet, path: str) -> list[dict[str, Any]]:
    """Check one repository on all hosts; return its pushes."""
    wait_converged(fleet, path)
    shown = fleet.show(path)
    assert shown is not None, path
    copies = {copy["host"]: read_copy(Path(copy["path"])) for copy in shown["copies"]}
    assert len(copies) == 1 + len(fleet.mirror_names()), copies.keys()
    reference = copies["primary"]
    for host, copy in copies.items():
        for name, value in reference.items():
            assert copy[name] == value, f"{path}: {name} differs between primary and {host}"
    check_pushlog(reference)
    check_messages(fleet, path, reference)
    for name in fleet.mirror_names():
        check_served_pushes(fleet, name, path, reference["pushes"])
    return list(reference["pushes"])


def wait_converged(fleet: Fleet, path: str) -> None:
    """Wait until every mirror has applied and exposed what the primary has."""

    def is_converged() -> bool:
        repository = fleet.show(path)
        if repository is None:
            return False
        copies = repository["copies"]
        seqs = {copy["seq"] for copy in copies} | {copy["exposed_seq"] for copy in copies}
        return seqs == {repository["seq"]} and len(copies) == 1 + len(fleet.mirror_names())

    fleet.wait(is_converged, f"all copies of {path} agree")


def check_pushlog(copy: dict[str, Any]) -> None:
    """Check that ids are 1, 2, 3 … and that each changeset belongs to exactly one push (D4)."""
    assert [push["id"] for push in copy["pushes"]] == list(range(1, len(copy["pushes"]) + 1))
    in_pushes = [node for push in copy["pushes"] for node in push["changesets"]]
    assert in_pushes == copy["nodes"]


def check_messages(fleet: Fleet, path: str, copy: dict[str, Any]) -> None:
    """Check that the log names exactly these pushes, at these dates, by these people."""
    messages = fleet.cli_json("log", "show", path)
    pushes = [m for m in messages if m["kind"] == "push" and m["body"]["push_id"] is not None]
    assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
    assert [m["body"]["push_id"] for m in pushes] == [push["id"] for push in copy["pushes"]]
    assert [m["body"]["pusher"] for m in pushes] == [push["user"] for push in copy["pushes"]]
    assert [m["body"]["changesets"]["count"] for m in pushes] == [
        len(push["changesets"]) for push in copy["pushes"]
    ]
    assert copy["seq"]["seq"] == len(messages)


def check_served_pushes(fleet: Fleet, mirror: str, path: str, pushes: list[dict[str, Any]]) -> None:
    """Check that a mirror's JSON shows the pushes whose changesets readers may see."""
    if not pushes:
        return
    served = get_json(fleet, fleet.mirror_url(mirror, f"{path}/json-pushes?version=2&startID=0&full=0"))
    assert served["lastpushid"] == len(pushes)


def get(fleet: Fleet, url: str) -> tuple[int, bytes]:
    """Return (status, body) of a GET, errors included, trusting the fleet's own CA."""
    reply = fleet.fetch(url)
    return reply.status, reply.body


def get_json(fleet: Fleet, url: str) -> Any:
    """Return the JSON that a URL answers with; raise AssertionError for any status but 200."""
    status, body = get(fleet, url)
    assert status == 200, (url, status, body[:500])
    return json.loads(body)
