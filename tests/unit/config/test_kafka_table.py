"""What the table [kafka] takes, and what it refuses to have broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgfleet.adapters.kafka_settings import kafka_settings
from hgfleet.config.load import parse_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError

PLACE = Path("/etc/hgfleet/hgfleet.toml")


def config(log: dict[str, object] | None = None, **kafka: object) -> FleetConfig:
    return parse_config({"log": {"kind": "kafka", **(log or {})}, "kafka": kafka}, PLACE)


def problems(log: dict[str, object] | None = None, **kafka: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config(log, **kafka)
    return caught.value.hint


def test_the_defaults_fit_each_other() -> None:
    assert config().kafka.brokers == ("localhost:9092",)


@pytest.mark.parametrize(
    "item",
    ["acks=1", "enable.idempotence=false", "transactional.id=x", "retries=0", "plugin.library.paths=x",
     "enable.ssl.certificate.verification=false", "sasl.kerberos.kinit.cmd=sh", " acks =0"],
)  # fmt: skip
def test_a_setting_that_a_promise_rests_on_is_refused(item: str) -> None:
    assert "is not yours to set here" in problems(client=[item])


def test_other_settings_of_the_library_are_passed_through() -> None:
    settings = kafka_settings(config(client=["socket.keepalive.enable = true", "debug=broker"]).kafka)
    assert settings.producer()["debug"] == "broker"
    assert settings.producer()["acks"] == "all"
    assert "expected settings" in problems(client=["debug"])


def test_a_push_must_fit_into_a_record() -> None:
    assert "kafka.max_message: must be at least" in problems({"inline_limit": "2MiB"})
    assert "kafka.max_message: must be at least" in problems(max_message="1MiB")


def test_what_could_never_be_appended_is_said() -> None:
    assert "kafka.min_isr" in problems(replication_factor=1, min_isr=2)
    assert "kafka.append_timeout" in problems(append_timeout="10s")


def test_a_login_needs_a_name_and_a_password_and_a_certificate_its_key() -> None:
    told = problems(security_protocol="sasl_ssl", certificate="keys/kafka.pem")
    assert "kafka.username and kafka.password_file" in told
    assert "goes together with kafka.key" in told


def test_a_password_that_cannot_be_read_is_a_fault_of_the_configuration() -> None:
    fine = config(security_protocol="sasl_ssl", username="u", password_file="/nonexistent/password")
    with pytest.raises(ConfigError) as caught:
        kafka_settings(fine.kafka)
    assert caught.value.code == "kafka.password"


def test_nothing_of_kafka_matters_while_the_log_is_embedded() -> None:
    parse_config({"kafka": {"min_isr": 3, "replication_factor": 1}}, PLACE)
