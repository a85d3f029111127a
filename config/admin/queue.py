"""The queue's own tables in the house's look: schedules, what waits, what was done."""

from django.contrib import admin
from django_q import admin as queue
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.admin import ModelAdmin
from unfold.decorators import display

from config import schedules
from config.admin.base import BoundedPaginator, ago, badge

for model in (Failure, OrmQ, Schedule, Success):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(Schedule)
class ScheduleAdmin(queue.ScheduleAdmin, ModelAdmin):
    """Rows named `job:…` are made from the declared jobs; edits to them do not last."""

    list_display = ("name", "schedule_type", "due", "state")
    list_display_links = ("name",)
    list_filter = ("schedule_type",)
    paginator = BoundedPaginator

    def has_add_permission(self, request):
        """A schedule runs any function that Python can import: superusers may choose it, only."""
        return request.user.is_superuser and super().has_add_permission(request)

    def get_readonly_fields(self, request, obj=None):
        fields = super().get_readonly_fields(request, obj)
        chosen = ("func", "hook", "args", "kwargs")
        return fields if request.user.is_superuser else (*fields, *chosen)

    @display(description="next run", ordering="next_run")
    def due(self, schedule):
        return ago(schedule.next_run)

    @display(description="state")
    def state(self, schedule):
        if schedule.repeats == 0:
            return badge("switched off", "quiet")
        fault = schedules.fault(schedule)
        return badge("broken", "bad", fault) if fault else badge("on", "ok")


@admin.register(OrmQ)
class QueueAdmin(queue.QueueAdmin, ModelAdmin):
    """What waits for a worker."""

    list_display = ("id", "group", "func", "lock")
    list_filter = ()
    paginator = BoundedPaginator


@admin.register(Success)
class SuccessAdmin(queue.TaskAdmin, ModelAdmin):
    """Tasks that the queue finished."""

    list_display = ("name", "group", "shown_start", "time_taken")
    list_filter = ()
    paginator = BoundedPaginator

    @display(description="started", ordering="started")
    def shown_start(self, task):
        return ago(task.started)


@admin.register(Failure)
class FailureAdmin(queue.FailAdmin, ModelAdmin):
    """Tasks that failed for good; the job runs say more."""

    list_display = ("name", "group", "shown_start", "short_result")
    list_filter = ()
    paginator = BoundedPaginator

    @display(description="started", ordering="started")
    def shown_start(self, task):
        return ago(task.started)
