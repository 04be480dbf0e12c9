"""What `hgfleet doctor` finds out about the log, the blob store and the directory of accounts.

Promises: each part is asked through the adapter that the fleet uses, with the configuration's own settings.
Does not: judge hosts or mirrors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hgfleet.adapters.blob_check import check_blob_store
from hgfleet.adapters.secret_files import check_secret_file
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.kafka_topics import describe_difference, find_topic_differences
from hgfleet.cli.parts import ldap_options, open_blobs, open_plain_directory
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import FleetError
from hgfleet.model.finding import Finding
from hgfleet.model.ids import AccountName

_LOG, _DIRECTORY = "log", "directory"
_PROBE = AccountName("hgfleet-doctor")  # need not exist: being told so is an answer


def check_log(fleet: Fleet) -> Iterator[Finding]:
    """Ask this host's log agent, and where topics are somebody else's, whether they are as they should be."""
    if fleet.config.log.kind == "kafka":
        yield from _check_topics(fleet.config)
    try:
        with fleet.agent() as agent:
            status = agent.status()
    except FleetError as error:
        starts = f"hgfleet run on {fleet.host}" if fleet.host else "hgfleet up"
        yield Finding(
            _LOG, False, f"the log agent of this host does not answer: {error}", f"start it: {starts}"
        )
        return
    yield from judge_agent(status)


def judge_agent(status: dict[str, Any]) -> Iterator[Finding]:
    """Say what the log agent's own words mean."""
    catalogue, epoch = status["catalogue"], status["catalogue"]["newest_epoch"]
    if not catalogue["owner"]:
        yield Finding(_LOG, False, "no host has ever led", "start the primary: hgfleet run primary")
    else:
        yield Finding(_LOG, True, f"epoch {epoch}, led by {catalogue['owner']}; this agent has read the log")
    if status.get("last_error"):
        remedy = "see whether the log's servers run and can be reached from this host"
        yield Finding(_LOG, False, f"the log does not answer: {status['last_error']}", remedy)
    parked = {name: why for place in status["positions"] for name, why in place["parked"].items()}
    if catalogue["parked"]:
        parked["the catalogue"] = catalogue["parked"]
    for name, why in parked.items():
        yield Finding(_LOG, False, f"{name} cannot be read on: {why}", "hgfleet log show tells its messages")
    if status["lost"]:
        remedy = "hgfleet log adopt reports what would be appended again (docs/operate/log-behind.md)"
        yield Finding(_LOG, False, f"the log has lost {len(status['lost'])} repositories", remedy)


def _check_topics(config: FleetConfig) -> Iterator[Finding]:
    differences = find_topic_differences(config)
    for found in differences:
        yield Finding("topics", False, describe_difference(found), found.mend)
    if not differences:
        yield Finding("topics", True, "all four are as they should be")


def check_blobs(fleet: Fleet) -> Iterator[Finding]:
    """Put a probe into the blob store and take it out again."""
    config = fleet.config
    if config.blobs.kind == "s3":
        yield from check_secret_file("blob store", config.s3.credentials_file)
    place = config.s3.bucket if config.blobs.kind == "s3" else str(config.blobs.path)
    yield from check_blob_store(open_blobs(config), place)


def check_directory(fleet: Fleet) -> Iterator[Finding]:
    """Ask the directory for an account, and an LDAP server for more."""
    config = fleet.config
    if config.directory.kind == "ldap":
        from hgfleet.adapters.ldap_check import check_ldap

        yield from check_ldap(ldap_options(config))
        return
    open_plain_directory(config).account(_PROBE)
    yield Finding(_DIRECTORY, True, f"{config.directory.path}: can be read")
