"""What a reward model cannot tell apart, said by a program: people get it first."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import services
from annotation.api.common import ProjectView, RefusalSerializer, person
from annotation.models import Role

MOST_AT_ONCE = 10_000


class UncertaintySerializer(serializers.Serializer):
    comparison = serializers.IntegerField(min_value=1, max_value=2**63 - 1)
    uncertainty = serializers.FloatField(
        min_value=0, max_value=1, help_text="1 − 2·|p − ½|, where p is the probability that one response is better."
    )


class UncertaintiesSerializer(serializers.Serializer):
    uncertainties = serializers.ListField(
        child=UncertaintySerializer(),
        allow_empty=False,
        max_length=MOST_AT_ONCE,
        help_text="The last one of an id counts.",
    )
    at_least = serializers.FloatField(
        required=False, default=0.8, min_value=0, max_value=1, help_text="From here on a comparison comes first."
    )


class KnownSerializer(serializers.Serializer):
    comparisons = serializers.IntegerField(help_text="How many of the ids are comparisons of the project.")


class Uncertainties(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="set_uncertainties",
        request=UncertaintiesSerializer,
        responses={200: KnownSerializer, 422: RefusalSerializer},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Have people judge first what a reward model cannot tell apart, at every other of their items at most."""
        given = UncertaintiesSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        data = given.validated_data
        known = services.set_uncertainties(
            self.project,
            {row["comparison"]: row["uncertainty"] for row in data["uncertainties"]},
            at_least=data["at_least"],
            by=person(request),
        )
        return Response({"comparisons": known})
