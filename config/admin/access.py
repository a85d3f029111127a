"""Access: users, groups, and the tokens that programs call with."""

from datetime import timedelta

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminIntegerFieldWidget

from config import logins
from config.admin.base import BoundedPaginator, ReadOnlyAdmin, ago, badge, pre, render, shortened
from config.models import UNUSED_AFTER, ApiToken, StaffAction
from config.tokens import SCOPES, issue_token

DAYS = 90
MAX_DAYS = 3_650

for model in (AuthToken, Group, User):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(User)
class UserAdmin(BaseUserAdmin, ModelAdmin):
    """Django's, in the house's look."""

    actions = ("unlock",)
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    @action(description="Let log in again: attempts start from 0", permissions=["change"])
    def unlock(self, request, users):
        """Give back the attempts to log in that were used up, by whomever."""
        names = list(users.values_list("username", flat=True)[:100])
        done = [logins.unlock(name=name) for name in names]
        if not all(done):
            messages.warning(request, "Valkey is away: each web process counts by itself.")
            return
        messages.success(request, f"Attempts start from 0 again for {', '.join(names)}.")


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):
    """Django's, in the house's look."""


class TokenForm(forms.ModelForm):
    """What a new token may do, for whom, and for how long."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {meaning}") for scope, meaning in SCOPES.items()],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    days = forms.IntegerField(
        min_value=1,
        max_value=MAX_DAYS,
        initial=DAYS,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="How long it is valid; empty: until it is revoked.",
    )

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scopes")

    def clean_user(self):
        """The same rule as in `issue_token`, told at its field."""
        user = self.cleaned_data["user"]
        if not user.is_active:
            raise forms.ValidationError("This account is not active.")
        return user


class UseFilter(admin.SimpleListFilter):
    """Tokens to look after."""

    title = "use"
    parameter_name = "use"

    def lookups(self, request, model_admin):
        return [("unused", f"unused for {UNUSED_AFTER.days} days"), ("forever", "never expires")]

    def queryset(self, request, queryset):
        match self.value():
            case "unused":
                return queryset.unused()
            case "forever":
                return queryset.filter(expiry=None)
        return queryset


@admin.register(ApiToken)
class ApiTokenAdmin(ModelAdmin):
    """Issue and revoke tokens; the secret is shown once, the database keeps only its digest."""

    form = TokenForm
    autocomplete_fields = ("user",)
    list_display = (
        "shown_name",
        "user",
        "shown_scopes",
        "shown_state",
        "shown_created",
        "last_use",
    )
    list_select_related = ("user",)
    list_filter = (UseFilter, "user__is_active")
    search_fields = ("name", "user__username", "token_key")
    ordering = ("-created",)
    paginator = BoundedPaginator
    show_full_result_count = False
    fields = ("user", "name", "scopes", "days")

    def has_change_permission(self, request, obj=None):
        """A token is issued or revoked, never edited."""
        return False

    def get_fields(self, request, obj=None):
        if obj is None:
            return self.fields
        return ("user", "name", "shown_scopes", "shown_state", "created", "expiry", "last_used_at")

    def get_readonly_fields(self, request, obj=None):
        return () if obj is None else self.get_fields(request, obj)

    def get_form(self, request, obj=None, change=False, **kwargs):
        if obj is not None:  # looked at: the fields are read-only, the form has none
            kwargs["form"] = forms.ModelForm
        return super().get_form(request, obj, change, **kwargs)

    def add_view(self, request, form_url="", extra_context=None):
        # One page shows one secret: no saving on to the next form.
        only = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, only | (extra_context or {}))

    def save_model(self, request, obj, form, change):
        """Issue it; the row that the form made is only the carrier of the new one's key."""
        days = form.cleaned_data["days"]
        issued, request.issued_secret = issue_token(
            user=obj.user,
            name=obj.name,
            scopes=form.cleaned_data["scopes"],
            lifetime=timedelta(days=days) if days else None,
        )
        obj.pk, obj.token_key, obj.expiry = issued.pk, issued.token_key, issued.expiry

    def response_add(self, request, obj, post_url_continue=None):
        """The one page that shows the secret; no session, message or cache keeps it."""
        return render(
            request,
            self,
            "config/token_issued.html",
            title="API token issued",
            token=obj,
            secret=request.issued_secret,
        )

    @display(description="name", ordering="name")
    def shown_name(self, token):
        return token.name or f"{token.token_key}…"

    @display(description="scopes")
    def shown_scopes(self, token):
        return format_html_join(" ", "{}", ((badge(scope),) for scope in token.scopes))

    @display(description="state", ordering="expiry")
    def shown_state(self, token):
        if token.expiry is not None and token.expiry <= timezone.now():
            return badge("expired", "bad")
        if not token.user.is_active:
            return badge("user inactive", "bad")
        if token.expiry is None:
            return badge("valid", "warn", "It never expires.")
        left = (token.expiry - timezone.now()).days
        return badge(f"{left} days left", "warn" if left < 7 else "ok")

    @display(description="created", ordering="created")
    def shown_created(self, token):
        return ago(token.created)

    @display(description="last used", ordering="last_used_at")
    def last_use(self, token):
        used = ago(token.last_used_at) if token.last_used_at else "never"
        if (token.last_used_at or token.created) > timezone.now() - UNUSED_AFTER:
            return used
        warning = badge("unused", "warn", f"Not used for {UNUSED_AFTER.days} days: revoke it?")
        return format_html("{} {}", used, warning)


@admin.register(StaffAction)
class StaffActionAdmin(ReadOnlyAdmin):
    """Who of the staff did what. Nobody edits or deletes it, superusers neither."""

    list_display = ("when", "actor", "address", "action", "about", "shown_changes")
    list_filter = ("via", ("created_at", admin.DateFieldListFilter), "entity")
    search_fields = ("=actor", "=entity_id", "=address")
    search_help_text = "A user name, an address, or the key of an object, as a whole."
    ordering = ("-created_at", "-pk")
    fields = (
        ("created_at", "actor", "actor_id", "address"),
        ("via", "action", "entity", "entity_id"),
        "all_changes",
        "all_detail",
    )
    readonly_fields = ("all_changes", "all_detail")

    @display(description="when", ordering="-created_at")
    def when(self, entry):
        return ago(entry.created_at)

    @display(description="what of")
    def about(self, entry):
        name = entry.detail.get("name", "")
        return f"{entry.entity} {entry.entity_id} {name}".strip() or "–"

    @display(description="before → after")
    def shown_changes(self, entry):
        told = [f"{name}: {old} → {new}" for name, (old, new) in entry.changes.items()]
        return shortened("; ".join(told), 120) or "–"

    @display(description="before → after")
    def all_changes(self, entry):
        return pre("\n".join(f"{name}: {a} → {b}" for name, (a, b) in entry.changes.items()))

    @display(description="detail")
    def all_detail(self, entry):
        return pre("\n".join(f"{name}: {value}" for name, value in entry.detail.items()))
