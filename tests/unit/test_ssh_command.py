"""The requested command: exactly the forms that clients send, everything else refused in one line."""

import pytest

from hgfleet.errors import RejectedError
from hgfleet.model.command import Banner, Clone, Serve, ShowConfig, ShowGroup, clone_target, parse_command
from hgfleet.model.ids import AccountName, RepoPath


@pytest.mark.parametrize("text", [None, ""])
def test_a_plain_login_asks_for_the_banner(text: str | None) -> None:
    assert parse_command(text) == Banner()


@pytest.mark.parametrize(
    "text",
    [
        "hg -R team/app serve --stdio",
        "hg -R 'team/app' serve --stdio",
        "hg -R team/app/ serve --stdio",
    ],
)
def test_the_forms_of_real_clients_are_served(text: str) -> None:
    assert parse_command(text) == Serve(RepoPath("team/app"))


@pytest.mark.parametrize(
    "text",
    [
        "hg -R team/app serve --stdio --hidden",
        "hg -R team/app serve --stdio --debugger",
        "hg -R team/app --debugger serve --stdio",
        "hg -R --debugger serve --stdio",
        "hg -R --config=alias.serve=!id serve --stdio",
        "hg -R 'team/app' 'serve' --stdio",
        'hg -R "team/app" serve --stdio',
        "hg  -R team/app serve --stdio",
        " hg -R team/app serve --stdio",
        "hg -R team/app serve --stdio ",
        "hg -R team/app serve --stdio; id",
        "hg -R $(id) serve --stdio",
        "hg -R `id` serve --stdio",
        "hg -R ../app serve --stdio",
        "hg -R team/../app serve --stdio",
        "hg -R team//app serve --stdio",
        "hg -R /team/app serve --stdio",
        "hg -R team/app// serve --stdio",
        "hg -R ~/app serve --stdio",
        "hg -R .hidden serve --stdio",
        "hg -R '' serve --stdio",
        "hg -R  serve --stdio",
        "hg -R / serve --stdio",
        "hg -R 'a'\\''b' serve --stdio",
        "hg -R team/app.hg serve --stdio",
        "hg -R t\u00e9am serve --stdio",
        "hg -R team/app\nid serve --stdio",
        "hg -R team/app serve --stdio\n",
        "hg -R team\x00/app serve --stdio",
        "hg -R " + "a" * 10_000 + " serve --stdio",
        "hg init team/app",
        "scp -t /tmp",
        "clone",
        "clone --help",
        "clone a b",
        "clone ../a",
        "edit a",
        "repo-group",
        "repo-group a b",
        "repo-config ../a",
        "repo-config --help",
        "-",
        " ",
        "\n",
    ],
)
def test_everything_else_is_refused_in_one_plain_line(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_command(text)
    line = f"{caught.value.message} ({caught.value.hint})"
    assert line.isprintable()
    assert len(line) < 250


def test_a_repositorys_settings_can_be_asked_for() -> None:
    assert parse_command("repo-group team/app") == ShowGroup(RepoPath("team/app"))
    assert parse_command("repo-config team/app/") == ShowConfig(RepoPath("team/app"))


def test_two_slashes_after_the_host_are_explained() -> None:
    with pytest.raises(RejectedError) as caught:
        parse_command("hg -R /team/app serve --stdio")
    assert "one slash" in caught.value.hint


def test_a_bare_name_is_created_among_the_accounts_own_repositories() -> None:
    command = parse_command("clone notes")
    assert isinstance(command, Clone)
    assert clone_target(command, AccountName("alice@example.com")) == "users/alice_example.com/notes"


def test_a_full_path_is_created_where_it_says() -> None:
    command = parse_command("clone team/app")
    assert isinstance(command, Clone)
    assert clone_target(command, AccountName("alice")) == "team/app"


def test_an_account_whose_name_fits_no_path_has_no_repositories_of_its_own() -> None:
    command = parse_command("clone notes")
    assert isinstance(command, Clone)
    with pytest.raises(RejectedError):
        clone_target(command, AccountName("alice+bob"))
