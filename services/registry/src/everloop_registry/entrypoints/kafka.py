"""Events that the registry acts on: translate, call, nothing else."""

from collections.abc import Callable, Sequence
from functools import partial

from everloop_kernel import telemetry
from everloop_kernel.errors import PermanentError
from everloop_kernel.recorder import Message, Subscription, Transaction
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import DataProfiled, Event, ModelLoaded, ModelTrained
from everloop_schemas.rejected import Rejected

from everloop_registry.application.ports import Office, Work
from everloop_registry.application.review_model import review_model

__all__ = ["GROUP", "subscription"]

GROUP = "everloop-registry"

_EVENTS: dict[str, type[Event]] = {event.topic: event for event in (ModelTrained, ModelLoaded, DataProfiled)}


def subscription(office: Office, work_in: Callable[[Transaction], Work]) -> Subscription:
    """The registry's one subscription: trained models and their data, and what serving loaded."""
    return Subscription(group=GROUP, topics=tuple(_EVENTS), handler=partial(_handle, office, work_in))


async def _handle(
    office: Office,
    work_in: Callable[[Transaction], Work],
    messages: Sequence[Message],
    transaction: Transaction,
) -> None:
    work = work_in(transaction)
    for message in messages:
        event = decode(_EVENTS[message.topic], message.value, message.headers)
        if isinstance(event, Rejected):
            transaction.reject(message, event.code, event.reason)
            continue
        try:
            # each event goes on in its producer's trace, also when several came in one batch
            with telemetry.span(f"judge {message.topic}", parent=telemetry.extract(message.headers)):
                await _act(event, work, office)
        except PermanentError as error:
            transaction.reject(message, error.reason_code, error.message)


async def _act(event: Event, work: Work, office: Office) -> None:
    if isinstance(event, ModelTrained):
        await review_model(event, work, office)
    elif isinstance(event, ModelLoaded):
        await work.add_load(event)
    elif isinstance(event, DataProfiled):
        await work.add_profile(event)
