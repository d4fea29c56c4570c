"""What serving must run for a pipeline, and the few moves that change it. Each move is a new revision."""

from dataclasses import dataclass, replace

from everloop_schemas.events import ModelRef

__all__ = ["Deployment", "Refusal", "demote", "pin", "promote", "roll_back", "start_challenge", "unpin"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A move that makes no sense now: why, and what to do instead."""

    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployed state of one pipeline. `former` holds earlier champions, the newest last.

    `rolled_back`: a person brought the champion back, and nothing has replaced it since.
    """

    pipeline: str
    revision: int = 0
    champion: ModelRef | None = None
    challenger: ModelRef | None = None
    challenger_share: float = 0.0
    former: tuple[ModelRef, ...] = ()
    pinned: tuple[ModelRef, ...] = ()
    rolled_back: bool = False

    @property
    def champion_version(self) -> int | None:
        """The version that answers, if any does."""
        return None if self.champion is None else self.champion.model_version

    @property
    def previous(self) -> ModelRef | None:
        """The champion that a rollback would bring back."""
        return self.former[-1] if self.former else None

    def alias_of(self, model_version: int) -> str | None:
        """`champion`, `challenger` or `previous`, when the version is one of these."""
        aliases = {"champion": self.champion, "challenger": self.challenger, "previous": self.previous}
        return next(
            (name for name, ref in aliases.items() if ref and ref.model_version == model_version), None
        )

    def holds_pin(self, model_version: int) -> bool:
        """Whether the version is held loaded beside the champion."""
        return any(ref.model_version == model_version for ref in self.pinned)


def promote(deployment: Deployment, model: ModelRef) -> Deployment | Refusal:
    """Make `model` the champion; the old one becomes `previous`. A winning challenger stops being one."""
    if deployment.champion_version == model.model_version:
        return Refusal(f"version {model.model_version} is the champion already", "nothing needs to be done")
    champion = (deployment.champion,) if deployment.champion else ()
    former = tuple(ref for ref in deployment.former if ref.model_version != model.model_version) + champion
    settled = _without_challenger(deployment, model.model_version)
    return _revised(settled, champion=model, former=former, rolled_back=False)


def start_challenge(deployment: Deployment, model: ModelRef, share: float) -> Deployment | Refusal:
    """Run `model` beside the champion on `share` (0…1) of the traffic; 0 shadows it."""
    if deployment.champion is None:
        return promote(deployment, model)
    if deployment.champion_version == model.model_version:
        return Refusal(
            f"version {model.model_version} is the champion already", "challenge with another version"
        )
    return _revised(deployment, challenger=model, challenger_share=share)


def demote(deployment: Deployment, model_version: int) -> Deployment | Refusal:
    """Take a rejected version out of the deployment; unchanged when it takes no part in it."""
    if deployment.champion_version == model_version:
        return Refusal(f"version {model_version} is the champion", "roll back, or approve another version")
    if deployment.holds_pin(model_version):
        return Refusal(f"version {model_version} is pinned", "unpin it first")
    former = tuple(ref for ref in deployment.former if ref.model_version != model_version)
    changed = _without_challenger(replace(deployment, former=former), model_version)
    return deployment if changed == deployment else _revised(changed)


def roll_back(deployment: Deployment) -> Deployment | Refusal:
    """Bring the previous champion back; a second rollback goes one further, never forward again."""
    if deployment.previous is None:
        return Refusal("no earlier champion to go back to", "approve a version instead")
    back = _without_challenger(deployment, deployment.previous.model_version)
    return _revised(back, champion=deployment.previous, former=deployment.former[:-1], rolled_back=True)


def pin(deployment: Deployment, model: ModelRef) -> Deployment:
    """Hold `model` loaded, reachable by its version only; unchanged when it is pinned already."""
    if deployment.holds_pin(model.model_version):
        return deployment
    return _revised(deployment, pinned=(*deployment.pinned, model))


def unpin(deployment: Deployment, model_version: int) -> Deployment:
    """Let a pinned version go; unchanged when it is not pinned."""
    if not deployment.holds_pin(model_version):
        return deployment
    kept = tuple(ref for ref in deployment.pinned if ref.model_version != model_version)
    return _revised(deployment, pinned=kept)


def _without_challenger(deployment: Deployment, model_version: int) -> Deployment:
    if deployment.challenger is None or deployment.challenger.model_version != model_version:
        return deployment
    return replace(deployment, challenger=None, challenger_share=0.0)


def _revised(deployment: Deployment, **changes: object) -> Deployment:
    return replace(deployment, revision=deployment.revision + 1, **changes)  # type: ignore[arg-type]  # replace checks names at run time
