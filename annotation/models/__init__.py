"""Tables of the annotation side. Every write goes through `annotation.services`; nothing here knows about `rlhf`."""

from annotation.models.comparing import (
    Annotator,
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    ErrorKind,
    ErrorSpan,
    FurtherResponse,
    Judgment,
    Preference,
    QueueTier,
    Rating,
)
from annotation.models.conversations import (
    FEEDBACK_ALLOWED,
    Conversation,
    ConversationSource,
    DeficiencyType,
    FeedbackType,
    Scenario,
    SideStatus,
    Turn,
    TurnSide,
)
from annotation.models.figures import StoredFigures
from annotation.models.journal import Event, EventKind
from annotation.models.projects import (
    Batch,
    GuidelineVersion,
    Invitation,
    Membership,
    Project,
    QualificationState,
    Role,
)
from annotation.models.quality import Adjudication, Flag, Gold
from annotation.models.rewriting import Edit, RewriteCause, RewriteStatus, RewriteTask
from annotation.models.texts import Prompt, Response, ResponseSource, SourceKind
from annotation.models.tokens import ApiToken
from annotation.models.webhooks import DeliveryStatus, Webhook, WebhookDelivery

__all__ = [
    "FEEDBACK_ALLOWED",
    "Adjudication",
    "Annotator",
    "ApiToken",
    "Assignment",
    "AssignmentKind",
    "AssignmentStatus",
    "Batch",
    "Comparison",
    "Conversation",
    "ConversationSource",
    "DeficiencyType",
    "DeliveryStatus",
    "Edit",
    "ErrorKind",
    "ErrorSpan",
    "Event",
    "EventKind",
    "FeedbackType",
    "Flag",
    "FurtherResponse",
    "Gold",
    "GuidelineVersion",
    "Invitation",
    "Judgment",
    "Membership",
    "Preference",
    "Project",
    "Prompt",
    "QualificationState",
    "QueueTier",
    "Rating",
    "Response",
    "ResponseSource",
    "RewriteCause",
    "RewriteStatus",
    "RewriteTask",
    "Role",
    "Scenario",
    "SideStatus",
    "SourceKind",
    "StoredFigures",
    "Turn",
    "TurnSide",
    "Webhook",
    "WebhookDelivery",
]
