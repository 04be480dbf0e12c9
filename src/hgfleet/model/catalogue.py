"""The catalogue: which path leads to which repository, its partition, and who holds the newest epoch.

The catalogue is one partition with a chain of its own (seq, parent). Every change is conditional on all of
it: the parent fixes the state in which the change was checked, so of two made at once exactly one counts.

Promises: two readers that took the same records agree on every verdict, path and epoch; a path leads to one
repository and a repository has at most one path; an id that was bound once is never bound again.
Does not: judge names while reading. Rules that may differ between releases (check_new_path) are asked by
whoever creates or renames, never by the fold, or two releases side by side would disagree about the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.acceptance import PartitionReader, RepoHead, Verdict, link_fault
from hgfleet.model.ids import (
    CATALOGUE,
    NO_DIGEST,
    START,
    Digest,
    Epoch,
    HostName,
    Offset,
    Partition,
    Position,
    RepoId,
    RepoPath,
    Seq,
    parse_host_name,
    parse_repo_id,
    parse_repo_path,
)
from hgfleet.model.message import CATALOGUE_KINDS, Json, Kind, Message

Body = Mapping[str, Json]

# Words that hgweb and hgfleet answer to right after a repository's path; one nested there hides them.
WEB_COMMANDS = frozenset(
    {
        *("annotate", "archive", "atom-log", "automationrelevance", "bookmarks", "branches", "changelog"),
        *("changeset", "clonebundles", "comparison", "diff", "file", "filediff", "filelog", "graph"),
        *("headdivergence", "help", "info", "isancestor", "log", "manifest", "pushchangedfiles", "pushes"),
        *(
            "pushlog",
            "pushloghtml",
            "raw",
            "rawfile",
            "repoinfo",
            "rev",
            "shortlog",
            "static",
            "summary",
            "tags",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Binding:
    """One path and where it leads."""

    path: RepoPath
    repository: RepoId
    partition: Partition


@dataclass(frozen=True, slots=True)
class EpochOwner:
    """Who won an epoch: `life` is one run of that host's log agent."""

    number: Epoch
    host: str
    life: str


NO_OWNER = EpochOwner(Epoch(0), "", "")


def bind_body(path: RepoPath, repository: RepoId, partition: Partition) -> dict[str, Json]:
    """Return the body of a `bind`."""
    return {"path": path, "repository": repository, "partition": partition}


def unbind_body(path: RepoPath, repository: RepoId) -> dict[str, Json]:
    """Return the body of an `unbind`."""
    return {"path": path, "repository": repository}


def rename_body(path: RepoPath, new_path: RepoPath, repository: RepoId) -> dict[str, Json]:
    """Return the body of a `rename`."""
    return {"path": path, "new_path": new_path, "repository": repository}


def epoch_body(number: Epoch, host: HostName, life: str) -> dict[str, Json]:
    """Return the body of an `epoch` message; its envelope's epoch is the same number, on both topics."""
    return {"number": number, "host": host, "life": life}


def site_body(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Return the body of a `site` message: the settings to change, None to remove one."""
    return {"settings": dict(settings)}


class Catalogue:
    """The fold of the catalogue topic from its start."""

    def __init__(self) -> None:
        self.seq = Seq(0)
        self.digest: Digest = NO_DIGEST
        self.position: Position = START
        self.owner = NO_OWNER
        self.site: dict[str, Json] = {}
        self.parked = ""  # why nothing after `seq` can be taken; "" in health
        self._binding_by_path: dict[RepoPath, Binding] = {}
        self._path_by_repository: dict[RepoId, RepoPath] = {}
        self._partition_by_repository: dict[RepoId, Partition] = {}

    @property
    def newest_epoch(self) -> Epoch:
        """The number of the epoch in force."""
        return self.owner.number

    @property
    def head(self) -> RepoHead:
        """The catalogue's last message that counts, in the form of a repository's."""
        return RepoHead(self.seq, self.digest, self.position)

    def may_open_epoch(self, host: HostName, *, is_failover: bool = False) -> bool:
        """Whether a starting log agent bids for a new epoch; otherwise it stays a standby.

        Every start needs a new one: in the old epoch an append of the life before may still land.
        """
        return is_failover or self.owner.host in {"", host}

    def bindings(self) -> Iterator[Binding]:
        """Yield every path in order."""
        for path in sorted(self._binding_by_path):
            yield self._binding_by_path[path]

    def repository_at(self, path: str) -> Binding | None:
        """Return where the path leads, None when it leads nowhere."""
        return self._binding_by_path.get(RepoPath(path))

    def resolve(self, path: str) -> Binding:
        """Return where the path leads. Raises RejectedError `repo.bad-path` or `repo.unknown`."""
        binding = self.repository_at(parse_repo_path(path))
        if binding is None:
            raise RejectedError("repo.unknown", "no such repository", status=404, path=path)
        return binding

    def path_of(self, repository: RepoId) -> RepoPath | None:
        """Return the repository's path, None when it is not bound."""
        return self._path_by_repository.get(repository)

    def partition_of(self, repository: RepoId) -> Partition | None:
        """Return the partition recorded for a repository that was ever bound."""
        return self._partition_by_repository.get(repository)

    def check_new_path(self, path: RepoPath, reserved: frozenset[str] = WEB_COMMANDS) -> None:
        """Check that a repository may be bound there, or raise `repo.exists` or `repo.reserved`."""
        if path in self._binding_by_path:
            raise RejectedError("repo.exists", "a repository of that name exists", status=409, path=path)
        for outer, word in self._neighbours(path):
            if _is_command(word, reserved):
                raise RejectedError(
                    "repo.reserved",
                    "the name would hide a page of another repository",
                    hint=f"{word!r} right after {outer!r} is taken",
                    status=409,
                    path=path,
                )

    def unfinished(self, reader: PartitionReader) -> list[RepoId]:
        """Return what is created in a partition, not deleted and not bound: halves of earlier lives.

        Ask after the own epoch was read in that partition and before serving it, and delete each: an earlier
        life's `created` can land until then, and a bind after that cannot count any more.
        """
        return sorted(r for r in reader.live() if r not in self._path_by_repository)

    def take(self, message: Message, next_offset: Offset) -> Verdict:
        """Take the record at the position; `next_offset` is the one after it."""
        self.position = Position(next_offset, self.newest_epoch)
        try:
            verdict = self._take(message)
        except (PoisonError, RejectedError) as error:
            verdict = self._park(f"damaged {message.envelope.kind} message: {error}")
        self.position = Position(next_offset, self.newest_epoch)
        return verdict

    def take_unreadable(self, next_offset: Offset, reason: str) -> Verdict:
        """Take a record that could not be decoded: whether it counts cannot be known, so the fold ends."""
        self.position = Position(next_offset, self.newest_epoch)
        return self._park(reason)

    def _take(self, message: Message) -> Verdict:
        if self.parked:
            return Verdict.PARKED
        envelope = message.envelope
        is_bid = envelope.kind is Kind.EPOCH
        if envelope.seq <= self.seq or (envelope.epoch < self.newest_epoch and not is_bid):
            return Verdict.IGNORED
        fault = link_fault(self.head, envelope)
        if (
            fault
            or envelope.kind not in CATALOGUE_KINDS
            or (envelope.epoch > self.newest_epoch and not is_bid)
        ):
            return self._park(fault or f"a {envelope.kind} message of epoch {envelope.epoch}")
        if not self._apply(message):
            return Verdict.IGNORED
        self.seq, self.digest = envelope.seq, message.digest
        return Verdict.EPOCH if is_bid else Verdict.COUNTS

    def _park(self, reason: str) -> Verdict:
        self.parked = self.parked or reason
        return Verdict.PARKED

    def _apply(self, message: Message) -> bool:
        """Change the state as the message says; False, and no change, when it does not fit the state."""
        body = message.envelope.body
        match message.envelope.kind:
            case Kind.EPOCH:
                return self._apply_epoch(message.envelope.epoch, body)
            case Kind.BIND:
                return self._apply_bind(_parse_binding(body))
            case Kind.UNBIND:
                return self._apply_unbind(_path(body, "path"), _repository(body))
            case Kind.RENAME:
                return self._apply_rename(_path(body, "path"), _path(body, "new_path"), _repository(body))
            case _:
                return self._apply_site(body)

    def _apply_epoch(self, number: Epoch, body: Body) -> bool:
        owner = _parse_owner(body)
        if owner.number != number:
            raise _damaged("the epoch is not the one in the envelope")
        if number <= self.newest_epoch:
            return False
        self.owner = owner
        return True

    def _apply_bind(self, binding: Binding) -> bool:
        if binding.path in self._binding_by_path or binding.repository in self._partition_by_repository:
            return False
        self._partition_by_repository[binding.repository] = binding.partition
        self._bind(binding)
        return True

    def _apply_unbind(self, path: RepoPath, repository: RepoId) -> bool:
        if self._path_by_repository.get(repository) != path:
            return False
        self._unbind(path)
        return True

    def _apply_rename(self, path: RepoPath, new_path: RepoPath, repository: RepoId) -> bool:
        if self._path_by_repository.get(repository) != path or new_path in self._binding_by_path:
            return False
        partition = self._unbind(path).partition
        self._bind(Binding(new_path, repository, partition))
        return True

    def _apply_site(self, body: Body) -> bool:
        settings = body.get("settings")
        if not isinstance(settings, dict):
            raise _damaged("settings are missing")
        for name, value in settings.items():
            if value is None:
                self.site.pop(name, None)
            else:
                self.site[name] = value
        return True

    def _bind(self, binding: Binding) -> None:
        self._binding_by_path[binding.path] = binding
        self._path_by_repository[binding.repository] = binding.path

    def _unbind(self, path: RepoPath) -> Binding:
        binding = self._binding_by_path.pop(path)
        del self._path_by_repository[binding.repository]
        return binding

    def _neighbours(self, path: RepoPath) -> Iterator[tuple[str, str]]:
        """Yield (outer path, the part right after it) for every repository above `path`, or below it."""
        parts = path.split("/")
        for count in range(1, len(parts)):
            outer = "/".join(parts[:count])
            if self.repository_at(outer):
                yield outer, parts[count]
        for inner in self._binding_by_path:
            if inner.startswith(path + "/"):
                yield path, inner[len(path) + 1 :].split("/")[0]


def _is_command(word: str, reserved: Iterable[str]) -> bool:
    """Whether hgweb takes the word for a command; it reads `style-command` as a command, too."""
    return word in reserved or word.rpartition("-")[2] in reserved


def _parse_binding(body: Body) -> Binding:
    partition = body.get("partition")
    if type(partition) is not int or partition < 0:
        raise _damaged("the partition is missing")
    return Binding(_path(body, "path"), _repository(body), Partition(partition))


def _parse_owner(body: Body) -> EpochOwner:
    number = body.get("number")
    if type(number) is not int or number < 1:
        raise _damaged("the number is missing")
    return EpochOwner(Epoch(number), parse_host_name(_text(body, "host")), _text(body, "life"))


def _path(body: Body, name: str) -> RepoPath:
    return parse_repo_path(_text(body, name))


def _repository(body: Body) -> RepoId:
    repository = parse_repo_id(_text(body, "repository"))
    if repository == CATALOGUE:
        raise _damaged("the repository is the catalogue")
    return repository


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _damaged(f"field {name!r} is missing or of the wrong type")
    return value


def _damaged(reason: str) -> PoisonError:
    return PoisonError("catalogue.damaged", f"damaged catalogue message: {reason}")
