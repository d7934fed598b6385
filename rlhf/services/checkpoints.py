"""Checkpoints: bringing in a base model, registering what a job made, publishing it to the annotators."""

from __future__ import annotations

import contextlib
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import Project, ResponseSource, SourceKind
from annotation.services import DomainError
from rlhf import artifacts, jobspec
from rlhf.models import Checkpoint, CheckpointKind, TrainingJob
from rlhf.options import OnPolicyOptions, SpecError, TrainingOptions
from rlhf.services.aliases import is_alias, resolve_alias
from rlhf.token_lengths import check_same_template


def register_base_checkpoint(name: str, directory: Path) -> Checkpoint:
    """Bring in a model directory to train from. Registering the same one again gives the row that stands.

    Raises DomainError where the directory is half-written or the name stands for other weights.
    """
    try:
        jobspec.check_manifest(directory)
    except jobspec.SpecError as error:
        raise DomainError(str(error)) from None
    sha256 = jobspec.sha256_of_file(directory / jobspec.MANIFEST_FILE)
    known = Checkpoint.objects.filter(name=name).first()
    if known is None:
        if is_alias(name):
            raise DomainError(
                gettext("%(name)s is an alias; bring the directory in under another name") % {"name": name}
            )
        return register_checkpoint(name=name, kind=CheckpointKind.POLICY, directory=directory)
    if known.manifest_sha256 != sha256:
        raise DomainError(f"checkpoint {name} stands for other weights than those in {directory}; use another name")
    Checkpoint.objects.filter(pk=known.pk).update(directory=_stored_path(directory))
    known.refresh_from_db()
    return known


def register_checkpoint(
    *,
    name: str,
    kind: CheckpointKind,
    directory: Path,
    parent: Checkpoint | None = None,
    job: TrainingJob | None = None,
    step: int = 0,
    step_of: TrainingJob | None = None,
) -> Checkpoint:
    """Store a row for a complete model directory, and its files where machines share no disk.

    job: whose result it is. step_of: of which job it is a step on the way.
    """
    if artifacts.is_shared():
        artifacts.store_directory(directory)
    return Checkpoint.objects.create(
        name=name,
        kind=kind,
        directory=_stored_path(directory),
        manifest_sha256=jobspec.sha256_of_file(directory / jobspec.MANIFEST_FILE),
        parent=parent,
        job=job,
        step=step,
        step_of=step_of,
    )


def _stored_path(directory: Path) -> str:
    directory = directory.resolve()
    with contextlib.suppress(ValueError):
        return str(directory.relative_to(settings.DATA_DIR))
    return str(directory)


def find_checkpoint(name_or_directory: str, project: Project | None = None) -> Checkpoint:
    """The checkpoint of that name or alias, or a local model directory brought in under its folder's name.

    project: whose aliases come first. Raises DomainError where there is none.
    """
    known = Checkpoint.objects.filter(name=name_or_directory).first() or resolve_alias(name_or_directory, project)
    if known:
        return known
    directory = Path(name_or_directory)
    if not directory.is_dir():
        names = ", ".join(Checkpoint.objects.order_by("name").values_list("name", flat=True)) or "none yet"
        raise DomainError(f"there is no checkpoint, alias or directory {name_or_directory}; known: {names}")
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        raise DomainError(f"{directory} holds no config.json with *.safetensors beside it: not a model directory")
    if not (directory / jobspec.MANIFEST_FILE).is_file():
        jobspec.write_manifest(directory)
    return register_base_checkpoint(directory.resolve().name, directory)


def find_reward_model(options: TrainingOptions, base: Checkpoint) -> Checkpoint | None:
    """The reward model that the options name, if they do. Raises DomainError where it cannot score this base."""
    if not isinstance(options, OnPolicyOptions) or not options.reward_model:
        return None
    rewards = Checkpoint.objects.filter(kind=CheckpointKind.REWARD)
    found = rewards.filter(name=options.reward_model).first() or resolve_alias(options.reward_model)
    if found is None or found.kind != CheckpointKind.REWARD:
        known = ", ".join(rewards.order_by("name").values_list("name", flat=True)) or gettext("none yet")
        raise DomainError(
            gettext("there is no reward model %(name)s; known: %(known)s")
            % {"name": options.reward_model, "known": known}
        )
    try:
        jobspec.check_manifest(found.path)
        check_same_template(base.path, found.path)
    except SpecError as error:
        raise DomainError(str(error)) from None
    return found


def publish_checkpoint(checkpoint: Checkpoint) -> ResponseSource:
    """Let a policy checkpoint write responses that people judge; publishing it again gives the same source.

    Raises DomainError for a reward model, for a directory that is not whole, and for a name that data has taken.
    """
    if checkpoint.kind != CheckpointKind.POLICY:
        raise DomainError(
            gettext("%(name)s is a reward model: it scores responses and cannot write any") % {"name": checkpoint.name}
        )
    try:
        jobspec.check_manifest(checkpoint.path)
    except jobspec.SpecError as error:
        raise DomainError(str(error)) from None
    with transaction.atomic():
        locked = Checkpoint.objects.select_for_update(of=("self",)).get(pk=checkpoint.pk)
        if locked.source is not None:
            return locked.source
        source, is_new = ResponseSource.objects.get_or_create(
            name=locked.name, defaults={"kind": SourceKind.MODEL, "served_model": locked.name}
        )
        if not is_new:
            raise DomainError(
                gettext("a response source named %(name)s exists already; train under another name")
                % {"name": locked.name}
            )
        locked.source = source
        locked.save(update_fields=["source"])
        return source
