"""The application over one mirror's files: what readers get, and what they are told when they get nothing."""

from __future__ import annotations

import concurrent.futures
import re
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from hgfleet.adapters.bundle_offers import OfferedManifest
from hgfleet.adapters.location_files import LocationOptions
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.fleet_records import Stage
from hgfleet.model.ids import Digest, RepoId, Seq
from hgfleet.web.exchange import Exchange
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import PUSHERS, Exposures, build, pushed_at
from tests.support.mirror_host import MirrorHost
from tests.support.web_client import WebClient

STEPS = (
    "first changesets",
    "bookmarks",
    "a named branch",
    "a draft and a moved bookmark",
    "an amend with its markers",
    "the last bookmark deleted together with a commit",
)
LAST = Seq(len(STEPS))
HTML = {"HTTP_ACCEPT": "text/html,*/*"}


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("small")
    return build(directory, HgClient(CURRENT_HG, directory), STEPS)


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory: pytest.TempPathFactory, exposures: Exposures) -> MirrorHost:
    """A mirror that no test changes."""
    host = MirrorHost(tmp_path_factory.mktemp("mirror") / "host")
    host.add("team/app", exposures.full, LAST)
    return host


@pytest.fixture(scope="module")
def web(shared_host: MirrorHost) -> WebClient:
    return WebClient(shared_host.site())


@pytest.fixture
def host(tmp_path: Path) -> MirrorHost:
    return MirrorHost(tmp_path / "host")


@pytest.fixture
def own_web(host: MirrorHost) -> WebClient:
    return WebClient(host.site())


def nodes(exposures: Exposures, revset: str = "all()") -> list[str]:
    return (
        exposures.hg.run("-R", str(exposures.full), "log", "--hidden", "-r", revset, "-T", "{node}\n")
        .ok()
        .out.split()
    )


# ---- where repositories are


def test_the_longest_bound_path_wins_at_any_depth(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    host.add("a", exposures.full, Seq(1))
    host.add("a/b/c", exposures.full, Seq(3))
    assert own_web.get("/a/json-log").headers["x-hgfleet-seq"] == "1"
    assert own_web.get("/a/b/c/json-log").headers["x-hgfleet-seq"] == "3"
    assert own_web.get("/a/b/c").headers["x-hgfleet-seq"] == "3"
    assert own_web.get("/a/b/cc", **HTML).status in {400, 404}


def test_a_path_is_served_as_soon_as_it_is_bound_and_no_longer(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    assert own_web.get("/new/repo?cmd=heads").status == 404
    repository = host.add("new/repo", exposures.full, LAST)
    assert own_web.get("/new/repo?cmd=heads").status == 200
    host.unbind("new/repo")
    host.bind("renamed", repository)
    assert own_web.get("/new/repo?cmd=heads").status == 404
    assert own_web.get("/renamed?cmd=heads").status == 200
    assert '"/renamed/' in own_web.get("/renamed/").text


def test_a_new_generation_and_a_new_exposure_are_seen_by_the_next_request(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, Seq(1))
    first = own_web.get("/app?cmd=heads")
    assert own_web.get("/app?cmd=heads").body == first.body
    host.expose(repository, LAST)
    second = own_web.get("/app?cmd=heads")
    assert (first.headers["x-hgfleet-seq"], second.headers["x-hgfleet-seq"]) == ("1", str(LAST))
    assert first.body != second.body


def test_a_new_list_of_clone_bundles_is_given_at_once(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, LAST)
    assert own_web.get("/app?cmd=clonebundles").body == b""
    host.offer(repository, offered("https://cdn.example/1.hg"))
    assert b"1.hg" in own_web.get("/app?cmd=clonebundles").body
    host.offer(repository, offered("https://cdn.example/2.hg"))
    assert b"2.hg" in own_web.get("/app?cmd=clonebundles").body
    host.offer(repository)
    assert own_web.get("/app?cmd=clonebundles").body == b""


def test_clone_bundles_are_a_capability_only_while_some_are_offered(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, LAST)
    assert "clonebundles" not in own_web.get("/app?cmd=capabilities").text.split()
    host.offer(repository, offered("https://cdn.example/1.hg"))
    assert "clonebundles" in own_web.get("/app?cmd=capabilities").text.split()
    host.offer(repository)
    assert "clonebundles" not in own_web.get("/app?cmd=capabilities").text.split()


def test_bundles_of_what_is_not_exposed_yet_are_not_offered(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, Seq(1))
    later, now = offered("https://cdn.example/later.hg", seq=2), offered("https://cdn.example/now.hg", seq=1)
    host.offer(repository, later, now)
    assert b"now.hg" in own_web.get("/app?cmd=clonebundles").body
    host.expose(repository, Seq(2))
    assert b"later.hg" in own_web.get("/app?cmd=clonebundles").body


def test_a_client_is_told_what_lies_near_it(host: MirrorHost, exposures: Exposures) -> None:
    locations = LocationOptions(places=(("198.51.100.0/24", "ec2region", "us-west-2"),))
    web = WebClient(replace(host.site(), locations=locations))
    repository = host.add("app", exposures.full, LAST)
    host.offer(repository, offered("https://cdn.example/1.hg", "https://west.example/1.hg"))
    everything = web.get("/app?cmd=clonebundles", REMOTE_ADDR="192.0.2.1").text
    assert [line.split()[0] for line in everything.splitlines()] == [
        "https://cdn.example/1.hg",
        "https://west.example/1.hg",
    ]
    near = web.get("/app?cmd=clonebundles_manifest", REMOTE_ADDR="198.51.100.7").text
    assert [line.split()[0] for line in near.splitlines()] == ["https://west.example/1.hg"]


def test_a_full_clone_that_used_no_bundles_is_told_that_there_are_some(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, LAST)
    clone = f"/app?cmd=getbundle&bundlecaps=HG20&cg=1&common={'0' * 40}&heads={nodes(exposures)[0]}"

    def is_hinted(query: str) -> bool:
        return b"ui.clonebundles" in zlib.decompress(own_web.get(clone + query).body)

    assert not is_hinted("&cbattempted=0")
    host.offer(repository, offered("https://cdn.example/1.hg"))
    assert is_hinted("&cbattempted=0")
    assert not is_hinted("&cbattempted=1")
    assert not is_hinted("")


def offered(*urls: str, seq: int = 1) -> OfferedManifest:
    entries = [
        ManifestEntry(
            url,
            BundleType.GZIP_V2,
            "gzip-v2",
            1,
            Digest("ab" * 32),
            "store",
            {"ec2region": "us-west-2"} if "west" in url else {"cdn": "true"},
        )
        for url in urls
    ]
    return OfferedManifest(Seq(seq), tuple(entries))


def test_what_many_ask_at_once_is_worked_out_once(
    host: MirrorHost, own_web: WebClient, exposures: Exposures, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add("app", exposures.full, LAST)
    worked: list[None] = []
    everybody = threading.Barrier(6)
    run = Exchange.run

    def counting_run(self: Exchange, *given: Any) -> Any:
        worked.append(None)
        return run(self, *given)

    def ask(_number: int) -> bytes:
        everybody.wait()
        return own_web.get("/app/json-log").body

    monkeypatch.setattr(Exchange, "run", counting_run)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(6)))) == 1
    assert len(worked) == 1


def test_views_shown_one_after_another_answer_as_if_each_were_the_first(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    """What is taken over from the view before must not be seen."""
    urls = ("?cmd=branchmap", "?cmd=heads", "/json-branches", "/json-tags", "/json-log", "/json-bookmarks")
    repository = host.add("app", exposures.full, Seq(1))
    for seq in exposures.seqs:
        host.expose(repository, seq)
        host.add(f"alone{seq}", exposures.full, seq)
        for url in urls:
            assert own_web.get(f"/app{url}").body == own_web.get(f"/alone{seq}{url}").body, (seq, url)


def test_deleted_and_recreated_with_other_history_shows_the_new_one(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    host.add("app", exposures.full, LAST)
    old = own_web.get("/app?cmd=heads").body
    host.unbind("app")
    host.add("app", exposures.copy(Seq(1)), Seq(1))
    assert own_web.get("/app?cmd=heads").body != old


def test_the_index_lists_what_is_served_and_folders_list_what_is_below(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    for path in ("team/app", "team/lib", "other"):
        host.add(path, exposures.full, LAST)
    assert re.findall(r'<a href="/([a-z/]+)/">', own_web.get("/", **HTML).text) == [
        "other",
        "team/app",
        "team/lib",
    ]
    assert re.findall(r'<a href="/([a-z/]+)/">', own_web.get("/team/", **HTML).text) == [
        "team/app",
        "team/lib",
    ]
    assert re.findall(r'<a href="/([a-z/]+)/">', own_web.get("/?q=LIB", **HTML).text) == ["team/lib"]
    listed = own_web.get("/-/repositories.json").json["repositories"]
    assert [row["path"] for row in listed] == ["other", "team/app", "team/lib"]
    assert listed[0]["seq"] == LAST
    assert own_web.get("/nothing/", **HTML).status == 404


def test_the_index_comes_in_pages(host: MirrorHost, own_web: WebClient) -> None:
    for number in range(250):
        host.bind(f"r{number:03}", RepoId(f"{number:032x}"))
    first = own_web.get("/", **HTML).text
    assert 'rel="next"' in first
    assert 'rel="prev"' not in first
    assert own_web.get("/?page=3", **HTML).text.count('scope="row"') == 50
    assert own_web.get("/?page=x", **HTML).status == 400


def test_what_clients_write_is_escaped_in_the_index(own_web: WebClient) -> None:
    page = own_web.get("/?q=%3Cscript%3Ealert(1)%3C/script%3E&page=1", **HTML)
    assert page.status == 200
    assert "<script" not in page.text


# ---- health and refusals


def test_a_mirror_says_that_it_is_ready_only_while_it_serves_under_a_lease(
    host: MirrorHost, own_web: WebClient
) -> None:
    assert own_web.get("/-/readyz").status == 200
    host.serve(lease_seconds=-1)
    assert own_web.get("/-/readyz").status == 503
    host.serve(Stage.JOINING)
    assert own_web.get("/-/readyz").status == 503
    (host.directory / "serving.json").unlink()
    assert own_web.get("/-/readyz").status == 503
    assert own_web.get("/-/livez").status == 200


@pytest.mark.parametrize("stage", [Stage.JOINING, Stage.DRAINING])
def test_a_mirror_out_of_service_answers_no_reads(
    host: MirrorHost, own_web: WebClient, exposures: Exposures, stage: Stage
) -> None:
    host.add("app", exposures.full, LAST)
    host.serve(stage)
    for url in ("/app?cmd=heads", "/app/json-log", "/", "/unknown", "/-/repositories.json"):
        reply = own_web.get(url)
        assert reply.status == 502, url
        assert "this mirror is" in reply.reason
        assert "retry-after" not in reply.headers


def test_a_lapsed_lease_alone_does_not_stop_reads(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    host.add("app", exposures.full, LAST)
    host.serve(lease_seconds=-1)
    assert own_web.get("/app?cmd=heads").status == 200


def test_a_parked_repository_is_refused_and_the_others_go_on(
    host: MirrorHost, own_web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("stuck", exposures.full, LAST)
    host.add("fine", exposures.full, LAST)
    host.catalogue.park(repository, "message.gap")
    assert own_web.get("/stuck?cmd=heads").status == 502
    assert own_web.get("/fine?cmd=heads").status == 200
    host.catalogue.unpark(repository)
    assert own_web.get("/stuck?cmd=heads").status == 200


def test_a_repository_without_an_exposed_state_is_refused(host: MirrorHost, own_web: WebClient) -> None:
    host.bind("unborn", RepoId("5" * 32))
    reply = own_web.get("/unborn?cmd=heads")
    assert (reply.status, reply.reason) == (502, "nothing of this repository is exposed yet")


@pytest.mark.parametrize("command", ["unbundle", "pushkey"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_write_is_refused_with_where_to_push(web: WebClient, command: str, method: str) -> None:
    reply = web.get(f"/team/app?cmd={command}", method=method, body=b"x" * 1000)
    assert reply.status == 403
    assert reply.reason == "this mirror is read-only: push to ssh://localhost:2222/team/app"


def test_a_write_inside_a_batch_is_refused(web: WebClient) -> None:
    reply = web.get("/team/app?cmd=batch&cmds=heads+%3Bpushkey+namespace%3Dbookmarks,key%3Dx,old%3D,new%3D")
    assert reply.status == 403
    assert "read-only" in reply.reason


def test_every_wire_command_that_is_answered_may_only_read(web: WebClient) -> None:
    from mercurial import wireprotov1server

    for name, command in wireprotov1server.commands.items():
        reply = web.get(f"/team/app?cmd={name.decode()}")
        assert (reply.status == 403) == (command.permission != b"pull"), (name, reply)


def test_a_repository_s_own_hgrc_has_no_say(
    host: MirrorHost, own_web: WebClient, exposures: Exposures, tmp_path: Path
) -> None:
    repository = host.add("app", exposures.full, LAST)
    touched = tmp_path / "touched"
    (host.hg_directory(repository) / "hgrc").write_text(
        "[web]\nallow-push = *\npush_ssl = no\ndescription = evil\nstyle = paper\n"
        "[phases]\npublish = yes\n[experimental]\nserver.allow-hidden-access = *\n"
        f"[hooks]\noutgoing = touch {touched}\npreoutgoing = touch {touched}\n"
    )
    assert own_web.get("/app?cmd=unbundle", method="POST", body=b"x").status == 403
    assert "evil" not in own_web.get("/app/summary").text
    assert "publishing" not in own_web.get("/app?cmd=listkeys&namespace=phases").text
    node = nodes(exposures)[-1]
    assert own_web.get(f"/app?cmd=getbundle&heads={node}&common={'0' * 40}").status == 200
    assert not touched.exists()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "BREW"])
def test_other_methods_are_refused(web: WebClient, method: str) -> None:
    reply = web.get("/team/app", method=method)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD, POST"


def test_only_wire_commands_are_posted(web: WebClient) -> None:
    assert web.get("/team/app/json-log", method="POST").status == 405
    assert web.get("/team/app?cmd=heads", method="POST").status == 200


def test_arguments_may_come_in_headers_or_in_the_body(web: WebClient, exposures: Exposures) -> None:
    node = nodes(exposures)[0]
    arguments = f"nodes={node}+{'f' * 40}".encode()
    in_body = web.get(
        "/team/app?cmd=known", method="POST", body=arguments, HTTP_X_HGARGS_POST=str(len(arguments))
    )
    in_headers = web.get("/team/app?cmd=known", HTTP_X_HGARG_1=arguments.decode())
    assert in_body.body == in_headers.body == b"10"


def test_a_body_without_a_length_or_too_large_is_refused(web: WebClient) -> None:
    chunked = web.get("/team/app?cmd=known", method="POST", HTTP_TRANSFER_ENCODING="chunked")
    assert chunked.status == 411
    large = web.get("/team/app?cmd=known", method="POST", CONTENT_LENGTH=str(1 << 40))
    assert large.status == 413


# ---- every answer


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/nope",
        "/team/app",
        "/team/app?cmd=heads",
        "/team/app?cmd=unbundle",
        "/team/app/rev/nope",
        "/team/app/raw-file/0/a.txt",
        "/team/app/json-pushes?startID=x",
        "/team/app/archive/0.zip",
        "/-/livez",
        "/-/static/style-gitweb.css",
        "/-/nope",
    ],
)
def test_every_answer_has_the_security_headers(web: WebClient, url: str) -> None:
    headers = web.get(url, **HTML).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_a_page_answered_from_memory_has_a_nonce_of_its_own(web: WebClient) -> None:
    nonces = []
    for _ in range(2):
        page = web.get("/team/app/graph")
        [nonce] = re.findall(r"'nonce-([^']+)'", page.headers["content-security-policy"])
        assert f'nonce="{nonce}"' in page.text
        assert set(re.findall(r'nonce="([^"]+)"', page.text)) == {nonce}
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("page", ["graph", "raw-graph"])
def test_pages_show_dates_and_not_ages(web: WebClient, page: str) -> None:
    """An age differs between workers, mirrors and answers kept in memory."""
    assert re.search(r"2023-11-14 \d\d:\d\d \+0000", web.get(f"/team/app/{page}").text)


@pytest.mark.parametrize("page", ["help", "json-help"])
def test_the_list_of_help_topics_is_shown(web: WebClient, page: str) -> None:
    """Every page links to it; stock 7.2 fails on its own docstrings."""
    answer = web.get(f"/team/app/{page}")
    assert answer.status == 200
    assert "create a new bookmark or list existing bookmarks" in answer.text


@pytest.mark.parametrize("url", ["/", "/team/app/graph", "/team/app?cmd=heads", "/team/app/archive/0.zip"])
def test_head_gives_the_head_of_get(web: WebClient, url: str) -> None:
    get, head = web.get(url), web.get(url, method="HEAD")
    assert head.status == get.status == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("content-length") == get.headers.get("content-length")
    assert not head.body


def test_the_host_header_decides_nothing(web: WebClient) -> None:
    for url in ("/team/app/rss-log", "/team/app/pushlog", "/team/app/", "/team/app/json-pushes?startID=0"):
        reply = web.get(url, HTTP_HOST="evil.example", HTTP_X_FORWARDED_HOST="evil.example")
        assert "evil" not in reply.text + str(reply.headers), url
    assert "https://localhost:8443/team/app/" in web.get("/team/app/rss-log").text


@pytest.mark.parametrize(
    "query", ["remote(tip,'http://localhost')", "all()", "0:tip", "not 0", "first(all())"]
)
def test_a_search_takes_keywords_and_never_evaluates_a_revset(web: WebClient, query: str) -> None:
    found = web.ask("/team/app/json-log", f"rev={query.replace(' ', '+')}")
    assert found.status == 200
    assert found.json["entries"] == []  # no changeset has these words


@pytest.mark.parametrize("query", ["1", "second", "author@example.org+second"])
def test_a_search_finds_a_changeset_by_name_and_by_words(web: WebClient, query: str) -> None:
    [found] = web.get(f"/team/app/json-log?rev={query}").json["entries"]
    assert found["desc"] == "second"


@pytest.mark.parametrize("key", ["z%C3%A4hler", "%FF"])
def test_names_outside_ascii_are_looked_up(web: WebClient, key: str) -> None:
    assert web.get(f"/team/app?cmd=lookup&key={key}").text.startswith("0 unknown revision")
    assert web.get("/team/app?cmd=lookup", HTTP_X_HGARG_1=f"key={key}").text.startswith("0 unknown revision")
    assert web.get(f"/team/app/json-log?rev={key}").json["entries"] == []


SCRIPT = "%3Cscript%3Ealert(1)%3C/script%3E"


@pytest.mark.parametrize(
    "url",
    [
        f"/team/app?cmd={SCRIPT}",
        f"/team/app/{SCRIPT}",
        f"/team/app/rev/{SCRIPT}",
        f"/team/app/file/tip/{SCRIPT}",
        f"/team/app/log?rev={SCRIPT}",
        f"/team/app/shortlog?style={SCRIPT}",
        f"/team/app/shortlog?revcount={SCRIPT}",
        f"/team/app/help/{SCRIPT}",
        f"/team/app/graph?{SCRIPT}={SCRIPT}",
        f"/team/app/pushloghtml/{SCRIPT}",
        f"/team/app/pushloghtml?user={SCRIPT}",
        f"/team/app/annotate/tip/a.txt?linerange={SCRIPT}",
        f"/{SCRIPT}/",
        f"/team/?q={SCRIPT}",
    ],
)
def test_no_page_repeats_a_script_that_a_link_carries(web: WebClient, url: str) -> None:
    path, _, query = url.partition("?")
    reply = web.ask(unquote(path), query, HTTP_ACCEPT="text/html")
    assert reply.status in {200, 400, 404}
    assert "<script>alert" not in reply.text


# ---- the pushlog


def pushes(web: WebClient, query: str) -> list[int]:
    reply = web.get(f"/team/app/json-pushes?{query}")
    assert reply.status == 200, reply
    return [int(name) for name in reply.json]


def test_json_pushes_has_the_form_that_tools_know(web: WebClient, exposures: Exposures) -> None:
    known = nodes(exposures)
    first = {"changesets": known[:2], "date": int(pushed_at(Seq(1))), "user": PUSHERS[1]}
    assert web.get("/team/app/json-pushes?endID=1").json == {"1": first}
    assert web.get("/team/app/json-pushes?endID=1&version=2").json == {
        "lastpushid": 5,
        "pushes": {"1": first},
    }
    full = web.get("/team/app/json-pushes?endID=1&full").json["1"]["changesets"][0]
    assert full == {
        "node": known[0],
        "author": "first <author@example.org>",
        "desc": "first",
        "branch": "default",
        "parents": ["0" * 40],
        "tags": [],
        "files": ["a.txt", "dir/b.txt"],
    }


def test_obsolete_changesets_are_listed_apart(web: WebClient, exposures: Exposures) -> None:
    [hidden] = nodes(exposures, "hidden()")
    push = web.get(f"/team/app/json-pushes?changeset={hidden}").json["3"]
    assert push["changesets"] == []
    assert push["obsoletechangesets"] == [hidden]
    assert "obsoletechangesets" not in web.get("/team/app/json-pushes?endID=1").json["1"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("startID=2", [3, 4, 5]),
        ("endID=2", [1, 2]),
        ("startID=1&endID=3", [2, 3]),
        ("startID=9", []),
        ("startID=&endID=", [1, 2, 3, 4, 5]),
        (f"startdate={int(pushed_at(Seq(1)))}", [2, 3, 4, 5]),
        (f"enddate={int(pushed_at(Seq(4)))}", [1, 2]),
        ("startdate=2023-11-14&enddate=2023-11-15T00:00:00Z", [1, 2, 3, 4, 5]),
        ("startdate=2023-11-15", []),
        ("user=alice%40example.org", [2, 5]),
        ("user=alice%40example.org&user=Zo%C3%AB", [2, 4, 5]),
        ("user=nobody", []),
        ("branch=release", [2, 3, 4, 5]),
        ("branch=default", [1]),
        ("changeset=0", [1]),
        ("changeset=2&changeset=0", [1, 2]),
        ("changeset=release", [5]),
        ("fromchange=0", [2, 3, 4, 5]),
        ("fromchange=0&tochange=2", [2]),
        ("tochange=tip", [1, 2, 3, 4, 5]),
        ("fromchange=0&startID=3", [4, 5]),
    ],
)
def test_the_parameters_select_pushes(web: WebClient, query: str, expected: list[int]) -> None:
    assert pushes(web, query) == expected


def test_tipsonly_names_the_last_changeset_of_each_push(web: WebClient, exposures: Exposures) -> None:
    assert (
        web.get("/team/app/json-pushes?endID=1&tipsonly=1").json["1"]["changesets"] == nodes(exposures)[1:2]
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("startID=x", 400),
        ("enddate=never", 400),
        ("version=3", 400),
        ("changeset=nope", 404),
        ("changeset=ffffffffffffffffffffffffffffffffffffffff", 404),
        ("changeset=all()", 404),
        ("changeset=0:tip", 404),
        ("fromchange=2147483647", 404),
        ("tochange=null", 404),
        ("branch=nope", 404),
    ],
)
def test_a_bad_question_gets_a_json_error(web: WebClient, query: str, status: int) -> None:
    reply = web.get(f"/team/app/json-pushes?{query}")
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"error"}


def test_a_long_answer_is_given_in_parts(web: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from hgfleet.hgext import pushlog_answers

    monkeypatch.setattr(pushlog_answers, "MAX_PUSHES", 2)
    got, query = [], "startID=0&version=2&full=0&x=1"
    while query:
        reply = web.get(f"/team/app/json-pushes?{query}")
        got.append([int(name) for name in reply.json["pushes"]])
        link = re.fullmatch(
            r'<https://localhost:8443/team/app/json-pushes\?(.*)>; rel="next"', reply.headers.get("link", "")
        )
        query = link[1] if link else ""
    assert got == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    "url", ["/team/app/pushloghtml", "/team/app/pushlog", "/team/app/pushloghtml?startID=0"]
)
def test_a_pusher_cannot_put_a_script_into_the_pages(web: WebClient, url: str) -> None:
    reply = web.get(url)
    assert reply.status == 200
    assert "<script>" not in reply.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in reply.text


def test_the_feed_is_well_formed_atom(web: WebClient, exposures: Exposures) -> None:
    feed = ElementTree.fromstring(web.get("/team/app/pushlog").body)
    name = "{http://www.w3.org/2005/Atom}"
    ids = [entry.findtext(f"{name}id") for entry in feed.iter(f"{name}entry")]
    visible = nodes(exposures, "not hidden()")
    assert ids == [f"https://localhost:8443/team/app/#changeset-{node}" for node in reversed(visible)]


@pytest.mark.parametrize(("url", "status"), [("2", 200), ("0", 400), ("x", 400), ("999999999", 200)])
def test_the_pages_of_the_pushlog_are_numbered(web: WebClient, url: str, status: int) -> None:
    assert web.get(f"/team/app/pushloghtml/{url}").status == status
    assert web.get(f"/team/app/pushlog/{url}").status == status


def test_changesets_in_json_name_their_push_and_phase(web: WebClient, exposures: Exposures) -> None:
    entries = [web.get(f"/team/app/json-rev/{nodes(exposures)[0]}").json]
    entries += web.get("/team/app/json-log").json["changesets"][-1:]
    for entry in entries:
        assert (entry["pushid"], entry["pushuser"]) == (1, PUSHERS[1])
        assert entry["pushdate"] == [int(pushed_at(Seq(1))), 0]
        assert entry["phase"] == "draft"


def test_nothing_is_told_of_secret_changesets(host: MirrorHost, own_web: WebClient, tmp_path: Path) -> None:
    made = build(
        tmp_path / "made", HgClient(CURRENT_HG, tmp_path), ("first changesets", "a changeset made secret")
    )
    host.add("app", made.full, Seq(2))
    secret = nodes(made, "secret()")[0]
    reply = own_web.get("/app/json-pushes?startID=0")
    assert list(reply.json) == ["1", "2"]
    assert reply.json["2"]["changesets"] == []
    for url in (
        "/app/json-pushes?startID=0&full=1",
        "/app/json-log",
        "/app/pushloghtml",
        "/app/pushlog",
        "/app?cmd=heads",
        "/app?cmd=listkeys&namespace=phases",
    ):
        assert secret[:12] not in own_web.get(url).text, url
    assert own_web.get(f"/app/json-pushes?changeset={secret}").status == 404
    assert own_web.get(f"/app/json-rev/{secret}").status == 404


def test_only_exposed_pushes_are_shown(host: MirrorHost, own_web: WebClient, exposures: Exposures) -> None:
    host.add("app", exposures.full, Seq(3))
    assert own_web.get("/app/json-pushes?version=2").json["lastpushid"] == 2
    assert own_web.get("/app/json-pushes?changeset=4").status == 404
