"""Real Kafka brokers (KRaft) for tests: one or three, each a process of its own that can be killed alone.

    with running_kafka(directory, brokers=3) as kafka:
        kafka.bootstrap            # "127.0.0.1:p1,127.0.0.1:p2,127.0.0.1:p3"
        kafka.brokers[0].kill()    # SIGKILL; also stop(), pause(), resume(), start()
        kafka.wait_until_usable()

Every broker has three listeners: CLIENTS (what tests and hgfleet use, with any security asked for),
BROKERS and CONTROLLER. Brokers in network namespaces: one `Place` each, with its address and the prefix
`ip netns exec NS`; what they listen on is unreachable from here, so waiting happens behind the prefix too.
A broker that was killed is usable again only after its own old session has run out (3 s).
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.free_ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
LIBS = ROOT / ".tools" / "kafka" / "libs"
JAVA = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
START_SECONDS = 180.0  # on a machine that does much else
LOG4J = """\
<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d %-5p %m (%c{1})%n%throwable{5}"/></Console>
  </Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""
# Prints the ids of the brokers that a client sees, and how many partitions have no leader.
_PROBE = """
import json, sys
from confluent_kafka.admin import AdminClient
metadata = AdminClient(json.loads(sys.argv[1])).list_topics(timeout=3)
leaderless = [1 for t in metadata.topics.values() for p in t.partitions.values() if p.leader < 0]
print(json.dumps({"brokers": sorted(metadata.brokers), "leaderless": len(leaderless)}))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker runs: the address it listens on, and what its command is started behind."""

    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientListener:
    """How clients are received: the protocol, the broker's properties for it, the client's, users to make."""

    protocol: str = "PLAINTEXT"
    broker: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, str] = field(default_factory=dict)
    format_arguments: tuple[str, ...] = ()  # such as --add-scram SCRAM-SHA-512=[name=u,password=p]


class Broker:
    """One broker."""

    def __init__(self, directory: Path, number: int, place: Place) -> None:
        """Choose its ports; nothing is started."""
        self.number = number
        self.place = place
        self.directory = directory
        self.client_port, self.broker_port, self.controller_port = (free_port(_here(place)) for _ in range(3))
        self._process = ServerProcess(
            ["java", *JAVA, *_java_files(directory), "kafka.Kafka", str(self.properties)],
            log=directory / "broker.log",
            address=place.address,
            port=self.client_port,
            prefix=place.prefix,
        )

    @property
    def properties(self) -> Path:
        """Its configuration file."""
        return self.directory / "server.properties"

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        return self._process.pid

    def launch(self) -> None:
        """Start it without waiting: a quorum's first brokers are not usable alone."""
        self._process.launch()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._process.start()

    def stop(self) -> None:
        """End it in order (SIGTERM): it hands its partitions over first."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang (SIGSTOP): its connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_until_answering(self) -> None:
        """Wait until it takes connections."""
        self._process.wait_until_answering()

    def explain(self) -> str:
        """Return the end of its log."""
        return f"---- broker {self.number} ({self.directory})\n{self._process.explain()}"


class KafkaCluster:
    """A cluster of brokers, each of them controller too."""

    def __init__(
        self,
        directory: Path,
        brokers: int = 1,
        *,
        places: Sequence[Place] = (),
        listener: ClientListener | None = None,
    ) -> None:
        assert LIBS.is_dir(), "Kafka's jars are missing: run `make setup-test`"
        self._listener = listener or ClientListener()
        self.cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self.brokers: list[Broker] = []
        for place, number in zip(places or [Place()] * brokers, range(1, brokers + 1), strict=True):
            (directory / f"broker{number}").mkdir(parents=True)
            self.brokers.append(Broker(directory / f"broker{number}", number, place))

    @property
    def bootstrap(self) -> str:
        """What a client's bootstrap.servers is set to."""
        return ",".join(f"{broker.place.address}:{broker.client_port}" for broker in self.brokers)

    @property
    def client_settings(self) -> dict[str, str]:
        """What a client needs to connect, as librdkafka names it."""
        return {"bootstrap.servers": self.bootstrap, **self._listener.client}

    def start(self) -> None:
        """Format and start every broker, all at once; wait until the cluster is usable."""
        formatting = [self._format(broker) for broker in self.brokers]
        for process in formatting:
            output, _ = process.communicate(timeout=START_SECONDS)
            assert process.returncode == 0, output
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_until_answering()
        self.wait_until_usable()

    def stop(self) -> None:
        """End every broker at once: what they know is thrown away with their directory."""
        for broker in self.brokers:
            broker.kill()

    def wait_until_usable(self, brokers: int | None = None) -> None:
        """Wait until a client sees so many brokers (all of them) and a leader of every partition."""
        wanted = len(self.brokers) if brokers is None else brokers

        def is_usable() -> bool:
            seen = self.probe()
            return len(seen.get("brokers", [])) == wanted and not seen["leaderless"]

        wait_until(
            is_usable,
            what=f"{wanted} Kafka brokers usable",
            deadline_seconds=START_SECONDS,
            explain=self.explain,
        )

    def probe(self) -> dict[str, Any]:
        """Return what a client sees of the cluster, {} when it sees none; asked in a process of its own."""
        settings = json.dumps(self.client_settings)
        command = [*self.brokers[0].place.prefix, sys.executable, "-c", _PROBE, settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return answer

    def explain(self) -> str:
        """Return the end of every broker's log, for failures."""
        return "\n".join(broker.explain() for broker in self.brokers)

    def _format(self, broker: Broker) -> subprocess.Popen[str]:
        (broker.directory / "log4j2.xml").write_text(LOG4J)
        broker.properties.write_text("".join(f"{k}={v}\n" for k, v in self._properties(broker).items()))
        # One word, as an id may begin with a dash.
        cluster_id = f"--cluster-id={self.cluster_id}"
        tool = ["kafka.tools.StorageTool", "format", cluster_id, "-c", str(broker.properties)]
        command = ["java", *JAVA, *_java_files(broker.directory), *tool, *self._listener.format_arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _properties(self, broker: Broker) -> dict[str, str]:
        address, copies = broker.place.address, min(3, len(self.brokers))
        voters = (f"{b.number}@{b.place.address}:{b.controller_port}" for b in self.brokers)
        for_clients = f"CLIENTS://{address}:{broker.client_port},BROKERS://{address}:{broker.broker_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": str(broker.number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"{for_clients},CONTROLLER://{address}:{broker.controller_port}",
            "advertised.listeners": for_clients,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "BROKERS",
            "listener.security.protocol.map": (
                f"CLIENTS:{self._listener.protocol},BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "log.dirs": str(broker.directory / "data"),
            **_copies(copies),
            **FAST,
            **self._listener.broker,
        }


# What a test machine of two cores can bear, and how soon a dead broker is noticed.
FAST = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "replica.lag.time.max.ms": "3000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
}


@contextmanager
def running_kafka(
    directory: Path,
    brokers: int = 1,
    *,
    places: Sequence[Place] = (),
    listener: ClientListener | None = None,
) -> Iterator[KafkaCluster]:
    """Run a cluster for as long as the block lasts."""
    cluster = KafkaCluster(directory, brokers, places=places, listener=listener)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _copies(copies: int) -> dict[str, str]:
    least = max(1, copies - 1)
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(least),
        "offsets.topic.replication.factor": str(copies),
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(least),
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(least),
    }


def _java_files(directory: Path) -> list[str]:
    return ["-cp", f"{LIBS}/*", f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}"]


def _here(place: Place) -> str:
    """Return the address on which to look for free ports: a namespace's own ports are all free."""
    return "127.0.0.1" if place.prefix else place.address
