"""Feeds over HTTP: what people do takes effect on the next read, everywhere, for everybody."""

import pytest

from feeds import actions, fanout, indexing
from feeds.models import Comment, Like, Post
from tests.people import Person

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(db) -> Person:
    return member("ann")


@pytest.fixture
def bob(db) -> Person:
    return member("bob")


def member(name: str) -> Person:
    person = Person(name, ["feeds"])
    person.profile = actions.ensure_profile(person.user)
    return person


@pytest.fixture
def anybody(client):
    """Somebody without a token."""
    return lambda path: client.get(f"/api/v1/{path}")


def say(person: Person, text: str = "Hello there", **fields) -> dict:
    made = person.send("posts", {"text": text} | fields)
    assert made.status_code == 201, made.content
    return made.json()


def feed(person: Person) -> list[int]:
    answer = person.read("feed")
    assert answer.status_code == 200, answer.content
    return [post["id"] for post in answer.json()["results"]]


def do(person: Person, path: str, method: str = "PUT"):
    answer = person.send(path, method=method)
    assert answer.status_code == 204, answer.content


def test_a_post_comes_to_those_who_follow(ann, bob):
    do(ann, f"people/{bob.user.pk}/follow")
    post = say(bob)
    assert post["author"] == {"id": bob.user.pk, "handle": "bob", "display_name": ""}
    assert feed(ann) == feed(bob) == [post["id"]]
    fanout.drain()
    assert feed(ann) == [post["id"]]
    shown = ann.read(f"posts/{post['id']}").json()
    assert shown == post


def test_reactions_are_counted_at_once_and_once(ann, bob, anybody):
    post = say(bob)
    for _ in range(2):
        do(ann, f"posts/{post['id']}/like")
        do(ann, f"posts/{post['id']}/share")
    said = ann.send(f"posts/{post['id']}/comments", {"text": "Nice"})
    assert said.status_code == 201
    shown = ann.read(f"posts/{post['id']}").json()
    assert (shown["likes_count"], shown["shares_count"], shown["comments_count"]) == (1, 1, 1)
    assert (shown["liked"], shown["shared"]) == (True, True)
    assert anybody(f"posts/{post['id']}").json()["liked"] is False
    for _ in range(2):
        do(ann, f"posts/{post['id']}/like", "DELETE")
        do(ann, f"posts/{post['id']}/share", "DELETE")
    do(bob, f"comments/{said.json()['id']}", "DELETE")  # the author of the post may, too
    shown = ann.read(f"posts/{post['id']}").json()
    assert (shown["likes_count"], shown["shares_count"], shown["comments_count"]) == (0, 0, 0)
    assert not shown["liked"]


def test_comments_page_and_change(ann, bob):
    post = say(bob)
    path = f"posts/{post['id']}/comments"
    ids = [ann.send(path, {"text": f"{n}"}).json()["id"] for n in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = bob.read(f"{path}?limit=2{cursor and '&cursor=' + cursor}").json()
        seen += [one["id"] for one in page["results"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]
    changed = ann.send(f"comments/{ids[0]}", {"text": "Other"}, method="PATCH").json()
    assert changed["text"] == "Other"
    assert changed["edited_at"]
    assert bob.send(f"comments/{ids[0]}", {"text": "x"}, method="PATCH").status_code == 404


def test_an_idempotency_key_posts_once(ann):
    first = ann.send("posts", {"text": "x"}, **{"Idempotency-Key": "k1"})
    again = ann.send("posts", {"text": "x"}, **{"Idempotency-Key": "k1"})
    assert first.json() == again.json()
    assert Post.objects.count() == 1
    other = ann.send("posts", {"text": "y"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422


@pytest.mark.parametrize("how", ["unfollow", "mute", "block", "blocked", "delete", "private"])
def test_what_ends_a_view_ends_it_on_the_next_read(ann, bob, how):
    do(ann, f"people/{bob.user.pk}/follow")
    post = say(bob)
    fanout.drain()
    assert feed(ann) == [post["id"]]
    fanout.drain()
    match how:
        case "unfollow":
            do(ann, f"people/{bob.user.pk}/follow", "DELETE")
        case "mute" | "block":
            do(ann, f"people/{bob.user.pk}/{how}")
        case "blocked":
            do(bob, f"people/{ann.user.pk}/block")
        case "delete":
            do(bob, f"posts/{post['id']}", "DELETE")
        case "private":
            changed = bob.send(f"posts/{post['id']}", {"visibility": "private"}, method="PATCH")
            assert changed.status_code == 200
    assert feed(ann) == []
    seen = how in ("unfollow", "mute")
    assert ann.read(f"posts/{post['id']}").status_code == (200 if seen else 404)
    assert ann.send(f"posts/{post['id']}/like", method="PUT").status_code == (204 if seen else 404)


def test_who_may_see_what(ann, bob, anybody):
    for_followers = say(bob, visibility="followers")["id"]
    secret = say(bob, visibility="private")["id"]
    public = say(bob)["id"]

    def seen(read) -> set[int]:
        return {
            post
            for post in (for_followers, secret, public)
            if read(f"posts/{post}").status_code == 200
        }

    assert seen(bob.read) == {for_followers, secret, public}
    assert seen(ann.read) == seen(anybody) == {public}
    do(ann, f"people/{bob.user.pk}/follow")
    assert seen(ann.read) == {for_followers, public}
    assert feed(ann) == [public, for_followers]
    listed = ann.read(f"people/{bob.user.pk}/posts").json()["results"]
    assert [post["id"] for post in listed] == [public, for_followers]
    assert len(bob.read(f"people/{bob.user.pk}/posts").json()["results"]) == 3
    assert len(anybody(f"people/{bob.user.pk}/posts").json()["results"]) == 1
    # With the account private, only those who followed before see anything.
    assert bob.send("me/profile", {"is_private": True}, method="PATCH").status_code == 200
    assert seen(anybody) == set()
    assert anybody(f"people/{bob.user.pk}/posts").json()["results"] == []
    assert anybody(f"people/{bob.user.pk}/followers").status_code == 404
    assert seen(ann.read) == {for_followers, public}
    carl = member("carl")
    refused = carl.send(f"people/{bob.user.pk}/follow", method="PUT")
    assert refused.status_code == 403
    assert "private" in refused.json()["detail"]


def test_people_are_shown_with_exact_counts(ann, bob, anybody):
    do(ann, f"people/{bob.user.pk}/follow")
    say(bob)
    shown = ann.read(f"people/{bob.user.pk}").json()
    assert (shown["followers_count"], shown["following_count"], shown["posts_count"]) == (1, 0, 1)
    assert (shown["followed"], shown["follows_you"]) == (True, False)
    assert bob.read(f"people/{ann.user.pk}").json()["follows_you"] is True
    followers = anybody(f"people/{bob.user.pk}/followers").json()["results"]
    assert [one["handle"] for one in followers] == ["ann"]
    following = anybody(f"people/{ann.user.pk}/following").json()["results"]
    assert [one["handle"] for one in following] == ["bob"]
    do(bob, f"people/{ann.user.pk}/block")
    assert ann.read(f"people/{bob.user.pk}").status_code == 404
    assert bob.read(f"people/{ann.user.pk}").json()["blocked"] is True
    assert bob.read(f"people/{bob.user.pk}").json()["followers_count"] == 0


def test_profiles_change(ann, bob):
    changed = ann.send(
        "me/profile", {"handle": "anna.w", "display_name": "Anna", "bio": "Hi"}, method="PATCH"
    )
    assert changed.status_code == 200
    assert bob.read(f"people/{ann.user.pk}").json()["display_name"] == "Anna"
    taken = bob.send("me/profile", {"handle": "anna.w"}, method="PATCH")
    assert taken.json()["errors"] == [{"name": "handle", "reason": "Is taken."}]


def test_search_finds_by_words_spelling_and_meaning(ann, bob, anybody):
    bicycle = say(bob, "Somebody left an old bicycle at the harbour")["id"]
    apricots = say(bob, "Fresh apricots at the market this morning")["id"]
    hidden = say(bob, "A bicycle for my followers", visibility="followers")["id"]
    while indexing.index_next():
        pass

    def found(query: str) -> list[int]:
        answer = anybody(f"posts/search?q={query}")
        assert answer.status_code == 200, answer.content
        return [post["id"] for post in answer.json()["results"]]

    assert found("bicycle") == [bicycle]
    assert found("aprikots") == [apricots]
    assert found("fruit market")[0] == apricots
    assert hidden not in found("followers")
    assert found("@@@!!") == []
    hit = anybody("posts/search?q=bicycle").json()["results"][0]
    assert hit["score"] > 0
    assert hit["why"]["words"] > 0
    # What is deleted is not found, whether or not the index knows.
    do(bob, f"posts/{bicycle}", "DELETE")
    assert found("bicycle") == []
    do(bob, f"people/{ann.user.pk}/block")
    answer = ann.read("posts/search?q=apricots").json()["results"]
    assert answer == []


def test_search_prefers_what_people_like(ann, bob, anybody):
    plain = say(bob, "Coffee and a typewriter")["id"]
    liked = say(bob, "A typewriter and coffee")["id"]
    for number in range(8):
        do(member(f"fan-{number}"), f"posts/{liked}/like")
    while indexing.index_next():
        pass
    results = anybody("posts/search?q=typewriter coffee").json()["results"]
    assert [post["id"] for post in results] == [liked, plain]


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("posts", {}, "body"),
        ("posts", [], "body"),
        ("posts", {"text": ""}, "text"),
        ("posts", {"text": "   "}, "text"),
        ("posts", {"text": 7}, "text"),
        ("posts", {"text": "x" * 10_001}, "text"),
        ("posts", {"text": "a\x00b"}, "text"),
        ("posts", {"text": "x", "kind": "story"}, "kind"),
        ("posts", {"text": "x", "kind": []}, "kind"),
        ("posts", {"text": "x", "visibility": "friends"}, "visibility"),
        ("posts", {"text": "x", "media": "https://example.org/a.jpg"}, "media"),
        ("posts", {"text": "x", "media": ["javascript:alert(1)"]}, "media"),
        ("posts", {"text": "x", "media": ["https://example.org/a b"]}, "media"),
        ("posts", {"text": "x", "media": ["https://[x"]}, "media"),
        ("posts", {"text": "x", "media": ["https://example.org/"] * 21}, "media"),
        ("posts", {"text": "x", "created_at": "2020-01-01T00:00:00Z"}, "created_at"),
        ("posts", {"text": "x", "likes_count": 7}, "likes_count"),
        ("posts/1/comments", {"text": None}, "text"),
        ("posts/1/comments", {"text": "x" * 5_001}, "text"),
        ("posts/1/comments", {"other": "x"}, "other"),
    ],
)
def test_hostile_bodies_are_refused_by_name(ann, path, body, name):
    answer = ann.send(path, body)
    assert answer.status_code == 400, answer.content
    assert [error["name"] for error in answer.json()["errors"]] == [name]
    assert not Post.objects.exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", f"posts/{2**63}/like", 404),
        ("PUT", "posts/999999/like", 404),
        ("PUT", f"people/{2**31}/follow", 404),
        ("PUT", "people/999999/follow", 404),
        ("DELETE", "posts/999999/like", 204),
        ("DELETE", "people/999999/follow", 204),
        ("DELETE", "posts/999999", 404),
        ("DELETE", "comments/999999", 404),
    ],
)
def test_what_is_not_there(ann, method, path, status):
    assert ann.send(path, method=method).status_code == status


def test_a_comment_beyond_every_id_is_missing_as_a_comment(ann):
    for comment in (999_999, 2**63):
        answer = ann.send(f"comments/{comment}", method="DELETE")
        assert (answer.status_code, answer.json()["detail"]) == (
            404,
            "There is no such comment for you.",
        )


def test_nobody_follows_mutes_or_blocks_themselves(ann):
    for how in ("follow", "mute", "block"):
        answer = ann.send(f"people/{ann.user.pk}/{how}", method="PUT")
        assert answer.status_code == 400
        assert answer.json()["errors"] == [{"name": "person", "reason": "Is yourself."}]


def test_one_may_not_follow_without_end(ann, bob, settings):
    settings.FEEDS_FOLLOWING_LIMIT = 0
    answer = ann.send(f"people/{bob.user.pk}/follow", method="PUT")
    assert answer.status_code == 400
    assert "the most" in answer.json()["errors"][0]["reason"]


def test_only_ones_own(ann, bob):
    post = say(bob)
    assert ann.send(f"posts/{post['id']}", {"text": "x"}, method="PATCH").status_code == 404
    assert ann.send(f"posts/{post['id']}", method="DELETE").status_code == 404
    said = bob.send(f"posts/{post['id']}/comments", {"text": "x"}).json()["id"]
    assert ann.send(f"comments/{said}", method="DELETE").status_code == 404
    assert Comment.objects.get(pk=said).is_deleted is False


def test_tokens_need_the_scope(bob, anybody):
    stranger = Person("carl", ["items"])
    for path in ("feed", "me/profile"):
        assert stranger.read(path).status_code == 403
        assert anybody(path).status_code == 401
    post = say(bob)
    assert stranger.send(f"posts/{post['id']}/like", method="PUT").status_code == 403
    assert stranger.send("posts", {"text": "x"}).status_code == 403
    assert not Like.objects.exists()


def test_cursors_of_others_are_refused(ann, bob):
    for number in range(3):
        say(ann, f"{number}")
    cursor = ann.read("feed?limit=1").json()["next_cursor"]
    assert cursor
    other = ann.read(f"people/{ann.user.pk}/posts?cursor={cursor}")
    assert other.status_code == 400
    assert ann.read("feed?cursor=x").status_code == 400
    assert ann.read("feed?limit=0").status_code == 400


def test_a_feed_that_has_not_changed_is_not_sent_again(ann):
    say(ann)
    first = ann.read("feed")
    again = ann.read("feed", **{"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_a_user_who_goes_takes_everything_along(ann, bob):
    do(ann, f"people/{bob.user.pk}/follow")
    post = say(bob)
    do(ann, f"posts/{post['id']}/like")
    actions.delete_account(user_id=ann.user.pk)
    shown = bob.read(f"posts/{post['id']}").json()
    assert shown["likes_count"] == 0
    assert bob.read("me/profile").json()["followers_count"] == 0


def test_lists_of_people_leave_out_who_has_blocked(ann, bob):
    carl = member("carl")
    for person in (ann, carl):
        do(person, f"people/{bob.user.pk}/follow")
    do(carl, f"people/{ann.user.pk}/block")
    followers = ann.read(f"people/{bob.user.pk}/followers").json()["results"]
    assert [one["handle"] for one in followers] == ["ann"]


def test_a_taken_handle_locks_nobody_out(ann):
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.create_user("\u65e5\u672c")
    taken = ann.send("me/profile", {"handle": f"user-{user.pk}"}, method="PATCH")
    assert taken.status_code == 200
    assert actions.ensure_profile(user).handle.startswith(f"user-{user.pk}-")


def test_an_old_post_that_becomes_public_hides_no_newer_one(ann, bob, settings):
    from datetime import UTC, datetime

    from feeds.models import Profile

    do(ann, f"people/{bob.user.pk}/follow")
    feed(ann)
    fanout.drain()
    Profile.objects.filter(pk=bob.user.pk).update(is_pulled=True)
    author = Profile.objects.get(pk=bob.user.pk)
    old = actions.create_post(
        author=author, text="old", visibility="private", created_at=datetime(2020, 1, 1, tzinfo=UTC)
    )
    new = actions.create_post(author=author, text="new")
    actions.edit_post(post_id=old.pk, author=author, visibility="public")
    assert feed(ann) == [new.pk, old.pk]


def test_a_post_of_the_far_future_breaks_no_search(ann):
    from datetime import UTC, datetime

    from feeds.models import Profile

    author = Profile.objects.get(pk=ann.user.pk)
    later = datetime(2150, 1, 1, tzinfo=UTC)
    post = actions.create_post(author=author, text="zeppelin", created_at=later)
    while indexing.index_next():
        pass
    assert [hit["id"] for hit in ann.read("posts/search?q=zeppelin").json()["results"]] == [post.pk]


def test_what_is_blocked_may_not_be_spoken_to_by_an_old_comment(ann, bob):
    post = say(ann)
    said = bob.send(f"posts/{post['id']}/comments", {"text": "x"}).json()["id"]
    do(ann, f"people/{bob.user.pk}/block")
    assert bob.send(f"comments/{said}", {"text": "y"}, method="PATCH").status_code == 404
    assert bob.send(f"comments/{said}", method="DELETE").status_code == 204


def test_lines_of_windows_and_forged_cursors(ann):
    from config.pagination import encode_cursor

    assert say(ann, "one\r\ntwo")["text"] == "one\r\ntwo"
    from datetime import UTC, datetime

    cursor = encode_cursor(datetime(1, 1, 1, tzinfo=UTC), -(2**63), kind=f"posts:{ann.user.pk}")
    assert ann.read(f"people/{ann.user.pk}/posts?cursor={cursor}").status_code == 400
