"""Whatever a client asks for, it is a command made of checked values or refused in one plain line."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from hgfleet.errors import RejectedError
from hgfleet.model.command import Serve, format_command, parse_command
from hgfleet.model.ids import parse_repo_path

PATHS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}(/[A-Za-z0-9][A-Za-z0-9._-]{0,8}){0,3}", fullmatch=True)
HOSTILE_WORDS = st.sampled_from(
    ["hg", "-R", "serve", "--stdio", "--hidden", "clone", "edit", "'", "/", "..", "a/b", "-", ";"]
)
COMMANDS = st.one_of(
    st.text(),
    st.builds("hg -R {} serve --stdio".format, st.text(max_size=20) | PATHS),
    st.builds("hg -R '{}' serve --stdio".format, st.text(max_size=20) | PATHS),
    st.builds("clone {}".format, st.text(max_size=20) | PATHS),
    st.builds("repo-group {}".format, PATHS),
    st.builds("repo-config {}".format, st.text(max_size=20) | PATHS),
    st.lists(HOSTILE_WORDS).map(" ".join),
)


@given(COMMANDS)
@example("hg -R a/b serve --stdio\n")
@example("hg -R a\x00 serve --stdio")
@example("x" * 10_000)
def test_any_text_is_refused_plainly_or_means_the_same_as_its_canonical_form(text: str) -> None:
    try:
        command = parse_command(text)
    except RejectedError as error:
        line = f"{error.message} {error.hint}"
        assert line.isascii()
        assert line.isprintable()
        return
    assert parse_command(format_command(command)) == command


@given(PATHS)
def test_every_good_path_is_served_in_each_form_that_clients_send(path: str) -> None:
    assume(not any(part.lower().endswith((".hg", ".git")) for part in path.split("/")))
    expected = Serve(parse_repo_path(path))
    for form in (path, f"'{path}'", f"{path}/"):
        assert parse_command(f"hg -R {form} serve --stdio") == expected
