"""The people of a project: who is in it, what is routed to them, and the links by which others join."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import services
from annotation.api.common import NewestFirstPagination, ProjectView, RefusalSerializer, person, refuse_unknown
from annotation.models import Invitation, Membership, QualificationState, Role
from annotation.services.tokens import unlock_sign_in
from annotation.sign_in import locks

REFUSED = {422: RefusalSerializer}


class LabelsField(serializers.ListField):
    """Labels as prompts carry them; an empty list means everything."""

    child = serializers.CharField(max_length=60)

    def to_internal_value(self, data: Any) -> list[str]:
        return list(dict.fromkeys(super().to_internal_value(data)))


class MemberSerializer(serializers.ModelSerializer):
    username = serializers.CharField(source="user.username")

    class Meta:
        model = Membership
        fields = ["username", "role", "languages", "skills", "qualification", "joined_at"]


class ChangedMemberSerializer(serializers.Serializer):
    """What is not given is left as it is."""

    role = serializers.ChoiceField(choices=Role.choices, required=False)
    languages = LabelsField(required=False, help_text="Only prompts in these are handed out; []: all.")
    skills = LabelsField(required=False, help_text="Prompts that need another skill are not handed out; []: all are.")


class NewMemberSerializer(ChangedMemberSerializer):
    """Role: annotator, where it is not given."""

    username = serializers.SlugRelatedField(slug_field="username", queryset=User.objects.filter(is_active=True))


class MemberPatchSerializer(ChangedMemberSerializer):
    qualification = serializers.ChoiceField(
        choices=QualificationState.choices,
        required=False,
        help_text="Overrules the qualification round; running: another try from the start.",
    )


class Members(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="list_members", responses=MemberSerializer(many=True))
    def get(self, request: Request, slug: str) -> Response:
        rows = Membership.objects.filter(project=self.project).select_related("user").order_by("user__username")
        return Response(MemberSerializer(rows, many=True).data)

    @extend_schema(
        operation_id="add_member",
        request=NewMemberSerializer,
        responses={200: MemberSerializer, 201: MemberSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Give somebody a place (201); of a member's place only what is given is changed (200)."""
        given = NewMemberSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        user = fields.pop("username")
        is_there = Membership.objects.filter(project=self.project, user=user).exists()
        row = services.add_member(self.project, user, by=person(request), **fields)
        code = status.HTTP_200_OK if is_there else status.HTTP_201_CREATED
        return Response(MemberSerializer(row).data, status=code)


class MemberView(ProjectView):
    """An endpoint of one member."""

    role = Role.ADMIN

    def member(self, username: str) -> Membership:
        rows = Membership.objects.select_related("user")
        return get_object_or_404(rows, project=self.project, user__username=username)


class Member(MemberView):
    @extend_schema(
        operation_id="change_member", request=MemberPatchSerializer, responses={200: MemberSerializer, **REFUSED}
    )
    def patch(self, request: Request, slug: str, username: str) -> Response:
        """Change a member's role, what is routed to them, or how they stand in the qualification round."""
        row = self.member(username)
        given = MemberPatchSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        state = fields.pop("qualification", None)
        with transaction.atomic():
            services.change_member(self.project, row.user, by=person(request), **fields)
            if state is not None:
                services.set_qualification(self.project, row.user, state, by=person(request))
        return Response(MemberSerializer(self.member(username)).data)

    @extend_schema(operation_id="remove_member", responses={204: None})
    def delete(self, request: Request, slug: str, username: str) -> Response:
        """Take somebody off the project; what they hold goes back, their judgments stay."""
        services.remove_member(self.project, self.member(username).user, by=person(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class UnlockedSerializer(serializers.Serializer):
    unlocked = serializers.IntegerField(help_text="From how many addresses they could not sign in.")


class UnlockMember(MemberView):
    @extend_schema(operation_id="unlock_member", request=None, responses=UnlockedSerializer)
    def post(self, request: Request, slug: str, username: str) -> Response:
        """Forget a member's wrong passwords, so that they may try to sign in again at once."""
        row = self.member(username)
        locked = len(locks([row.user.username]))
        unlock_sign_in(row.user, by=person(request), project=self.project)
        return Response({"unlocked": locked})


class NewInvitationSerializer(serializers.Serializer):
    role = serializers.ChoiceField(choices=Role.choices, default=Role.ANNOTATOR)
    email = serializers.EmailField(required=False, default="", allow_blank=True, help_text="Nothing is sent to it.")
    languages = LabelsField(required=False, default=list)
    skills = LabelsField(required=False, default=list)
    days = serializers.IntegerField(min_value=1, max_value=90, default=7)


class InvitationSerializer(serializers.ModelSerializer):
    created_by = serializers.CharField(source="created_by.username")
    accepted_by = serializers.CharField(source="accepted_by.username", default=None)

    class Meta:
        model = Invitation
        fields = [
            "id", "role", "email", "languages", "skills", "created_by", "created_at", "expires_at", "accepted_by",
            "accepted_at", "revoked_at",
        ]  # fmt: skip


class MadeInvitationSerializer(InvitationSerializer):
    link = serializers.URLField(help_text="Shown this once.")

    class Meta(InvitationSerializer.Meta):
        fields = [*InvitationSerializer.Meta.fields, "link"]


class Invitations(ProjectView, generics.ListAPIView):
    """Links by which people join, used and withdrawn ones too, newest first; without the links themselves."""

    role = Role.ADMIN
    serializer_class = InvitationSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_invitations")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Invitation]:
        return Invitation.objects.filter(project=self.project).select_related("created_by", "accepted_by")

    @extend_schema(
        operation_id="invite", request=NewInvitationSerializer, responses={201: MadeInvitationSerializer, **REFUSED}
    )
    def post(self, request: Request, slug: str) -> Response:
        """Make a link that one person can join the project by; it cannot be had again."""
        given = NewInvitationSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        invitation, secret = services.create_invitation(self.project, by=person(request), **given.validated_data)
        link = request.build_absolute_uri(reverse("join", args=[secret]))
        return Response({**InvitationSerializer(invitation).data, "link": link}, status=status.HTTP_201_CREATED)


class InvitationDetail(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="revoke_invitation", responses={204: None, **REFUSED})
    def delete(self, request: Request, slug: str, pk: int) -> Response:
        """Make a link worthless; the line about it stays."""
        invitation = Invitation.objects.filter(pk=pk, project=self.project).first()
        if invitation is None:
            raise Http404
        if not services.revoke_invitation(invitation, by=person(request)):
            raise services.DomainError("This invitation had been used or withdrawn before.")
        return Response(status=status.HTTP_204_NO_CONTENT)
