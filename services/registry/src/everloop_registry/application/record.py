"""Write down, in the pipeline's audit trail, what was done."""

from datetime import datetime

from everloop_registry.application.ports import Work
from everloop_registry.domain.audit import Deed, append

__all__ = ["record"]


async def record(work: Work, deed: Deed, at: datetime) -> None:
    """Append an entry to the chain. The caller holds the pipeline's lock, so the chain does not fork."""
    last = await work.last_audit(deed.pipeline)
    await work.add_audit(append(last, deed, at))
