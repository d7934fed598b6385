"""Addresses of the API."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from annotation.api import conversations, data, data_jobs, projects, ratings, review, rewrites, work

PROJECT = "v1/projects/<slug:slug>/"
REWRITE = PROJECT + "rewrites/<int:task>/"
TALK = "v1/conversations/<uuid:conversation_id>/"
urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="api_schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api_schema"), name="api_docs"),
    path("v1/projects/", projects.ProjectList.as_view()),
    path(PROJECT, projects.ProjectDetail.as_view()),
    path(PROJECT + "members/", projects.Members.as_view()),
    path(PROJECT + "members/<str:username>/", projects.Member.as_view()),
    path(PROJECT + "invitations/", projects.Invitations.as_view()),
    path(PROJECT + "agreement/", projects.Agreement.as_view()),
    path(PROJECT + "leaderboard/", projects.Leaderboard.as_view()),
    path(PROJECT + "export/<slug:kind>.<slug:suffix>", projects.Export.as_view()),
    path(PROJECT + "import/", projects.Import.as_view()),
    path(PROJECT + "events/", projects.Journal.as_view()),
    path(PROJECT + "webhooks/", projects.Webhooks.as_view()),
    path(PROJECT + "webhooks/<int:pk>/", projects.WebhookDetail.as_view()),
    path(PROJECT + "webhooks/<int:pk>/deliveries/", projects.Deliveries.as_view()),
    path(PROJECT + "webhooks/<int:pk>/deliveries/<uuid:delivery>/resend/", projects.ResendDelivery.as_view()),
    path(PROJECT + "prompts/", data.Prompts.as_view()),
    path(PROJECT + "prompts/edit/", data_jobs.EditPrompts.as_view()),
    path(PROJECT + "prompts/edit/undo/", data_jobs.UndoEdit.as_view()),
    path(PROJECT + "personal-data/find/", data_jobs.FindPersonalData.as_view()),
    path(PROJECT + "personal-data/mask/", data_jobs.MaskPersonalData.as_view()),
    path(PROJECT + "duplicates/find/", data_jobs.FindDuplicates.as_view()),
    path(PROJECT + "data-jobs/<int:pk>/", data_jobs.DataJobDetail.as_view()),
    path(PROJECT + "sources/", data.Sources.as_view()),
    path(PROJECT + "responses/", data.Responses.as_view()),
    path(PROJECT + "comparisons/", data.Comparisons.as_view()),
    path(PROJECT + "comparisons/<int:pk>/", data.ComparisonDetail.as_view()),
    path(PROJECT + "judgments/", data.Judgments.as_view()),
    path(PROJECT + "turns/", data.Turns.as_view()),
    path(PROJECT + "gold/", review.GoldItems.as_view()),
    path(PROJECT + "gold/<int:comparison>/", review.GoldItem.as_view()),
    path(PROJECT + "adjudications/", review.Adjudications.as_view()),
    path(PROJECT + "flags/", review.Flags.as_view()),
    path(PROJECT + "annotators/", review.Annotators.as_view()),
    path(PROJECT + "claim/", work.Claim.as_view()),
    path(PROJECT + "renew/", work.Renew.as_view()),
    path(PROJECT + "conversations/", conversations.Conversations.as_view()),
    path(TALK, conversations.ConversationDetail.as_view()),
    path(TALK + "ask/", conversations.AskModels.as_view()),
    path(TALK + "responses/", conversations.PostResponses.as_view()),
    path(TALK + "choice/", conversations.Choose.as_view()),
    path(TALK + "keep/", conversations.KeepComplete.as_view()),
    path(TALK + "feedback/", conversations.GiveFeedback.as_view()),
    path(TALK + "end/", conversations.EndConversation.as_view()),
    path(TALK + "reopen/", conversations.ReopenConversation.as_view()),
    path(PROJECT + "rewrites/claim/", rewrites.ClaimRewrite.as_view()),
    path(REWRITE + "text/", rewrites.SaveRewrite.as_view()),
    path(REWRITE + "skip/", rewrites.SkipRewrite.as_view()),
    path(REWRITE + "drop/", rewrites.DropRewrite.as_view()),
    path(REWRITE + "renew/", rewrites.RenewRewrite.as_view()),
    path(PROJECT + "ratings/", ratings.Ratings.as_view()),
    path(PROJECT + "ratings/claim/", ratings.ClaimRating.as_view()),
    path("v1/ratings/<uuid:rating_id>/marks/", ratings.GiveMarks.as_view()),
    path("v1/ratings/<uuid:rating_id>/skip/", ratings.SkipRating.as_view()),
    path("v1/ratings/<uuid:rating_id>/renew/", ratings.RenewRating.as_view()),
    path("v1/assignments/<uuid:assignment_id>/judgment/", work.Judge.as_view()),
    path("v1/assignments/<uuid:assignment_id>/skip/", work.Skip.as_view()),
    path("v1/assignments/<uuid:assignment_id>/undo/", work.Undo.as_view()),
    path("v1/assignments/<uuid:assignment_id>/flag/", work.Flag.as_view()),
]
