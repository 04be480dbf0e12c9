"""What every directory of accounts keeps, whatever it is stored in."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hgfleet.adapters.ldap_connections import LdapOptions
from hgfleet.adapters.ldap_directory import LdapDirectory
from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.adapters.toml_directory_edit import add_account, create_directory_file, set_enabled, set_groups
from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account, Directory
from tests.support.slapd import BIND_DN, GROUPS, PEOPLE, Slapd, running_slapd

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpmWmJXrIq5DJtm7nTdqYVg3sYzC0hCqOCLcN2cGG3K"
ALICE = AccountName("alice@example.org")


class DirectoryContract(ABC):
    """Run by each adapter, which says how its store is filled, changed and broken."""

    @pytest.fixture
    @abstractmethod
    def directory(self, tmp_path: Path) -> Directory:
        """Return an empty directory."""

    @abstractmethod
    def fill(self, name: str, groups: Sequence[str], keys: Sequence[str]) -> None:
        """Add an enabled account."""

    @abstractmethod
    def disable(self, name: str) -> None:
        """Disable an account."""

    @abstractmethod
    def put_in_groups(self, name: str, groups: Sequence[str]) -> None:
        """Replace an account's groups."""

    @abstractmethod
    def break_store(self) -> None:
        """Make the store unusable."""

    @abstractmethod
    def mend_store(self) -> None:
        """Undo break_store."""

    def test_an_account_is_found_with_its_keys_and_groups(self, directory: Directory) -> None:
        self.fill(ALICE, ["developers", "release"], [f"{KEY} alice@laptop"])
        assert directory.account(ALICE) == Account(ALICE, True, frozenset({"developers", "release"}), (KEY,))

    def test_an_account_that_does_not_exist_is_none(self, directory: Directory) -> None:
        self.fill(ALICE, [], [KEY])
        assert directory.account(AccountName("bob")) is None
        assert directory.account(AccountName("alice")) is None

    def test_a_disabled_account_is_still_known(self, directory: Directory) -> None:
        self.fill(ALICE, [], [KEY])
        assert (found := directory.account(ALICE)) is not None
        assert found.is_enabled
        self.disable(ALICE)
        assert (found := directory.account(ALICE)) is not None
        assert not found.is_enabled

    def test_a_change_of_groups_is_seen_by_the_next_look_up(self, directory: Directory) -> None:
        self.fill(ALICE, ["developers"], [KEY])
        directory.account(ALICE)
        self.put_in_groups(ALICE, ["release"])
        assert (found := directory.account(ALICE)) is not None
        assert found.groups == {"release"}

    def test_an_unusable_store_is_an_error_and_never_no_such_account(self, directory: Directory) -> None:
        self.fill(ALICE, [], [KEY])
        directory.account(ALICE)
        self.break_store()
        for name in (ALICE, AccountName("bob")):
            with pytest.raises(TransientError) as caught:
                directory.account(name)
            assert caught.value.code == "directory.unreachable"
        self.mend_store()
        assert directory.account(ALICE) is not None
        assert directory.account(AccountName("bob")) is None

    def test_touch_never_raises(self, directory: Directory) -> None:
        self.fill(ALICE, [], [KEY])
        directory.touch(ALICE)
        directory.touch(AccountName("nobody"))
        assert directory.account(ALICE) is not None
        self.break_store()
        directory.touch(ALICE)
        directory.touch(AccountName("carol"))

    def test_several_threads_may_look_up_at_once(self, directory: Directory) -> None:
        self.fill(ALICE, ["developers"], [KEY])
        found: list[Account | None] = []
        threads = [threading.Thread(target=lambda: found.append(directory.account(ALICE))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [directory.account(ALICE)] * 8


class TestTomlDirectory(DirectoryContract):
    """The file of a fleet on one machine."""

    path: Path

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Directory:
        self.path = tmp_path / "accounts.toml"
        create_directory_file(self.path)
        return TomlDirectory(self.path)

    def fill(self, name: str, groups: Sequence[str], keys: Sequence[str]) -> None:
        add_account(self.path, name, groups=groups, keys=keys)

    def disable(self, name: str) -> None:
        set_enabled(self.path, name, is_enabled=False)

    def put_in_groups(self, name: str, groups: Sequence[str]) -> None:
        set_groups(self.path, name, groups)

    def break_store(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))

    def mend_store(self) -> None:
        self.path.with_suffix(".away").rename(self.path)


@pytest.fixture(scope="module")
def own_slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A server that is stopped, started and emptied."""
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


class TestLdapDirectory(DirectoryContract):
    """A real slapd, filled as an administrator would."""

    server: Slapd

    @pytest.fixture
    def directory(self, own_slapd: Slapd) -> Iterator[Directory]:
        self.server = own_slapd
        self.server.delete_people()
        options = LdapOptions(
            servers=(own_slapd.url,),
            accounts_base=PEOPLE,
            groups_base=GROUPS,
            bind_dn=BIND_DN,
            password_file=own_slapd.password_file,
        )
        directory = LdapDirectory(options)
        yield directory
        directory.close()
        own_slapd.start()

    def fill(self, name: str, groups: Sequence[str], keys: Sequence[str]) -> None:
        self.server.add_account(name, groups=groups, keys=keys)

    def disable(self, name: str) -> None:
        self.server.set_enabled(name, is_enabled=False)

    def put_in_groups(self, name: str, groups: Sequence[str]) -> None:
        self.server.set_groups(name, groups)

    def break_store(self) -> None:
        self.server.stop()

    def mend_store(self) -> None:
        self.server.start()
