"""A person's own pages: their projects, their work, their password and their tokens; and the way in by invitation."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import services
from annotation.access import PersonRequest, person_required
from annotation.models import ApiToken, EventKind
from annotation.own_work import own_work, projects_of
from annotation.pages.forms import JoinForm, TokenForm
from annotation.services import DomainError
from annotation.services.tokens import make_token, withdraw_token
from annotation.sign_in import client_address

PASSWORD_BACKEND = "annotation.accounts.AccountBackend"


@require_GET
@person_required
def home(request: PersonRequest) -> HttpResponse:
    return render(request, "home.html", {"projects": projects_of(request.user)})


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        user = request.user
        services.give_back(None, user)
        services.record_event(EventKind.SIGN_IN, user=user, action="signed_out", address=client_address(request))
    logout(request)
    return redirect("login")


@require_GET
@person_required
def me(request: PersonRequest) -> HttpResponse:
    return render(request, "people/me.html", {"work": own_work(request.user), "tokens": _tokens(request.user)})


# ── Password and tokens ──────────────────────────────────────────────────────────────────────────────────────────


class ChangePassword(PasswordChangeView):
    """Changing one's own password ends every other session of the account."""

    template_name = "people/password.html"
    success_url = reverse_lazy("me")

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        user = form.user
        services.record_event(
            EventKind.SIGN_IN, user=user, action="password_changed", address=client_address(self.request)
        )
        messages.success(self.request, _("Your password is changed. You are signed out everywhere else."))
        return answer


def _tokens(user: User) -> list[ApiToken]:
    return list(ApiToken.objects.filter(user=user).order_by("-created"))


@require_http_methods(["GET", "POST"])
@person_required
def tokens(request: PersonRequest) -> HttpResponse:
    form, secret = TokenForm(request.POST or None), ""
    if request.method == "POST" and form.is_valid():
        try:
            _token, secret = make_token(request.user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(None, str(error))
        else:
            form = TokenForm()
    context = {"form": form, "secret": secret, "tokens": _tokens(request.user)}
    # The secret is in this one answer and nowhere else, so there is no redirect after the POST.
    return render(request, "people/tokens.html", context, status=422 if form.errors else 200)


@require_POST
@person_required
def token_withdraw(request: PersonRequest, token_key: str) -> HttpResponse:
    token = get_object_or_404(ApiToken, user=request.user, token_key=token_key)
    withdraw_token(token, by=request.user)
    messages.success(request, _("%(name)s is withdrawn; whatever still uses it is refused.") % {"name": token.name})
    return redirect("tokens")


# ── Invitations, from the side of whoever follows them ───────────────────────────────────────────────────────────


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "POST"])
def join(request: HttpRequest, secret: str) -> HttpResponse:
    """Somebody who is signed in joins by one press; others make an account here, or sign in and come back."""
    try:
        invitation = services.find_invitation(secret)
        form = None if request.user.is_authenticated else JoinForm(request.POST or None)
        if request.method == "POST":
            if request.user.is_authenticated:
                services.accept_invitation(secret, request.user)
                return _joined(request, invitation.project.name)
            if form is not None and form.is_valid():
                user = services.join_with_new_account(secret, **form.cleaned_data)
                login(request, user, backend=PASSWORD_BACKEND)
                services.record_event(
                    EventKind.SIGN_IN, user=user, action="signed_in", address=client_address(request)
                )
                return _joined(request, invitation.project.name)
    except DomainError as refused:
        return render(request, "people/join.html", {"refused": str(refused)}, status=410)
    context = {"invitation": invitation, "form": form}
    return render(request, "people/join.html", context, status=422 if form is not None and form.errors else 200)


def _joined(request: HttpRequest, project: str) -> HttpResponse:
    messages.success(request, _("You are in %(project)s now.") % {"project": project})
    return redirect("home")
