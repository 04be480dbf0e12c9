"""A host with a real log agent and one repository, pushed to by real clients over a pipe instead of SSH.

`ui.ssh` of the clients runs `session`, which does what a session worker does: bring the copy up to date, then
`hg serve --stdio`. Administrators' commands run `hg` on the host's repository.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.hgrc_render import HgrcOptions, render_hgrc, without_mercurial_settings
from hgfleet.hgext import seqfile
from hgfleet.hgext.pushlog import Push, Pushlog
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import RepoId
from hgfleet.model.message import Message, decode_message
from hgfleet.model.settings import RepoSettings
from hgfleet.runtime.faults import VARIABLE
from tests.support.agents import AgentPlace, AgentProcess, agent_process, short_directory
from tests.support.clients import CURRENT_HG, ROOT, HgClient, Outcome, clean_environment, run
from tests.support.repositories import WorkingCopy


@dataclass
class StdioHost:
    """The primary's files, its agent, and ways to push."""

    directory: Path
    agent: AgentProcess
    repository: RepoId

    @property
    def copy(self) -> Path:
        """`repos/<RepoId>`."""
        return self.directory / "repos" / self.repository

    @property
    def root(self) -> Path:
        """The repository's root."""
        return self.copy / "current"

    @property
    def url(self) -> str:
        """What clients push to."""
        return f"ssh://host/{self.root}"

    @property
    def faults(self) -> Path:
        """Where tests arm points of a push."""
        directory = self.directory / "push-faults"
        directory.mkdir(exist_ok=True)
        return directory

    @property
    def state(self) -> SeqState:
        """What the copy is the result of."""
        state = seqfile.read(self.root)
        assert state is not None
        return state

    @property
    def pushes(self) -> list[Push]:
        """The copy's pushlog."""
        with Pushlog(self.root / ".hg" / "store") as log:
            return list(log.range(1, len(log)))

    @property
    def messages(self) -> list[Message]:
        """What the log has of the repository."""
        with self.client() as client:
            messages: list[Message] = []
            while batch := client.read(self.repository, len(messages)).messages:
                messages += [decode_message(message.wire) for message in batch]
            return messages

    def client(self) -> LogAgentClient:
        """Return a client of the agent."""
        return self.agent.place.client()

    def write_hgrc(self, extra: str = "") -> Path:
        """Write what the host's own Mercurial reads."""
        options = HgrcOptions(
            host="primary",
            agent_socket=self.agent.place.socket,
            spool_directory=self.directory / "spool",
            site_url="https://localhost",
            ssh_url="ssh://localhost",
            inline_limit_bytes=256 * 1024,
            append_deadline_seconds=2,
            visible_wait_seconds=0,
            lock_timeout_seconds=5,
            allow_faults=True,
        )
        path = self.directory / "primary.hgrc"
        path.write_text(render_hgrc(options) + extra)
        return path

    def environment(self) -> dict[str, str]:
        """Return what a process of the host sees."""
        base = clean_environment(self.directory) | {VARIABLE: str(self.faults), "PYTHONPATH": str(ROOT)}
        return without_mercurial_settings(base) | {"HGRCPATH": str(self.directory / "primary.hgrc")}

    def hg(self, *args: str) -> Outcome:
        """Run an administrator's `hg` on the host's repository."""
        return run(
            [str(CURRENT_HG), "-R", str(self.root), "--config", "ui.username=admin", *args],
            env=self.environment(),
        )

    def session(self) -> Outcome:
        """Do what a session does before its hello."""
        return run(self._session_argv("true"), env=self.environment())

    def _session_argv(self, *command: str) -> list[str]:
        program = [sys.executable, "-m", "tests.support.stdio_session"]
        return [*program, str(self.agent.place.socket), str(self.copy), *command]

    def pusher(self, name: str = "work", hg: Path = CURRENT_HG) -> WorkingCopy:
        """Return a new working copy whose `ssh` leads here."""
        script = self.directory / "ssh"
        environment = " ".join(f"{key}='{value}'" for key, value in self.environment().items())
        argv = " ".join(self._session_argv("sh", "-c", '"$*"'))
        script.write_text(f"#!/bin/sh\nshift\nexec env -i {environment} {argv}\n")
        script.chmod(0o755)
        client = HgClient(hg, self.directory, (f"ui.ssh={script}", "ui.username=Alice", "ui.timeout=5"))
        return WorkingCopy.init(client, self.directory / name)

    def arm(self, point: str, action: str = "kill") -> None:
        """Let the next push meet a fault."""
        (self.faults / point).write_text(action)

    def check(self) -> None:
        """Check that the copy is whole and is what its log says."""
        self.hg("verify", "-q").ok()
        messages, state = self.messages, self.state
        assert state.seq == len(messages)
        assert state.digest == messages[-1].digest
        assert not (self.root / ".hg" / "store" / "journal").exists()
        by_id = [message.envelope.body.get("push_id") for message in messages]
        assert [push_id for push_id in by_id if push_id] == list(range(1, len(self.pushes) + 1))
        ends = [0, *(push.end_rev for push in self.pushes)]
        assert [push.first_rev for push in self.pushes] == ends[:-1]
        assert ends[-1] == state.fingerprint.changelog_length
        assert int(self.hg("log", "--hidden", "-r", "tip", "-T", "{rev}").ok().out or -1) + 1 == ends[-1]


@contextmanager
def stdio_host(*, is_publishing: bool = False) -> Iterator[StdioHost]:
    """Run a host until the end of the block; its repository exists."""
    with short_directory() as directory, agent_process(AgentPlace(directory)) as agent:
        settings = RepoSettings(is_publishing=is_publishing).to_json()
        with agent.place.client() as client:
            created = client.create("team/app", settings, identity="alice", trace="create")
        host = StdioHost(directory, agent, created.repository)
        host.write_hgrc()
        host.session().ok()
        yield host
