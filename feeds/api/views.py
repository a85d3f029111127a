"""Feeds over HTTP. What is one person's is never kept by others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.permissions import SAFE_METHODS
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from config import problems
from config.fields import MAX_ID, printable
from config.idempotency import idempotent
from config.metrics import ITEM_SEARCH_LATENCY
from config.openapi import IDEMPOTENCY_KEY, in_path
from config.pagination import page_of, position
from config.params import NoQuery, PageQuery, object_of
from config.problems import Problem, invalid, invalid_fields
from config.rendering import OrjsonParser, respond_private, respond_written
from config.tokens import HasScope, PublicRead, has_scope
from feeds import actions, queries, shown, timeline
from feeds.actions import LIKE, SHARE, Reaction
from feeds.api import examples, serializers
from feeds.models import Profile

SCOPE = "feeds"

_POST_ID = in_path("post_id", "The id of a post.")
_COMMENT_ID = in_path("comment_id", "The id of a comment.")
_PERSON_ID = in_path("person_id", "The id of a person.")
_DONE = OpenApiResponse(description="It is so now, whether or not it was before.")


class MemberView(APIView):
    """For people with an account here."""

    permission_classes = [HasScope(SCOPE)]
    parser_classes = [OrjsonParser]


class ReaderView(APIView):
    """For everybody: what is public, and with a token with the scope `feeds` what one may see."""

    reads_replica = True

    permission_classes = [PublicRead]


class SharedView(APIView):
    """Read like a ReaderView, written by members."""

    parser_classes = [OrjsonParser]

    def get_permissions(self):
        return [PublicRead() if self.request.method in SAFE_METHODS else HasScope(SCOPE)()]


class FeedView(MemberView):
    """One's timeline."""

    @extend_schema(
        operation_id="feed",
        summary="Read your timeline",
        description="Posts of those you follow and your own, newest first. What was unfollowed,"
        " muted, blocked, deleted or made private does not come any more, from the next read on.",
        tags=["feed"],
        parameters=[PageQuery],
        responses={200: serializers.PostPageSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("A page", examples.PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = PageQuery.parse(request)
        after = position(params, datetime, int, kind="feed")
        page = timeline.read(viewer=_me(request), limit=params["limit"], after=after)
        state = {"cached": "hit", "computed": "miss"}.get(page.how, "")
        return respond_private(request, page_of(page.posts, page.after, kind="feed"), state)


class PostsView(MemberView):
    """Where posts are made."""

    @extend_schema(
        operation_id="posts_create",
        summary="Post something",
        description="Followers see it from now on.",
        tags=["posts"],
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.PostBody,
        responses={
            201: serializers.PostSerializer,
            **problems.responses(400, 401, 403, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("A post", examples.NEW_POST, request_only=True),
            OpenApiExample("The post", examples.POST, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "posts") as once:
            if once.replay:
                return once.replay
            given = _body(request, serializers.PostBody)
            me = _me(request)
            with transaction.atomic(), _refusals():
                post = actions.create_post(author=me, **given)
                [made] = shown.posts([post.pk], me.pk)
                at = reverse("feeds-post", args=[post.pk])
                return once.store(respond_written(made, status=201, location=at))


class PostView(SharedView):
    """One post."""

    @extend_schema(
        operation_id="posts_show",
        summary="Show a post",
        tags=["posts"],
        parameters=[_POST_ID],
        responses={200: serializers.PostSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A post", examples.POST, response_only=True)],
    )
    def get(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        found = queries.post(_id(post_id, "post"), _viewer_id(request))
        if found is None:
            raise _no("post")
        return respond_private(request, found)

    @extend_schema(
        operation_id="posts_edit",
        summary="Change a post of yours",
        description="What is not named stays as it is.",
        tags=["posts"],
        parameters=[_POST_ID],
        request=serializers.PostChanges,
        responses={
            200: serializers.PostSerializer,
            **problems.responses(400, 401, 403, 404, 413, 415),
        },
        examples=[
            OpenApiExample("Only for followers", {"visibility": "followers"}, request_only=True),
            OpenApiExample("The post", examples.POST, response_only=True),
        ],
    )
    def patch(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        changes = _body(request, serializers.PostChanges)
        me = _me(request)
        with _refusals():
            actions.edit_post(post_id=_id(post_id, "post"), author=me, **changes)
        found = shown.posts([post_id], me.pk)
        if not found:  # deleted for good since
            raise _no("post")
        return respond_private(request, found[0])

    @extend_schema(
        operation_id="posts_delete",
        summary="Delete a post of yours",
        tags=["posts"],
        parameters=[_POST_ID],
        responses={
            204: OpenApiResponse(description="It is deleted."),
            **problems.responses(400, 401, 403, 404),
        },
    )
    def delete(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with _refusals():
            actions.delete_post(post_id=_id(post_id, "post"), author=_me(request))
        return HttpResponse(status=204)


class _ReactionView(MemberView):
    """Like or share."""

    reaction: Reaction

    def set(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with _refusals():
            actions.react(post_id=_id(post_id, "post"), user=_me(request), reaction=self.reaction)
        return HttpResponse(status=204)

    def unset(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        actions.take_back(post_id=_id(post_id, "post"), user=_me(request), reaction=self.reaction)
        return HttpResponse(status=204)


class LikeView(_ReactionView):
    """That one likes a post."""

    reaction = LIKE

    @extend_schema(
        operation_id="posts_like",
        summary="Like a post",
        tags=["posts"],
        parameters=[_POST_ID],
        request=None,
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def put(self, request, post_id: int) -> HttpResponse:
        return self.set(request, post_id)

    @extend_schema(
        operation_id="posts_unlike",
        summary="Like a post no longer",
        tags=["posts"],
        parameters=[_POST_ID],
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def delete(self, request, post_id: int) -> HttpResponse:
        return self.unset(request, post_id)


class ShareView(_ReactionView):
    """That one shares a post."""

    reaction = SHARE

    @extend_schema(
        operation_id="posts_share",
        summary="Share a post",
        tags=["posts"],
        parameters=[_POST_ID],
        request=None,
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def put(self, request, post_id: int) -> HttpResponse:
        return self.set(request, post_id)

    @extend_schema(
        operation_id="posts_unshare",
        summary="Share a post no longer",
        tags=["posts"],
        parameters=[_POST_ID],
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def delete(self, request, post_id: int) -> HttpResponse:
        return self.unset(request, post_id)


class CommentsView(SharedView):
    """What is said about a post."""

    reads_replica = True

    @extend_schema(
        operation_id="comments_list",
        summary="List the comments on a post",
        description="Newest first.",
        tags=["comments"],
        parameters=[_POST_ID, PageQuery],
        responses={200: serializers.CommentPageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.COMMENT_PAGE, response_only=True)],
    )
    def get(self, request, post_id: int) -> HttpResponse:
        params = PageQuery.parse(request)
        kind = f"comments:{post_id}"
        found = queries.comments(
            post_id=_id(post_id, "post"),
            viewer_id=_viewer_id(request),
            limit=params["limit"],
            before=position(params, int, kind=kind),
        )
        if found is None:
            raise _no("post")
        return respond_private(request, page_of(*found, kind=kind))

    @extend_schema(
        operation_id="comments_create",
        summary="Comment on a post",
        tags=["comments"],
        parameters=[_POST_ID, IDEMPOTENCY_KEY],
        request=serializers.CommentBody,
        responses={
            201: serializers.CommentSerializer,
            **problems.responses(400, 401, 403, 404, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("A comment", {"text": "Where is that?"}, request_only=True),
            OpenApiExample(
                "The comment", examples.COMMENT, response_only=True, status_codes=["201"]
            ),
        ],
    )
    def post(self, request, post_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "comments") as once:
            if once.replay:
                return once.replay
            given = _body(request, serializers.CommentBody)
            me = _me(request)
            with transaction.atomic(), _refusals():
                made = actions.comment(
                    post_id=_id(post_id, "post"), author=me, text=given.get("text", "")
                )
                return once.store(respond_written(_comment(made, me), status=201))


class CommentView(MemberView):
    """One comment."""

    @extend_schema(
        operation_id="comments_edit",
        summary="Change a comment of yours",
        tags=["comments"],
        parameters=[_COMMENT_ID],
        request=serializers.CommentBody,
        responses={
            200: serializers.CommentSerializer,
            **problems.responses(400, 401, 403, 404, 413, 415),
        },
        examples=[
            OpenApiExample("Another text", {"text": "Which harbour?"}, request_only=True),
            OpenApiExample("The comment", examples.COMMENT, response_only=True),
        ],
    )
    def patch(self, request, comment_id: int) -> HttpResponse:
        NoQuery.parse(request)
        given = _body(request, serializers.CommentBody)
        me = _me(request)
        with _refusals():
            changed = actions.edit_comment(
                comment_id=_id(comment_id, "comment"), author=me, text=given.get("text", "")
            )
        return respond_private(request, _comment(changed, me))

    @extend_schema(
        operation_id="comments_delete",
        summary="Delete a comment",
        description="Of yours, or on a post of yours.",
        tags=["comments"],
        parameters=[_COMMENT_ID],
        responses={
            204: OpenApiResponse(description="It is deleted."),
            **problems.responses(400, 401, 403, 404),
        },
    )
    def delete(self, request, comment_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with _refusals():
            actions.delete_comment(comment_id=_id(comment_id, "comment"), user=_me(request))
        return HttpResponse(status=204)


class SearchView(ReaderView):
    """Search over posts."""

    @extend_schema(
        operation_id="posts_search",
        summary="Search posts",
        description="By words, spelling and meaning; fresh posts and those with many reactions are"
        " preferred. Public posts, seconds after they were posted; the best 50 at most.",
        tags=["posts"],
        parameters=[serializers.SearchQuery],
        responses={200: serializers.PostHitsSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Hits", examples.FOUND, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.SearchQuery.parse(request)
        with ITEM_SEARCH_LATENCY.labels("posts_search").time():
            found = queries.search(
                text=params["q"],
                viewer_id=_viewer_id(request),
                kind=params.get("kind"),
                author_id=params.get("author"),
                limit=params["limit"],
            )
        return respond_private(request, {"results": found})


class PersonView(ReaderView):
    """Somebody."""

    @extend_schema(
        operation_id="people_show",
        summary="Show a person",
        tags=["people"],
        parameters=[_PERSON_ID],
        responses={200: serializers.PersonSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A person", examples.PERSON, response_only=True)],
    )
    def get(self, request, person_id: int) -> HttpResponse:
        NoQuery.parse(request)
        found = shown.person(_id(person_id, "person"), _viewer_id(request))
        if found is None:
            raise _no("person")
        return respond_private(request, found)


class PersonPostsView(ReaderView):
    """What somebody posted."""

    @extend_schema(
        operation_id="people_posts",
        summary="List a person's posts",
        description="Those that you may see, newest first.",
        tags=["people"],
        parameters=[_PERSON_ID, PageQuery],
        responses={200: serializers.PostPageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.PAGE, response_only=True)],
    )
    def get(self, request, person_id: int) -> HttpResponse:
        params = PageQuery.parse(request)
        kind = f"posts:{person_id}"
        page = queries.posts_of(
            person_id=_id(person_id, "person"),
            viewer_id=_viewer_id(request),
            limit=params["limit"],
            after=position(params, datetime, int, kind=kind),
        )
        if page is None:
            raise _no("person")
        return respond_private(request, page_of(page.posts, page.after, kind=kind))


class _PeopleView(ReaderView):
    which: str

    def answer(self, request, person_id: int) -> HttpResponse:
        params = PageQuery.parse(request)
        kind = f"{self.which}:{person_id}"
        found = queries.people(
            which=self.which,
            person_id=_id(person_id, "person"),
            viewer_id=_viewer_id(request),
            limit=params["limit"],
            after=position(params, int, kind=kind) or 0,
        )
        if found is None:
            raise _no("person")
        return respond_private(request, page_of(*found, kind=kind))


class FollowersView(_PeopleView):
    """Who follows somebody."""

    which = "followers_of"

    @extend_schema(
        operation_id="people_followers",
        summary="List who follows a person",
        tags=["people"],
        parameters=[_PERSON_ID, PageQuery],
        responses={200: serializers.PeoplePageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.PEOPLE_PAGE, response_only=True)],
    )
    def get(self, request, person_id: int) -> HttpResponse:
        return self.answer(request, person_id)


class FollowingView(_PeopleView):
    """Whom somebody follows."""

    which = "followed_by"

    @extend_schema(
        operation_id="people_following",
        summary="List whom a person follows",
        tags=["people"],
        parameters=[_PERSON_ID, PageQuery],
        responses={200: serializers.PeoplePageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.PEOPLE_PAGE, response_only=True)],
    )
    def get(self, request, person_id: int) -> HttpResponse:
        return self.answer(request, person_id)


class _TieView(MemberView):
    """How one stands to somebody."""

    tie: Callable[..., bool]
    untie: Callable[..., bool]

    def set(self, request, person_id: int) -> HttpResponse:
        return self._do(request, person_id, type(self).tie)

    def unset(self, request, person_id: int) -> HttpResponse:
        return self._do(request, person_id, type(self).untie)

    def _do(self, request, person_id: int, act: Callable[..., bool]) -> HttpResponse:
        NoQuery.parse(request)
        with _refusals():
            act(user=_me(request), target_id=_id(person_id, "person"))
        return HttpResponse(status=204)


class FollowView(_TieView):
    """That one follows somebody."""

    tie = staticmethod(actions.follow)
    untie = staticmethod(actions.unfollow)

    @extend_schema(
        operation_id="people_follow",
        summary="Follow a person",
        description="Their posts are in your timeline from the next read on, older ones included.",
        tags=["people"],
        parameters=[_PERSON_ID],
        request=None,
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def put(self, request, person_id: int) -> HttpResponse:
        return self.set(request, person_id)

    @extend_schema(
        operation_id="people_unfollow",
        summary="Follow a person no longer",
        tags=["people"],
        parameters=[_PERSON_ID],
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def delete(self, request, person_id: int) -> HttpResponse:
        return self.unset(request, person_id)


class MuteView(_TieView):
    """That one does not want to see somebody's posts."""

    tie = staticmethod(actions.mute)
    untie = staticmethod(actions.unmute)

    @extend_schema(
        operation_id="people_mute",
        summary="Mute a person",
        description="Their posts are not in your timeline any more; they do not learn of it.",
        tags=["people"],
        parameters=[_PERSON_ID],
        request=None,
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def put(self, request, person_id: int) -> HttpResponse:
        return self.set(request, person_id)

    @extend_schema(
        operation_id="people_unmute",
        summary="Mute a person no longer",
        tags=["people"],
        parameters=[_PERSON_ID],
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def delete(self, request, person_id: int) -> HttpResponse:
        return self.unset(request, person_id)


class BlockView(_TieView):
    """That two see nothing of each other."""

    tie = staticmethod(actions.block)
    untie = staticmethod(actions.unblock)

    @extend_schema(
        operation_id="people_block",
        summary="Block a person",
        description="Neither of you follows the other any more, nor sees the other's posts.",
        tags=["people"],
        parameters=[_PERSON_ID],
        request=None,
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def put(self, request, person_id: int) -> HttpResponse:
        return self.set(request, person_id)

    @extend_schema(
        operation_id="people_unblock",
        summary="Block a person no longer",
        tags=["people"],
        parameters=[_PERSON_ID],
        responses={204: _DONE, **problems.responses(400, 401, 403, 404)},
    )
    def delete(self, request, person_id: int) -> HttpResponse:
        return self.unset(request, person_id)


class ProfileView(MemberView):
    """Oneself."""

    @extend_schema(
        operation_id="me_profile",
        summary="Show your profile",
        tags=["me"],
        responses={200: serializers.PersonSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("Your profile", examples.PERSON, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        NoQuery.parse(request)
        me = _me(request)
        return respond_private(request, shown.person(me.pk, me.pk))

    @extend_schema(
        operation_id="me_profile_edit",
        summary="Change your profile",
        description="What is not named stays as it is.",
        tags=["me"],
        request=serializers.ProfileChanges,
        responses={
            200: serializers.PersonSerializer,
            **problems.responses(400, 401, 403, 413, 415),
        },
        examples=[
            OpenApiExample("Go private", {"is_private": True}, request_only=True),
            OpenApiExample("Your profile", examples.PERSON, response_only=True),
        ],
    )
    def patch(self, request) -> HttpResponse:
        NoQuery.parse(request)
        changes = _body(request, serializers.ProfileChanges)
        with _refusals():
            me = actions.edit_profile(user=request.user, **changes)
        return respond_private(request, shown.person(me.pk, me.pk))


@contextmanager
def _refusals() -> Iterator[None]:
    """What actions raise, as problems."""
    try:
        yield
    except actions.Invalid as error:
        raise invalid(**error.errors) from error
    except actions.Missing as error:
        raise _no(str(error)) from error
    except actions.Forbidden as error:
        raise Problem(403, detail=str(error)) from error


def _no(what: str) -> Problem:
    return Problem(404, detail=f"There is no such {what} for you.")


def _me(request) -> Profile:
    """The profile of the token's user, made where there is none."""
    return actions.ensure_profile(request.user)


def _viewer_id(request) -> int:
    return request.user.pk if has_scope(request, SCOPE) else shown.NOBODY


def _body(request, known: type[Serializer]) -> dict[str, Any]:
    """The fields of a body. Raises a 400 Problem for none, and for those that are not `known`."""
    given = object_of(request.data)
    if not given:
        raise invalid(body="Names nothing.")
    fields = known().fields
    unknown = [printable(name) for name in given if name not in fields]
    if unknown:
        raise invalid_fields(
            {"name": name, "reason": "Is not a field here."} for name in unknown[:20]
        )
    return given


def _id(row_id: int, what: str) -> int:
    """An id out of an address; one beyond its column can be nobody's."""
    if row_id > (serializers.MAX_PERSON if what == "person" else MAX_ID):
        raise _no(what)
    return row_id


def _comment(one, author: Profile) -> dict[str, Any]:
    return queries.comment(
        one.pk,
        one.text,
        one.created_at,
        one.edited_at,
        author.pk,
        author.handle,
        author.display_name,
    )
