"""A real S3 server: versitygw on a directory of its own, whose files lie there as plain objects."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.free_ports import free_port
from hgfleet.adapters.s3_client import S3Options, make_client
from tests.support.server_process import ServerProcess

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
REGION = "us-east-1"
VIRTUAL_DOMAIN = "localhost"


class S3Server:
    """One server and its buckets. `prefix` and `address`: see ServerProcess."""

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
        certificate: tuple[Path, Path] | None = None,
        ca_file: Path | None = None,
        virtual_hosts: bool = False,
    ) -> None:
        """Prepare a server below `directory`; `certificate` (chain, key) makes it speak HTTPS.

        `ca_file` is whom its own clients trust then.
        """
        self.directory = directory
        self.data = directory / "data"
        self.sidecar = directory / "attributes"
        self.credentials_file = directory / "credentials"
        for each in (self.data, self.sidecar):
            each.mkdir(parents=True, exist_ok=True)
        self._write_credentials()
        self._is_tls = certificate is not None
        self._ca_file = ca_file
        port = port or free_port(address)
        arguments = [
            "versitygw",
            "--port",
            f"{address}:{port}",
            "--region",
            REGION,
            "--quiet",
            "--keep-alive",
        ]
        if virtual_hosts:
            arguments += ["--virtual-domain", f"{VIRTUAL_DOMAIN}:{port}"]
        if certificate is not None:
            arguments += ["--cert", str(certificate[0]), "--key", str(certificate[1])]
        arguments += ["posix", "--sidecar", str(self.sidecar), str(self.data)]
        self.process = ServerProcess(
            arguments, log=directory / "versitygw.log", address=address, port=port, prefix=prefix
        )

    @property
    def endpoint(self) -> str:
        """The URL of its API."""
        if self._is_tls:  # hg ignores addresses in certificates
            return f"https://localhost:{self.process.port}"
        return f"http://{self.process.address}:{self.process.port}"

    def start(self) -> S3Server:
        """Start the server, or start it again."""
        self.process.start(os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY})
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the server; what is stored stays."""
        self.process.stop(number)

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        (self.data / name).mkdir()
        return name

    def object_file(self, bucket: str, key: str) -> Path:
        """Return where the server keeps an object's bytes, for damaging it behind its back."""
        return self.data / bucket / key

    def url_of(self, bucket: str, key: str) -> str:
        """Return where an object of a bucket that everybody may read is fetched."""
        return f"{self.endpoint}/{bucket}/{key}"

    def options(self, bucket: str, **changes: Any) -> S3Options:
        """Return what a client of this server needs."""
        options = S3Options(
            bucket=bucket,
            endpoint=self.endpoint,
            region=REGION,
            addressing="path",
            credentials_file=self.credentials_file,
            ca_file=self._ca_file,
        )
        return replace(options, **changes)

    def let_everybody_read(self, bucket: str) -> None:
        """Give the bucket the policy of one that clients fetch from."""
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        make_client(self.options(bucket)).put_bucket_policy(Bucket=bucket, Policy=policy)

    def config_text(self, bucket: str, *, prefix: str = "") -> str:
        """Return the tables of a fleet's configuration that name this server."""
        return (
            '[blobs]\nkind = "s3"\n\n[s3]\n'
            f'endpoint = "{self.endpoint}"\nregion = "{REGION}"\nbucket = "{bucket}"\nprefix = "{prefix}"\n'
            f'credentials_file = "{self.credentials_file}"\n'
        )

    def bundle_store_text(self, name: str, bucket: str, *, prefix: str = "") -> str:
        """Return the table of a bundle store in a bucket, which everybody may read."""
        return (
            f'\n[bundles.stores.{name}]\nkind = "s3"\nattributes = ["ec2region={REGION}"]\n'
            f'endpoint = "{self.endpoint}"\nregion = "{REGION}"\nbucket = "{bucket}"\nprefix = "{prefix}"\n'
            f'credentials_file = "{self.credentials_file}"\naddressing = "path"\nexpiry = "7d"\n'
            f'base_url = "{self.url_of(bucket, prefix).rstrip("/")}"\n'
        )

    def _write_credentials(self) -> None:
        self.credentials_file.write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )
        self.credentials_file.chmod(0o600)


@contextmanager
def running_s3_server(directory: Path) -> Iterator[S3Server]:
    """Run a server for as long as the block lasts."""
    server = S3Server(directory)
    try:
        yield server.start()
    finally:
        server.stop()
