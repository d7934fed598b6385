"""What scripts on the pages ask for, as JSON."""

from __future__ import annotations

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import permissions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from rlhf.models import TrainingJob
from rlhf.services import seconds_left

ROWS_PER_ANSWER = 2000


class AfterSerializer(serializers.Serializer):
    after = serializers.IntegerField(min_value=-1, max_value=2**31 - 1, default=-1)


class JobMetricsSerializer(serializers.Serializer):
    status = serializers.CharField()
    attempt = serializers.IntegerField()
    step = serializers.IntegerField()
    total_steps = serializers.IntegerField()
    seconds_left = serializers.FloatField(allow_null=True, help_text="An estimate from the steps so far.")
    rows = serializers.ListField(child=serializers.DictField(), help_text="`step` and what was logged there.")
    more = serializers.BooleanField(help_text="There are further steps: ask again.")


class JobMetricsView(APIView):
    """`GET ?after=STEP`: where a job stands, and what it logged beyond that step.

    A step's values can grow after they were read (a held-out measurement is added to the last step), so ask again for
    the last step that you have. After another attempt began (`attempt`), steps may be logged anew: start from −1.
    """

    permission_classes = [permissions.IsAdminUser]

    @extend_schema(parameters=[AfterSerializer], responses=JobMetricsSerializer)
    def get(self, request: Request, pk: int) -> Response:
        asked = AfterSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        job = get_object_or_404(TrainingJob, pk=pk)
        metrics = job.job_metrics.filter(step__gt=asked.validated_data["after"]).order_by("step")
        rows = list(metrics.values_list("step", "values")[: ROWS_PER_ANSWER + 1])
        return Response(
            {
                "status": job.status,
                "attempt": job.attempt,
                "step": job.step,
                "total_steps": job.total_steps,
                "seconds_left": seconds_left(job),
                "rows": [{**values, "step": step} for step, values in rows[:ROWS_PER_ANSWER]],
                "more": len(rows) > ROWS_PER_ANSWER,
            }
        )
