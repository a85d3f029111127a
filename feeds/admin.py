"""Feeds for staff: how posts come to people and how far that is behind; posts; people."""

from contextlib import suppress

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Q
from unfold.decorators import action, display

from config import tally
from config.admin.base import COUNT_LIMIT, PageAdmin, ReadOnlyAdmin, ago, badge, number, span
from feeds import indexing, queries, worker
from feeds.models import Fanout, FeedState, Post, Profile
from feeds.search import backend

SHOWN_FANOUTS = 50
LAG_SECONDS = 30  # above it deliveries are late
TEXT_SHOWN = 90
_MODES = {
    "pull": "looked up when read",
    "push": "delivered when posted",
    "hybrid": "delivered, but for authors with many followers and readers who are idle",
}


@admin.register(FeedState)
class TimelinesAdmin(PageAdmin):
    """How timelines are kept, what is under way to them, and the search index."""

    page_template = "feeds/timelines.html"
    page_title = "Timelines"

    def page(self, request):
        found = queries.gauges()
        counted = {one.name: one.value for one in tally.all() if not one.labels}
        posts = counted.get("feed_fanouts_total", 0)
        delivered = counted.get("feed_delivered_total", 0)
        waiting, lag = indexing.lag()
        oldest = found["oldest_seconds"]
        return {
            "mode": settings.FEEDS_MODE,
            "means": _MODES[settings.FEEDS_MODE],
            "cap": number(settings.FEEDS_CAP),
            "worker_alive": worker.is_alive(),
            "waiting": number(found["waiting"]),
            "lag": badge(span(oldest), "warn") if oldest > LAG_SECONDS else span(oldest),
            "failing": found["failing"],
            "unbuilt": number(found["unbuilt"]),
            "kept": number(found["kept"]),
            "rows": number(found["rows"]),
            "mean": number(found["rows"] / found["kept"]) if found["kept"] else "–",
            "posts": number(posts),
            "delivered": number(delivered),
            "amplification": f"{delivered / posts:,.1f}" if posts else "–",
            "pulled": Profile.objects.filter(is_pulled=True)[:COUNT_LIMIT].count(),
            "index_waiting": number(waiting),
            "index_lag": badge(span(lag), "warn") if lag > LAG_SECONDS else span(lag),
            "index_size": f"{backend().size() / 2**20:,.1f} MB",
            "fanouts": [_fanout(one) for one in _under_way()],
            "may_run": request.user.has_perm("config.change_readmodelstate"),
        }


def _under_way():
    return Fanout.objects.select_related("author").order_by("queued_at")[:SHOWN_FANOUTS]


def _fanout(one: Fanout) -> dict:
    return {
        "post": one.post_id,
        "author": str(one.author),
        "queued": ago(one.queued_at),
        "delivered": number(one.delivered),
        "of": number(one.author.followers_count),
        "attempts": one.attempts,
        "state": badge("failed, will be tried again", "bad", one.error)
        if one.error
        else badge("under way", "info"),
    }


@admin.register(Post)
class PostAdmin(ReadOnlyAdmin):
    """Posts; staff may take one down."""

    actions = ("take_down",)
    list_display = ("shown_text", "author", "kind", "shown_visibility", "likes", "comments", "made")
    list_filter = ("kind", "visibility", "is_deleted")
    list_select_related = ("author",)
    search_fields = ("pk",)
    search_help_text = "A post's number, or a person's whole handle"
    ordering = ("-pk",)
    fields = (
        "author", "kind", "visibility", "delivery", "is_deleted", "text", "media", "created_at",
        "edited_at", "likes_count", "comments_count", "shares_count", "views_count",
    )  # fmt: skip

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip().removeprefix("@")[:60]
        if not term:
            return queryset, False
        author = Profile.objects.filter(handle=term).values_list("pk", flat=True).first()
        found = Q(author_id=author) if author else Q(pk=None)
        if term.isdecimal() and len(term) < 19:
            found |= Q(pk=int(term))
        return queryset.filter(found), False

    def has_take_down_permission(self, request) -> bool:
        """Whether the user may take posts down."""
        return request.user.has_perm("feeds.delete_post")

    @action(description="Take down: nobody sees them any more", permissions=["take_down"])
    def take_down(self, request, queryset):
        from feeds import actions

        posts = list(queryset.filter(is_deleted=False).select_related("author")[:COUNT_LIMIT])
        taken = 0
        for post in posts:
            with suppress(actions.Missing):  # its author was quicker
                actions.delete_post(post_id=post.pk, author=post.author)
                self.log_change(request, post, "taken down")
                taken += 1
        messages.success(request, f"Posts taken down: {taken:,}.")

    @display(description="post", ordering="-pk")
    def shown_text(self, post):
        text = " ".join(post.text.split())
        short = text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}…"
        return f"{post.pk} {short or '(media)'}"

    @display(description="seen by")
    def shown_visibility(self, post):
        if post.is_deleted:
            return badge("deleted", "bad")
        level = {"public": "ok", "followers": "info"}.get(post.visibility, "quiet")
        return badge(post.visibility, level)

    @display(description="likes")
    def likes(self, post):
        return number(post.likes_count)

    @display(description="comments")
    def comments(self, post):
        return number(post.comments_count)

    @display(description="posted", ordering="-pk")
    def made(self, post):
        return ago(post.created_at)


@admin.register(Profile)
class ProfileAdmin(ReadOnlyAdmin):
    """People, with how their posts come to their followers."""

    list_display = (
        "shown_handle", "display_name", "private", "followers", "following", "posts", "come",
    )  # fmt: skip
    list_filter = ("is_private", "is_pulled")
    search_fields = ("handle",)
    search_help_text = "The beginning of a handle"
    ordering = ("-pk",)
    fields = (
        "handle", "display_name", "bio", "is_private", "is_pulled", "followers_count",
        "following_count", "posts_count", "created_at",
    )  # fmt: skip

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip().removeprefix("@").lower()[:60]
        return (queryset.filter(handle__startswith=term) if term else queryset), False

    @display(description="person", ordering="handle")
    def shown_handle(self, person):
        return str(person)

    @display(description="private")
    def private(self, person):
        return badge("private", "info") if person.is_private else ""

    @display(description="followers")
    def followers(self, person):
        return number(person.followers_count)

    @display(description="follows")
    def following(self, person):
        return number(person.following_count)

    @display(description="posts")
    def posts(self, person):
        return number(person.posts_count)

    @display(description="posts are")
    def come(self, person):
        many = person.followers_count >= settings.FEEDS_PULL_FOLLOWERS
        pulled = settings.FEEDS_MODE == "pull" or (
            settings.FEEDS_MODE == "hybrid" and (many or person.is_pulled)
        )
        return badge("looked up", "info") if pulled else badge("delivered")
