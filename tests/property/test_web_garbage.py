"""Whatever a client sends is answered with what it asked for or with a clear no, never with a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hgfleet.model.ids import Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import build
from tests.support.mirror_host import MirrorHost
from tests.support.web_client import Reply, WebClient

STEPS = ("first changesets", "a named branch", "a draft and a moved bookmark", "an amend with its markers")
EXPECTED = {200, 304, 400, 403, 404, 405, 411, 413}

NODES = (
    *(
        "tip",
        "0",
        "-1",
        "99",
        "null",
        ".",
        "wdir()",
        "2147483647",
        "-2147483649",
        "9" * 40,
        "all()",
        "0:tip",
        "::",
        "a b",
    ),
    *(
        "0" * 40,
        "f" * 40,
        "f",
        "ffffffffffff",
        "stable",
        "release",
        "v1",
        "é",
        "\x00",
        '"',
        "<script>",
        "%",
        "x" * 300,
        "",
    ),
)
FILES = (
    "a.txt",
    "dir",
    "dir/b.txt",
    "dir/",
    "/",
    "../../etc/passwd",
    ".hg/hgrc",
    "..",
    "a.txt/b",
    "é",
    "\x00",
    "//",
    "",
)
STYLES = (
    "json",
    "raw",
    "atom",
    "rss",
    "paper",
    "gitweb",
    "coal",
    "spartan",
    "monoblue",
    "cmdline.default",
    "..",
    "x",
    "",
)
NAMES = (
    *(
        "rev",
        "revcount",
        "node",
        "file",
        "style",
        "cmd",
        "linerange",
        "descend",
        "patch",
        "context",
        "graphtop",
        "key",
    ),
    *(
        "namespace",
        "nodes",
        "pairs",
        "heads",
        "common",
        "bundlecaps",
        "cmds",
        "access-hidden",
        "type",
        "topic",
        "page",
    ),
    *(
        "startID",
        "endID",
        "full",
        "version",
        "user",
        "branch",
        "changeset",
        "tochange",
        "fromchange",
        "startdate",
    ),
    *(
        "roots",
        "bases",
        "cg",
        "listkeys",
        "stream",
        "forcekw",
        "hidden",
        "path",
        "one",
        "two",
        "q",
        "subrepos",
    ),
)
VALUES = (
    *NODES,
    *FILES,
    *(
        "1",
        "full",
        "1,2",
        "zip",
        "gz",
        "heads ;known nodes=",
        "unbundle heads=x",
        "listkeys namespace=phases",
        ";;;",
    ),
    *(
        "obsolete",
        "bookmarks",
        "HG20,bundle2=HG20%0Achangegroup%3D01%2C02",
        "1:5",
        "5:1",
        "a:b",
        "9" * 20,
        "1" * 50,
    ),
)


def commands() -> list[str]:
    from mercurial import wireprotov1server
    from mercurial.hgweb import webcommands

    wire = [name.decode() for name in wireprotov1server.commands]
    return [*webcommands.__all__, "pushes", "pushlog", "pushloghtml", *wire, "zz", "-", ".."]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> WebClient:
    directory: Path = tmp_path_factory.mktemp("garbage")
    made = build(directory / "made", HgClient(CURRENT_HG, directory), STEPS)
    host = MirrorHost(directory / "host")
    host.add("x/y", made.full, Seq(len(STEPS)))
    return WebClient(host.site())


quoted = st.sampled_from(VALUES).map(lambda text: quote(text, safe=""))
queries = st.lists(
    st.tuples(st.sampled_from(NAMES), quoted | st.text(st.characters(codec="latin-1"), max_size=8)),
    max_size=4,
)
page_names = st.builds(
    lambda style, name: f"{style}-{name}" if style is not None else name,
    st.none() | st.sampled_from(STYLES),
    st.sampled_from(commands()),
)
paths = st.lists(st.sampled_from(NODES) | st.sampled_from(FILES), max_size=3)
headers = st.dictionaries(
    st.sampled_from(
        ["HTTP_X_HGARG_1", "HTTP_X_HGPROTO_1", "HTTP_X_HGARGS_POST", "HTTP_USER_AGENT", "HTTP_IF_NONE_MATCH"]
    ),
    st.sampled_from(
        ["x", "-1", "5", "key=%FF&namespace=x", "0.2 comp=zz", "0.1 0.2 comp=zstd", "mercurial/1", "W/1"]
    ),
    max_size=2,
)


@dataclass(frozen=True)
class Question:
    """One request to the repository."""

    name: str
    rest: tuple[str, ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    is_command: bool = False

    def ask(self, web: WebClient) -> Reply:
        """Send it."""
        parts = ["/x/y"] if self.is_command else ["/x/y", self.name, *self.rest]
        pairs = [("cmd", quote(self.name)), *self.query] if self.is_command else self.query
        query = "&".join(f"{key}={value}" for key, value in pairs)
        return web.ask("/".join(parts).encode().decode("latin-1"), query, method=self.method, **self.headers)


questions = st.builds(
    Question,
    name=page_names,
    rest=paths.map(tuple),
    query=queries.map(tuple),
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT"]),
    headers=headers,
    is_command=st.booleans(),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions)
@example(Question("cmdline.default-comparison", ("..", "../etc/passwd")))
@example(Question("static"))
@example(Question("graph", query=(("graphtop", "a.txt"),), is_command=True))
@example(Question("file", ("2147483647", "dir")))
@example(Question("diff", ("f" * 40, "a.txt")))
@example(Question("annotate", ("tip", "a.txt"), query=(("linerange", "5:1"),)))
def test_a_repository_answers_anything(web: WebClient, question: Question) -> None:
    reply = question.ask(web)
    assert reply.status in EXPECTED, (reply.status, reply.reason)
    assert b"Traceback" not in reply.body
    if "html" in reply.headers["content-type"]:
        assert b"<script>alert" not in reply.body


@given(
    path=st.text(st.characters(codec="latin-1"), max_size=40),
    query=st.text(st.characters(codec="latin-1"), max_size=40),
)
@example("//", "")
@example("/-/static/../../../etc/passwd", "")
@example("/x/y/../../x", "")
@example("/" + "a/" * 500, "")
def test_any_path_and_query_is_answered(web: WebClient, path: str, query: str) -> None:
    assert web.ask(path, query).status in EXPECTED
