"""Addresses of accounts, and of the people, settings, figures and disagreements of a project."""

from __future__ import annotations

from django.urls import path

from annotation.pages import account, export, journal, leaderboard, members, pace, quality, settings, settle, webhooks
from annotation.sign_in import SignIn

urlpatterns = [
    path("", account.home, name="home"),
    path("login/", SignIn.as_view(), name="login"),
    path("logout/", account.sign_out, name="logout"),
    path("join/<str:secret>/", account.join, name="join"),
    path("me/", account.me, name="me"),
    path("me/password/", account.ChangePassword.as_view(), name="password"),
    path("me/tokens/", account.tokens, name="tokens"),
    path("me/tokens/<str:token_key>/withdraw/", account.token_withdraw, name="token_withdraw"),
    path("journal/", journal.site_journal, name="site_journal"),
    path("journal/events.<slug:suffix>", journal.site_journal_file, name="site_journal_file"),
    path("projects/<slug:slug>/people/", members.members, name="project_people"),
    path("projects/<slug:slug>/people/invite/", members.invite, name="project_invite"),
    path(
        "projects/<slug:slug>/people/invitations/<int:invitation_id>/revoke/",
        members.invitation_revoke,
        name="invitation_revoke",
    ),
    path("projects/<slug:slug>/people/<int:user_id>/", members.member, name="project_member"),
    path("projects/<slug:slug>/people/<int:user_id>/remove/", members.member_remove, name="member_remove"),
    path(
        "projects/<slug:slug>/people/<int:user_id>/qualification/",
        members.member_qualification,
        name="member_qualification",
    ),
    path("projects/<slug:slug>/people/<int:user_id>/unlock/", members.member_unlock, name="member_unlock"),
    path("projects/<slug:slug>/progress/", pace.progress, name="project_progress"),
    path("projects/<slug:slug>/leaderboard/", leaderboard.leaderboard, name="project_leaderboard"),
    path("projects/<slug:slug>/export/", export.choose, name="project_exports"),
    path("projects/<slug:slug>/export/<slug:kind>.<slug:suffix>", export.download, name="project_export"),
    path("projects/<slug:slug>/settings/", settings.project_settings, name="project_settings"),
    path("projects/<slug:slug>/settings/preview/", settings.protocol_preview, name="protocol_preview"),
    path("projects/<slug:slug>/settings/open/", settings.project_open, name="project_open"),
    path("projects/<slug:slug>/webhooks/", webhooks.webhook_list, name="project_webhooks"),
    path("projects/<slug:slug>/webhooks/<int:webhook_id>/", webhooks.webhook, name="project_webhook"),
    path("projects/<slug:slug>/webhooks/<int:webhook_id>/switch/", webhooks.switch, name="webhook_switch"),
    path("projects/<slug:slug>/webhooks/<int:webhook_id>/remove/", webhooks.remove, name="webhook_remove"),
    path("projects/<slug:slug>/webhooks/<int:webhook_id>/restore/", webhooks.restore, name="webhook_restore"),
    path(
        "projects/<slug:slug>/webhooks/<int:webhook_id>/<uuid:delivery_id>/resend/",
        webhooks.resend,
        name="webhook_resend",
    ),
    path("projects/<slug:slug>/guidelines/", settings.guidelines, name="project_guidelines"),
    path("projects/<slug:slug>/guidelines/preview/", settings.guidelines_preview, name="guidelines_preview"),
    path("projects/<slug:slug>/journal/", journal.journal, name="project_journal"),
    path("projects/<slug:slug>/journal/events.<slug:suffix>", journal.journal_file, name="project_journal_file"),
    path("projects/<slug:slug>/quality/", quality.quality, name="project_quality"),
    path("projects/<slug:slug>/quality/<int:annotator_id>/", quality.annotator, name="annotator_quality"),
    path("projects/<slug:slug>/gold/", quality.gold, name="project_gold"),
    path("projects/<slug:slug>/gold/promote/", quality.promote, name="promote_gold"),
    path("projects/<slug:slug>/gold/<int:gold_id>/change/", quality.change_gold, name="change_gold"),
    path("projects/<slug:slug>/adjudicate/", settle.waiting, name="adjudicate"),
    path("projects/<slug:slug>/adjudicate/look/", settle.look_again, name="adjudicate_look"),
    path("projects/<slug:slug>/adjudicate/<int:comparison_id>/", settle.settle, name="settle"),
    path(
        "projects/<slug:slug>/adjudicate/<int:comparison_id>/without/",
        settle.settle_without_verdict,
        name="settle_without_verdict",
    ),
]
