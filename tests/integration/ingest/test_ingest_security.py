"""Ingest on a broker with TLS, passwords and ACLs: what producers may, and what they may not."""

import asyncio
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import admin_client, group_consumer, plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.acls import Acl, producer_acls, service_acls
from everloop_schemas.canonical import dumps
from everloop_schemas.topics import platform_topics

pytestmark = pytest.mark.integration

USERS = {"admin": "a-secret", "everloop-ingest": "i-secret", "tower": "t-secret"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}
LITERAL, PREFIXED, ALLOW = 3, 4, 3


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 for clients to trust, and the broker's PEM file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, broker = folder / "ca.pem", folder / "broker.pem"
    trusted.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    broker.write_bytes(private + trusted.read_bytes())
    return trusted, broker


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Kafka, Path]]:
    """A broker that asks everyone for a password, over TLS, and allows nothing by default."""
    trusted, keystore = certificate(tmp_path)
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    security = "org.apache.kafka.common.security"
    login = f"{security}.plain.PlainLoginModule required"
    scram = f"{security}.scram.ScramLoginModule required;"
    settings = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'{login} username="admin" password="{USERS["admin"]}" {users};'
        ),
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trusted),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",  # the controller's listener, on the loopback
    }
    folder = tmp_path / "kafka"
    with Kafka(folder, port=0, protocol="SASL_SSL", settings=settings, scram_users=USERS) as broker:
        yield broker, trusted


def settings_of(user: str, broker: Kafka, trusted: Path) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        security_protocol="SASL_SSL",
        sasl_username=user,
        sasl_password=USERS[user],
        ssl_cafile=trusted,
    )


async def grant(admin: AIOKafkaAdminClient, acls: list[Acl]) -> None:
    """What `everloop topics acls | sh` does."""
    for acl in acls:
        pattern = PREFIXED if acl.prefixed else LITERAL
        for operation in acl.operations:
            request = CreateAclsRequest(
                RESOURCES[acl.resource], acl.name, pattern, acl.principal, "*", OPERATIONS[operation], ALLOW
            )
            answer = await admin._send_request(request)
            assert all(code == 0 for code, *_ in answer.creation_responses), answer


async def test_a_producers_password_opens_its_inbound_topic_alone(secured, ingest_on, records, until) -> None:
    """The inbound topic is untrusted; everything behind it must not be writable with what producers have."""
    broker, trusted = secured
    root, tower = settings_of("admin", broker, trusted), settings_of("tower", broker, trusted)
    await ensure_topics(root, platform_topics())
    admin = admin_client(root)
    await admin.start()
    ingest_acls = service_acls("ingest", "User:everloop-ingest")
    await grant(admin, [*ingest_acls, *producer_acls("User:tower", ["flights"])])
    await admin.close()

    ingest = ingest_on(broker)
    ingest.settings = root
    ingest.extra = {
        "EVERLOOP_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "EVERLOOP_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "EVERLOOP_KAFKA_SASL_USERNAME": "everloop-ingest",
        "EVERLOOP_KAFKA_SASL_PASSWORD": USERS["everloop-ingest"],
        "EVERLOOP_KAFKA_SSL_CAFILE": str(trusted),
    }
    ingest.start()
    await ingest.define("flights")

    for number, mechanism in enumerate(MECHANISMS, 1):
        async with plain_producer(tower.model_copy(update={"sasl_mechanism": mechanism})) as producer:
            topic = "producer-record-published-v1.flights"
            await producer.send_and_wait(topic, dumps(records.observation(number)), b"JFK")
    url = f"{ingest.url}/v1/pipelines/flights/observations"
    async with httpx.AsyncClient(timeout=30) as client:
        assert (await client.post(url, json=records.observation(4))).status_code == 202

    async def logged() -> bool:
        return set(await ingest.ids("flights")) == {f"observation-o{number}" for number in range(1, 5)}

    assert await until(logged, seconds=30), ingest.log()
    await _is_kept_out(tower)
    for mechanism in MECHANISMS:
        wrong = {"sasl_password": root.sasl_password, "sasl_mechanism": mechanism}
        with pytest.raises(KafkaError):
            async with plain_producer(tower.model_copy(update=wrong)):
                pass


async def _is_kept_out(tower: KafkaSettings) -> None:
    """No internal topic is writable, none is readable, no group of ours can be joined."""
    internal = ("ingest-record-accepted-v1.flights", "registry-deployment-changed-v1")
    for topic in (*internal, "producer-record-published-v1.other"):
        with pytest.raises(TopicAuthorizationFailedError):
            await _send(tower, topic)
    with pytest.raises((GroupAuthorizationFailedError, TopicAuthorizationFailedError)):
        await _read(tower)


async def _read(tower: KafkaSettings) -> None:
    consumer: Any = group_consumer(tower, "everloop-ingest")
    consumer.subscribe(["producer-record-published-v1.flights"])
    try:
        await consumer.start()
        await asyncio.wait_for(consumer.getone(), 10)
    finally:
        await consumer.stop()


async def _send(tower: KafkaSettings, topic: str) -> None:
    async with plain_producer(tower, request_timeout_ms=5000) as producer:
        await producer.send_and_wait(topic, b"{}", partition=0)
