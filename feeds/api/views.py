"""Feeds over HTTP. What is one person's is never kept by others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from config import caching, problems
from config.idempotency import idempotent
from config.metrics import ITEM_SEARCH_LATENCY
from config.openapi import IDEMPOTENCY_KEY
from config.pagination import decode_cursor, encode_cursor
from config.problems import Problem, invalid_fields
from config.rendering import OrjsonParser, dumps
from config.tokens import HasScope, PublicRead
from feeds import actions, queries, shown, timeline
from feeds.actions import LIKE, SHARE, Reaction
from feeds.api import examples, serializers
from feeds.models import Profile

SCOPE = "feeds"
MAX_ID = 2**63 - 1
MAX_PERSON = 2**31 - 1

_POST_ID = OpenApiParameter("post_id", int, OpenApiParameter.PATH, description="The id of a post.")
_COMMENT_ID = OpenApiParameter(
    "comment_id", int, OpenApiParameter.PATH, description="The id of a comment."
)
_PERSON_ID = OpenApiParameter(
    "person_id", int, OpenApiParameter.PATH, description="The id of a person."
)
_DONE = OpenApiResponse(description="It is so now, whether or not it was before.")


class MemberView(APIView):
    """For people with an account here."""

    permission_classes = [HasScope(SCOPE)]
    parser_classes = [OrjsonParser]

    def me(self, request) -> Profile:
        """The profile of the token's user, made where there is none."""
        return actions.ensure_profile(request.user)


class ReaderView(APIView):
    """For everybody: what is public, and with a token with the scope `feeds` what one may see."""

    reads_replica = True

    permission_classes = [PublicRead]

    def viewer_id(self, request) -> int:
        """Who looks."""
        is_member = request.auth is not None and SCOPE in request.auth.scopes
        return request.user.pk if is_member else shown.NOBODY


class FeedView(MemberView):
    """One's timeline."""

    @extend_schema(
        operation_id="feed",
        summary="Read your timeline",
        description="Posts of those you follow and your own, newest first. What was unfollowed,"
        " muted, blocked, deleted or made private does not come any more, from the next read on.",
        tags=["feed"],
        parameters=[serializers.PageQuery],
        responses={200: serializers.PostPageSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("A page", examples.PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.PageQuery.parse(request)
        me = self.me(request)
        page = timeline.read(viewer=me, limit=params["limit"], after=_position(params, "feed"))
        state = {"cached": "hit", "computed": "miss"}.get(page.how, "")
        return caching.respond_private(request, dumps(_page(page, "feed")), state)


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
        serializers.NoQuery.parse(request)
        with idempotent(request, "posts") as once:
            if once.replay:
                return once.replay
            given = _body(request)
            me = self.me(request)
            _known(given, serializers.PostBody)
            with transaction.atomic(), _refusals():
                post = actions.create_post(author=me, **given)
                answer = Response(
                    shown.posts([post.pk], me.pk)[0],
                    status=201,
                    headers={
                        "Location": reverse("feeds-post", args=[post.pk]),
                        "Cache-Control": "no-store",
                    },
                )
                return once.store(answer)


class PostView(APIView):
    """One post."""

    parser_classes = [OrjsonParser]

    def get_permissions(self):
        reads = self.request.method in ("GET", "HEAD", "OPTIONS")
        return [PublicRead()] if reads else [HasScope(SCOPE)()]

    @extend_schema(
        operation_id="posts_show",
        summary="Show a post",
        tags=["posts"],
        parameters=[_POST_ID],
        responses={200: serializers.PostSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A post", examples.POST, response_only=True)],
    )
    def get(self, request, post_id: int) -> HttpResponse:
        serializers.NoQuery.parse(request)
        found = queries.post(_key(post_id), ReaderView.viewer_id(self, request))
        if found is None:
            raise _no("post")
        return _private(request, found)

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
        serializers.NoQuery.parse(request)
        changes = _body(request)
        _known(changes, serializers.PostChanges)
        me = MemberView.me(self, request)
        with _refusals():
            actions.edit_post(post_id=_key(post_id), author=me, **changes)
        found = shown.posts([post_id], me.pk)
        if not found:  # deleted for good since
            raise _no("post")
        return _private(request, found[0])

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
        serializers.NoQuery.parse(request)
        with _refusals():
            actions.delete_post(post_id=_key(post_id), author=MemberView.me(self, request))
        return HttpResponse(status=204)


class _ReactionView(MemberView):
    """Like or share."""

    reaction: Reaction

    def set(self, request, post_id: int) -> HttpResponse:
        serializers.NoQuery.parse(request)
        with _refusals():
            actions.react(post_id=_key(post_id), user=self.me(request), reaction=self.reaction)
        return HttpResponse(status=204)

    def unset(self, request, post_id: int) -> HttpResponse:
        serializers.NoQuery.parse(request)
        actions.take_back(post_id=_key(post_id), user=self.me(request), reaction=self.reaction)
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


class CommentsView(APIView):
    """What is said about a post."""

    reads_replica = True
    parser_classes = [OrjsonParser]
    get_permissions = PostView.get_permissions

    @extend_schema(
        operation_id="comments_list",
        summary="List the comments on a post",
        description="Newest first.",
        tags=["comments"],
        parameters=[_POST_ID, serializers.PageQuery],
        responses={200: serializers.CommentPageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.COMMENT_PAGE, response_only=True)],
    )
    def get(self, request, post_id: int) -> HttpResponse:
        params = serializers.PageQuery.parse(request)
        kind = f"comments:{post_id}"
        found = queries.comments(
            post_id=_key(post_id),
            viewer_id=ReaderView.viewer_id(self, request),
            limit=params["limit"],
            before=_place(params, kind),
        )
        if found is None:
            raise _no("post")
        return _private(request, _rows(*found, kind))

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
        serializers.NoQuery.parse(request)
        with idempotent(request, "comments") as once:
            if once.replay:
                return once.replay
            given = _body(request)
            _known(given, serializers.CommentBody)
            me = MemberView.me(self, request)
            with transaction.atomic(), _refusals():
                made = actions.comment(post_id=_key(post_id), author=me, text=given.get("text", ""))
                answer = Response(
                    _comment(made, me), status=201, headers={"Cache-Control": "no-store"}
                )
                return once.store(answer)


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
        serializers.NoQuery.parse(request)
        given = _body(request)
        _known(given, serializers.CommentBody)
        me = self.me(request)
        with _refusals():
            changed = actions.edit_comment(
                comment_id=_key(comment_id), author=me, text=given.get("text", "")
            )
        return _private(request, _comment(changed, me))

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
        serializers.NoQuery.parse(request)
        with _refusals():
            actions.delete_comment(comment_id=_key(comment_id), user=self.me(request))
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
                viewer_id=self.viewer_id(request),
                kind=params.get("kind"),
                author_id=params.get("author"),
                limit=params["limit"],
            )
        return _private(request, {"results": found})


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
        serializers.NoQuery.parse(request)
        found = shown.person(_person(person_id), self.viewer_id(request))
        if found is None:
            raise _no("person")
        return _private(request, found)


class PersonPostsView(ReaderView):
    """What somebody posted."""

    @extend_schema(
        operation_id="people_posts",
        summary="List a person's posts",
        description="Those that you may see, newest first.",
        tags=["people"],
        parameters=[_PERSON_ID, serializers.PageQuery],
        responses={200: serializers.PostPageSerializer, **problems.responses(400, 404)},
        examples=[OpenApiExample("A page", examples.PAGE, response_only=True)],
    )
    def get(self, request, person_id: int) -> HttpResponse:
        params = serializers.PageQuery.parse(request)
        kind = f"posts:{person_id}"
        page = queries.posts_of(
            person_id=_person(person_id),
            viewer_id=self.viewer_id(request),
            limit=params["limit"],
            after=_position(params, kind),
        )
        if page is None:
            raise _no("person")
        return _private(request, _page(page, kind))


class _PeopleView(ReaderView):
    which: str

    def answer(self, request, person_id: int) -> HttpResponse:
        params = serializers.PageQuery.parse(request)
        kind = f"{self.which}:{person_id}"
        found = queries.people(
            which=self.which,
            person_id=_person(person_id),
            viewer_id=self.viewer_id(request),
            limit=params["limit"],
            after=_place(params, kind) or 0,
        )
        if found is None:
            raise _no("person")
        return _private(request, _rows(*found, kind))


class FollowersView(_PeopleView):
    """Who follows somebody."""

    which = "followers_of"

    @extend_schema(
        operation_id="people_followers",
        summary="List who follows a person",
        tags=["people"],
        parameters=[_PERSON_ID, serializers.PageQuery],
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
        parameters=[_PERSON_ID, serializers.PageQuery],
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
        serializers.NoQuery.parse(request)
        with _refusals():
            act(user=self.me(request), target_id=_person(person_id))
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
        serializers.NoQuery.parse(request)
        me = self.me(request)
        return _private(request, shown.person(me.pk, me.pk))

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
        serializers.NoQuery.parse(request)
        changes = _body(request)
        _known(changes, serializers.ProfileChanges)
        with _refusals():
            me = actions.edit_profile(user=request.user, **changes)
        return _private(request, shown.person(me.pk, me.pk))


@contextmanager
def _refusals() -> Iterator[None]:
    """What actions raise, as problems."""
    try:
        yield
    except actions.Invalid as error:
        raise invalid_fields(
            {"name": name, "reason": reason} for name, reason in error.errors.items()
        ) from error
    except actions.Missing as error:
        raise _no(str(error)) from error
    except actions.Forbidden as error:
        raise Problem(403, detail=str(error)) from error


def _no(what: str) -> Problem:
    return Problem(404, detail=f"There is no such {what} for you.")


def _body(request) -> dict[str, Any]:
    if not isinstance(request.data, dict):
        raise invalid_fields([{"name": "body", "reason": "Must be a JSON object."}])
    if not request.data:
        raise invalid_fields([{"name": "body", "reason": "Names nothing."}])
    return dict(request.data)


def _known(given: dict[str, Any], body: type) -> None:
    known = body().fields
    unknown = [name for name in given if name not in known]
    if unknown:
        raise invalid_fields(
            {
                "name": "".join(c for c in name if c.isprintable())[:100] or "(no name)",
                "reason": "Is not a field here.",
            }
            for name in unknown[:20]
        )


def _key(post_id: int) -> int:
    if post_id > MAX_ID:
        raise _no("post")
    return post_id


def _person(person_id: int) -> int:
    if person_id > MAX_PERSON:
        raise _no("person")
    return person_id


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


def _private(request, data: Any) -> HttpResponse:
    return caching.respond_private(request, dumps(data))


def _position(params: dict[str, Any], kind: str) -> timeline.Position | None:
    if "cursor" not in params:
        return None
    at, last_id = decode_cursor(params["cursor"], (datetime, int), kind=kind)
    return at, last_id


def _place(params: dict[str, Any], kind: str) -> int | None:
    if "cursor" not in params:
        return None
    return decode_cursor(params["cursor"], (int,), kind=kind)[0]


def _page(page: timeline.Page, kind: str) -> dict[str, Any]:
    after = None if page.after is None else encode_cursor(*page.after, kind=kind)
    return {"next_cursor": after, "results": page.posts}


def _rows(rows: list[dict[str, Any]], last: int | None, kind: str) -> dict[str, Any]:
    return {
        "next_cursor": None if last is None else encode_cursor(last, kind=kind),
        "results": rows,
    }
