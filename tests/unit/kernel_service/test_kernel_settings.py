"""Settings come from the environment; a wrong one is named."""

import pytest
from everloop_kernel.errors import ConfigurationError
from everloop_kernel.settings import HttpSettings, KafkaSettings, PlatformSettings, PostgresSettings
from pydantic_settings import SettingsConfigDict


class TrainerSettings(HttpSettings):
    model_config = SettingsConfigDict(env_prefix="EVERLOOP_TRAINER_")
    http_port: int = 8003


def test_defaults_are_safe():
    """Who sets nothing must not be open to the network, nor send data anywhere."""
    assert TrainerSettings().http_host == "127.0.0.1"
    assert PlatformSettings().otlp_endpoint is None
    assert KafkaSettings().bootstrap_servers == "127.0.0.1:9092"
    assert PostgresSettings().dsn.startswith("postgresql://everloop@127.0.0.1:5433/")


def test_each_service_has_its_own_variables(monkeypatch):
    """Two services on one machine must be able to listen on different ports."""
    monkeypatch.setenv("EVERLOOP_TRAINER_HTTP_PORT", "9003")
    assert TrainerSettings().http_port == 9003
    assert TrainerSettings.variable("http_port") == "EVERLOOP_TRAINER_HTTP_PORT"
    assert PlatformSettings.variable("tokens_file") == "EVERLOOP_TOKENS_FILE"


@pytest.mark.parametrize(
    ("settings", "variable", "value"),
    [
        (TrainerSettings, "EVERLOOP_TRAINER_HTTP_PORT", "many"),
        (PlatformSettings, "EVERLOOP_TRACE_RATIO", "2"),
        (PlatformSettings, "EVERLOOP_LOG_LEVEL", "loud"),
        (PlatformSettings, "EVERLOOP_OTLP_ENDPOINT", "jaeger:4318"),
        (PlatformSettings, "EVERLOOP_OTLP_ENDPOINT", "http://"),
        (KafkaSettings, "EVERLOOP_KAFKA_SECURITY_PROTOCOL", "TELNET"),
        (PostgresSettings, "EVERLOOP_POSTGRES_POOL_SIZE", "0"),
    ],
)
def test_a_bad_value_is_named(monkeypatch, settings, variable, value):
    """The operator must read which variable is wrong, not a traceback of a validator."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable}='{value}' is refused"):
        settings()


def test_an_empty_variable_is_unset(monkeypatch):
    """Compose files pass empty variables for what is not set."""
    monkeypatch.setenv("EVERLOOP_OTLP_ENDPOINT", "")
    assert PlatformSettings().otlp_endpoint is None


def test_client_options_carry_the_credentials(monkeypatch):
    """A cluster with authentication must be reachable, and the password stays out of reprs."""
    monkeypatch.setenv("EVERLOOP_KAFKA_SASL_PASSWORD", "s3cret")
    monkeypatch.setenv("EVERLOOP_KAFKA_SASL_USERNAME", "everloop")
    monkeypatch.setenv("EVERLOOP_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    kafka = KafkaSettings()
    options = kafka.client_options()
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("everloop", "s3cret")
    assert options["ssl_context"] is not None
    assert "s3cret" not in repr(kafka)


def test_a_missing_certificate_file_is_named():
    with pytest.raises(ConfigurationError, match=r"EVERLOOP_KAFKA_SSL_CAFILE=/none\.pem cannot be read"):
        KafkaSettings(security_protocol="SSL", ssl_cafile="/none.pem").client_options()


@pytest.mark.parametrize("text", [":::", "localhost:abc", "a b", "kafka", "a:1,,b:2"])
def test_an_address_of_kafka_without_a_port_is_refused(monkeypatch, text) -> None:
    """Otherwise the clients fail with a number that cannot be read, in a loop of restarts."""
    monkeypatch.setenv("EVERLOOP_KAFKA_BOOTSTRAP_SERVERS", text)
    with pytest.raises(ConfigurationError, match=r"EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=.*write host:port"):
        KafkaSettings()


@pytest.mark.parametrize("text", ["kafka:9092", "a.b-c:1, [::1]:65535"])
def test_addresses_of_kafka_are_read(monkeypatch, text) -> None:
    monkeypatch.setenv("EVERLOOP_KAFKA_BOOTSTRAP_SERVERS", text)
    assert KafkaSettings().bootstrap_servers == text
