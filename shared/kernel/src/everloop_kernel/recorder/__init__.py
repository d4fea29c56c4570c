"""Pattern 2: consume a batch → one Postgres transaction {offsets, state, outbox} → the relay publishes.

A service writes SQL files (see `migrate`), handlers, and this wiring:

    await migrate(postgres.dsn, "registry")
    pool = await open_pool(postgres, "registry")

    async def on_trained(messages: Sequence[Message], work: Transaction) -> None:
        for message in messages:
            trained = cloudevents.decode(ModelTrained, message.value, message.headers)
            if isinstance(trained, Rejected):
                work.reject(message, trained.code, trained.reason)
                continue
            await work.connection.execute("INSERT INTO models …", …)
            work.emit(approved, id=derived_id(trained.run_id, "approved"), key=trained.pipeline)

    recorder = Recorder(
        "registry", kafka, pool, platform,
        [Subscription("everloop-registry", ["trainer-model-trained-v1"], handler=on_trained)],
    )
    relay = OutboxRelay("registry", kafka, pool)
    return await serve("registry", [recorder, relay], platform=platform, http=settings, routes=routes)

An HTTP use case decides through the same outbox:

    async with transaction(pool, "registry") as work:
        await work.connection.execute(…)
        work.emit(…)

What holds: each message's effect is in Postgres once, whatever is killed or stopped; each emitted event is
published once, in the order of commits. Nothing is skipped: what cannot be handled goes to `<group>-dlq`,
or the process ends.
"""

from everloop_kernel.recorder.message import Handler, Message, Subscription
from everloop_kernel.recorder.migrate import migrate
from everloop_kernel.recorder.pool import open_pool
from everloop_kernel.recorder.recorder import Recorder
from everloop_kernel.recorder.relay import OutboxRelay
from everloop_kernel.recorder.transaction import Transaction, transaction

__all__ = [
    "Handler",
    "Message",
    "OutboxRelay",
    "Recorder",
    "Subscription",
    "Transaction",
    "migrate",
    "open_pool",
    "transaction",
]
