"""What the rules refuse, as sentences for people."""

from __future__ import annotations


class DomainError(Exception):
    """Something that a person asked for and cannot have; the sentence says why and what to do."""


class AssignmentNotFoundError(DomainError):
    """There is no such assignment for this person."""


class ConflictError(DomainError):
    """The request contradicts what is stored already."""
