"""One repository with a rich history, a view after every step, and a plain copy made at the same moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgfleet.hgext.pushlog import NAME as PUSHLOG
from hgfleet.hgext.pushlog import PUSHERS_NAME, Push, Pushlog, format_rows
from hgfleet.model.ids import PushId, Seq
from hgfleet.model.settings import RepoSettings
from hgfleet.model.state import Fingerprint
from tests.support.clients import HgClient

PUSHERS = ("alice@example.org", "<script>alert(1)</script>", "Zoë")
SERVER = ("phases.publish=no", "experimental.evolution=all", "ui.username=server")
_EXTENSION = '''"""What the entry point of hgfleet's extension calls for readers."""

from mercurial import registrar

from hgfleet.hgext import exposed, options

configtable = {}
options.register(registrar.configitem(configtable))
uisetup, reposetup = exposed.uisetup, exposed.reposetup
'''


@dataclass
class Exposures:
    """The full repository, and for each seq the copy that a replay up to there gives."""

    directory: Path
    hg: HgClient
    seqs: list[Seq] = field(default_factory=list)
    what_by_seq: dict[Seq, str] = field(default_factory=dict)
    _clock: int = 1_700_000_000

    @property
    def full(self) -> Path:
        """The repository that has everything."""
        return self.directory / "full"

    def copy(self, seq: Seq) -> Path:
        """Return the repository as a copy replayed to `seq` has it."""
        return self.directory / f"copy{seq}"

    @property
    def work(self) -> Path:
        """Where changesets are made."""
        return self.directory / "work"

    def client(self, *args: str) -> str:
        """Run hg in the working copy."""
        self._clock += 60
        dated = ("--config", f"devel.default-date={self._clock} 0", "--config", "extensions.rebase=")
        return self.hg.run(*args, *dated, cwd=self.work).ok().out

    def server(self, *args: str) -> str:
        """Run hg on the full repository, as whatever applies would change it."""
        options = [word for item in SERVER for word in ("--config", item)]
        return self.hg.run("-R", str(self.full), *args, *options).ok().out

    def commit(self, text: str, content_by_name: dict[str, str]) -> None:
        """Commit files in the working copy."""
        for name, content in content_by_name.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.client("commit", "-A", "-q", "-m", text, "-u", f"{text} <author@example.org>")

    def push(self, *args: str) -> None:
        """Bring the working copy's changesets into the full repository."""
        options = [word for item in SERVER for word in ("--config", item)]
        outcome = self.hg.run("-R", str(self.work), "push", "-f", *args, *options, str(self.full))
        assert outcome.status in {0, 1}, outcome

    def applied(self, what: str) -> None:
        """End a step: the state now is what the next seq stands for."""
        seq = Seq(len(self.seqs) + 1)
        take_view(self.full, seq)
        shutil.copytree(self.full, self.copy(seq))
        self.seqs.append(seq)
        self.what_by_seq[seq] = what


def open_ui(role: str, *, extension: Path | None = None, config: tuple[str, ...] = SERVER) -> Any:
    """Return a Mercurial configuration as a process of that role has it."""
    from mercurial import extensions, initialization
    from mercurial import ui as uimod

    initialization.init()
    ui = uimod.ui.load()
    for item in (*config, f"hgfleet.role={role}", "web.cache=no", "web.maxshortchanges=100"):
        name, _, value = item.partition("=")
        section, _, key = name.partition(".")
        ui.setconfig(section.encode(), key.encode(), value.encode(), b"test")
    if extension is not None:
        ui.setconfig(b"extensions", b"reading:required", str(extension).encode(), b"test")
        ui.setconfig(b"extensions", b"reading", str(extension).encode(), b"test")
        extensions.loadall(ui)
    return ui


def write_extension(directory: Path) -> Path:
    """Write the smallest extension that exposes repositories."""
    path = directory / "reading.py"
    path.write_text(_EXTENSION)
    return path


def take_view(directory: Path, seq: Seq, settings: RepoSettings | None = None) -> None:
    """Make the view of the repository as it is now."""
    from mercurial.repo import factory

    from hgfleet.hgext.views import make_view

    repo = factory.repository(open_ui("apply"), str(directory).encode()).unfiltered()
    store = directory / ".hg" / "store"
    obsstore = store / "obsstore"
    with repo.lock():
        fingerprint = Fingerprint(
            changelog_length=len(repo),
            obsstore_bytes=obsstore.stat().st_size if obsstore.exists() else 0,
            pushes=_record_push(store, seq, len(repo)),
        )
        make_view(repo, seq, fingerprint, settings or RepoSettings(is_publishing=False))


def _record_push(store: Path, seq: Seq, length: int) -> int:
    """Add a row to the pushlog if there are new changesets; return how many rows there are."""
    with Pushlog(store) as log:
        last = log.push(len(log))
        known = last.end_rev if last is not None else 0
        push = Push(PushId(len(log) + 1), seq, pushed_at(seq), known, length, PUSHERS[seq % len(PUSHERS)])
    if length == known:
        return push.push_id - 1
    rows, names = format_rows(store, [push])
    for name, data in ((PUSHLOG, rows), (PUSHERS_NAME, names)):
        with (store / name).open("ab") as file:
            file.write(data)
    return push.push_id


def pushed_at(seq: Seq) -> float:
    """Return when the push of a seq was accepted."""
    return 1_700_000_000.5 + 1000 * seq


def build(directory: Path, hg: HgClient, names: tuple[str, ...] = ()) -> Exposures:
    """Make every kind of change that a push can carry, alone and mixed; or only the named ones."""
    made = Exposures(directory, hg)
    directory.mkdir(parents=True, exist_ok=True)
    hg.run("init", str(made.full), "--config", "format.use-share-safe=yes").ok()
    hg.run("init", str(made.work)).ok()
    (made.work / ".hg" / "hgrc").write_text("[experimental]\nevolution=all\n[phases]\npublish=no\n")
    for what in names or tuple(STEPS):
        STEPS[what](made)
        made.applied(what)
    return made


def _lines(count: int, mark: str = "") -> str:
    return "".join(f"line {number} {mark}\n" for number in range(count))


def _created(_made: Exposures) -> None:
    """An empty repository is a state too."""


def _first(made: Exposures) -> None:
    made.commit("first", {"a.txt": _lines(30), "dir/b.txt": _lines(5)})
    made.commit("second", {"a.txt": _lines(31)})
    made.push("-r", ".")


def _bookmarked(made: Exposures) -> None:
    made.server("bookmark", "-r", "1", "stable")
    made.server("bookmark", "-r", "0", "doomed")


def _branch(made: Exposures) -> None:
    made.client("update", "-q", "0")
    made.client("branch", "-q", "release")
    made.commit("on release", {"a.txt": _lines(30, "r"), "only-release.txt": "r\n"})
    made.push("-r", ".", "--new-branch")


def _default_again(made: Exposures) -> None:
    made.client("update", "-q", "default")
    made.commit("third", {"a.txt": _lines(33), "c.txt": "c\n"})
    made.push("-r", ".")


def _big(made: Exposures) -> None:
    for number in range(3):  # the filelog leaves its inline form
        made.commit(
            f"big {number}", {"big.bin": "".join(f"{(number + 7) * i * i % 9973}," for i in range(40000))}
        )
    made.push("-r", ".")


def _merge(made: Exposures) -> None:
    made.client("merge", "-q", "-r", "release", "--tool", ":other")
    made.client("commit", "-q", "-m", "merge release", "-u", "merger")
    made.push("-r", ".")


def _tagged(made: Exposures) -> None:
    made.client("tag", "-q", "-r", "1", "v1", "-u", "tagger")
    made.push("-r", ".")


def _published(made: Exposures) -> None:
    made.server("phase", "-p", "-r", "4")


def _draft_and_moved(made: Exposures) -> None:
    made.commit("to be amended", {"a.txt": _lines(35), "d.txt": "d1\n"})
    made.push("-r", ".")
    made.server("bookmark", "-f", "-r", "tip", "stable")


def _amended(made: Exposures) -> None:
    (made.work / "d.txt").write_text("d2\n")
    made.client("commit", "--amend", "-q", "-m", "amended")
    made.push("-r", ".")
    made.server("bookmark", "-f", "-r", "tip", "stable")


def _published_and_more(made: Exposures) -> None:
    made.commit("after amend", {"dir/b.txt": _lines(8), "a.txt": _lines(36)})
    made.push("-r", ".")
    made.server("phase", "-p", "-r", "tip^")


def _bookmarks_gone(made: Exposures) -> None:
    made.server("bookmark", "-d", "stable")


def _last_bookmark_gone(made: Exposures) -> None:
    made.commit("with last bookmark's end", {"e.txt": "e\n"})
    made.push("-r", ".")
    made.server("bookmark", "-d", "doomed")


def _other_head(made: Exposures) -> None:
    made.client("update", "-q", "3")
    made.client("branch", "-q", "-f", "default")
    made.commit("second head", {"a.txt": _lines(34, "head"), "f.txt": "f\n"})
    made.push("-r", ".")


def _renamed(made: Exposures) -> None:
    made.client("rename", "f.txt", "dir/g.txt")
    made.commit("renamed", {})
    made.push("-r", ".")


def _pruned(made: Exposures) -> None:
    made.server("debugobsolete", made.client("log", "-r", ".", "-T", "{node}"), "--record-parents")


def _closed(made: Exposures) -> None:
    made.client("update", "-q", "release")
    made.client("commit", "-q", "--close-branch", "-m", "close release", "-u", "closer")
    made.push("-r", ".")


def _retracted(made: Exposures) -> None:
    made.server("phase", "-d", "-f", "-r", "branch(release)")


def _retagged(made: Exposures) -> None:
    made.client("update", "-q", "-r", "max(branch(default) and not obsolete())")
    made.client("tag", "-q", "-f", "-r", "3", "v1", "v2", "-u", "tagger")
    made.push("-r", ".")


def _removed(made: Exposures) -> None:
    made.client("remove", "-q", "c.txt")
    made.commit("removed c, again on a.txt", {"a.txt": _lines(40)})
    made.push("-r", ".")
    made.server("bookmark", "-r", "tip", "ünïcode")


def _secret(made: Exposures) -> None:
    made.commit("a secret", {"s.txt": "s\n"})
    made.push("-r", ".")
    made.server("phase", "-s", "-f", "-r", "tip")


STEPS: dict[str, Callable[[Exposures], None]] = {
    "an empty repository": _created,
    "first changesets": _first,
    "bookmarks": _bookmarked,
    "a named branch": _branch,
    "the other branch, so that revisions interleave": _default_again,
    "a file that outgrows its inline revlog": _big,
    "a merge": _merge,
    "a tag": _tagged,
    "a publication": _published,
    "a draft and a moved bookmark": _draft_and_moved,
    "an amend with its markers": _amended,
    "a publication together with a new changeset": _published_and_more,
    "a deleted bookmark": _bookmarks_gone,
    "the last bookmark deleted together with a commit": _last_bookmark_gone,
    "a second head": _other_head,
    "a renamed file": _renamed,
    "a pruned head": _pruned,
    "a closed branch": _closed,
    "a forced retraction to draft": _retracted,
    "a moved tag": _retagged,
    "a removed file": _removed,
    "a changeset made secret": _secret,
}
