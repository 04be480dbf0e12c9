"""Knows before a record is handed over whether Kafka could take it, and whether it is still the same log.

A push must be refused before its data is sent, not after. What a broker tells of the cluster is not enough:
one that has lost its controllers repeats for ever what it knew last. So each broker is asked something;
any answer, a refusal too, means that it lives. A partition can take a record if as many brokers as must have
it are in sync *and* live.

    find_obstacle()    for a session that is about to ask for data: a fresh look, some ms where all is well
    known_obstacle()   for an append: what the last look found, never waiting

Promises: an answer of find_obstacle() rests on a look that began at most FRESH_SECONDS before it was asked,
and not before a connection was lost;
nothing is asked while nobody wants to know, except once in a while whether the topics are the same.
Does not: promise that an append succeeds: brokers may be lost between the look and the record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_settings import KafkaSettings, Place
from hgfleet.model.ids import Partition
from hgfleet.model.message import Topic
from hgfleet.runtime import clock

FRESH_SECONDS = 0.5
ASK_SECONDS = 2.0  # for what the cluster says of itself, and again for each broker's own answer:
LOOK_SECONDS = 2 * ASK_SECONDS  # one that has not answered by then is taken for lost
GRACE_SECONDS = 0.5
DOUBT_SECONDS = 5.0
ADMIN_SECONDS = 10.0
AWAKE_SECONDS = 10.0  # after somebody asked, looks are repeated for so long
SAME_SECONDS = 10.0  # between two looks whether the topics are the same
PAUSE_SECONDS = 0.9  # between two looks
NO_ANSWER = "no broker answers"
_SILENCE = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._DESTROY,
    }
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the cluster found."""

    began_at: float  # monotonic
    is_answered: bool = False
    partitions: Mapping[Place, str] = field(default_factory=dict)  # why it takes nothing, "" where it does

    def obstacle(self, place: Place) -> str:
        """Return why the place takes nothing, "" when nothing is known against it."""
        return self.partitions.get(place, "there is no such partition") if self.is_answered else NO_ANSWER


class Health:
    """Looks at the cluster in a thread of its own."""

    def __init__(
        self, settings: KafkaSettings, min_isr: Mapping[Topic, int], topic_ids: Mapping[Topic, str]
    ) -> None:
        self._settings = settings
        self._min_isr = min_isr
        self._topic_ids = topic_ids
        self._admin = AdminClient(settings.admin())
        self._changed = threading.Condition()
        self._look = Look(float("-inf"))
        self._lost_at = float("-inf")
        self._asked_at = clock.monotonic()  # the first look is slow; nobody waits for this one
        self._same_at = clock.monotonic()
        self._unanswered: dict[Place, float] = {}  # until when not to try again
        self._is_closing = False
        self.replaced = ""  # why the log is not the one that was opened
        self._thread = threading.Thread(target=self._run, name="kafka-health", daemon=True)
        self._thread.start()

    def find_obstacle(self, place: Place) -> str:
        """Return why the place takes nothing now, after a fresh look; blocks for LOOK_SECONDS at most."""
        asked_at = self._wake()
        deadline = asked_at + LOOK_SECONDS + GRACE_SECONDS
        with self._changed:
            while self._look.began_at < max(asked_at - FRESH_SECONDS, self._lost_at) and not self._is_closing:
                left = deadline - clock.monotonic()
                if left <= 0:
                    return NO_ANSWER
                self._changed.wait(left)
            return self.replaced or self._look.obstacle(place) or self._doubt(place)

    def known_obstacle(self, place: Place) -> str:
        """Return what the last look found against the place, unless that is long ago. Does not block.

        The state topic's records go on for ever on every host: they wake nobody.
        """
        if place[0] is not Topic.STATE:
            self._wake()
        with self._changed:
            is_old = clock.monotonic() - self._look.began_at > 2 * LOOK_SECONDS
            return self.replaced or ("" if is_old else self._look.obstacle(place))

    def note_lost_connection(self, error: KafkaError) -> None:
        """Forget the last look: a handle of ours lost a broker. Called in that handle's thread."""
        with self._changed:
            self._lost_at = clock.monotonic()

    def note_answer(self, places: Iterable[Place], *, is_answered: bool) -> None:
        """Take an append's outcome: where one was not answered, the next would hardly be either.

        For DOUBT_SECONDS, or until an append or a read there brings something: an append that nobody may try
        would never clear it.
        """
        with self._changed:
            for place in places:
                if is_answered:
                    self._unanswered.pop(place, None)
                else:
                    self._unanswered[place] = clock.monotonic() + DOUBT_SECONDS

    def _doubt(self, place: Place) -> str:
        is_doubtful = clock.monotonic() < self._unanswered.get(place, 0.0)
        return "an earlier append was not answered" if is_doubtful else ""

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def _wake(self) -> float:
        with self._changed:
            self._asked_at = now = clock.monotonic()
            self._changed.notify_all()
            return now

    # ---- the thread

    def _run(self) -> None:
        while self._wait_for_work():
            if self._is_awake():
                look = self._look_around()
                with self._changed:
                    self._look = look
                    self._changed.notify_all()
            if clock.monotonic() - self._same_at > SAME_SECONDS:
                self._check_same()

    def _wait_for_work(self) -> bool:
        """Wait until a look is due; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or self._is_awake(), SAME_SECONDS)
            pause_seconds = max(0.0, self._look.began_at + PAUSE_SECONDS - clock.monotonic())
            return not self._changed.wait_for(lambda: self._is_closing, pause_seconds)

    def _is_awake(self) -> bool:
        return clock.monotonic() - self._asked_at < AWAKE_SECONDS

    def _look_around(self) -> Look:
        began_at = clock.monotonic()
        try:
            metadata = self._admin.list_topics(timeout=ASK_SECONDS)
        except KafkaException:
            return Look(began_at)
        live = self._ask_brokers(metadata.brokers)
        partitions: dict[Place, str] = {}
        for topic in Topic:
            seen = metadata.topics.get(self._settings.topic(topic))
            for number, partition in seen.partitions.items() if seen else ():
                partitions[topic, Partition(number)] = self._judge(topic, live & set(partition.isrs))
        return Look(began_at, is_answered=True, partitions=partitions)

    def _judge(self, topic: Topic, in_sync: set[int]) -> str:
        least = self._min_isr.get(topic, 1)
        if len(in_sync) >= least:
            return ""
        return f"{len(in_sync)} of the {least} brokers are in sync that must have a record"

    def _ask_brokers(self, brokers: Iterable[int]) -> set[int]:
        """Return those that answer at all."""
        asked: dict[int, Future[object]] = {}
        for broker in brokers:
            resource = ConfigResource(ResourceType.BROKER, str(broker))
            (asked[broker],) = self._admin.describe_configs([resource], request_timeout=ASK_SECONDS).values()
        return {broker for broker, answer in asked.items() if _is_answer(answer)}

    def _check_same(self) -> None:
        """Notice topics that were deleted or made anew under our eyes."""
        self._same_at = clock.monotonic()
        try:
            seen = read_topic_ids(self._admin, self._settings)
        except KafkaException as error:
            if kafka_errors.as_kafka_error(error).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                return
            seen = {}
        for topic, topic_id in self._topic_ids.items():
            if seen.get(topic) != topic_id:
                self.replaced = f"the topic {self._settings.topic(topic)} was deleted or made anew"


def read_topic_ids(admin: AdminClient, settings: KafkaSettings) -> dict[Topic, str]:
    """Return each topic's id. Raises KafkaException."""
    names = TopicCollection([settings.topic(topic) for topic in Topic])
    answers = admin.describe_topics(names, request_timeout=ADMIN_SECONDS)
    return {topic: str(answers[settings.topic(topic)].result().topic_id) for topic in Topic}


def _is_answer(answer: Future[object]) -> bool:
    try:
        answer.result(ASK_SECONDS + GRACE_SECONDS)
    except KafkaException as error:
        return kafka_errors.as_kafka_error(error).code() not in _SILENCE
    except TimeoutError:
        return False
    return True
