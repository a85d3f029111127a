"""The staff screens of feeds and counters, as staff with and without permissions see them."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from counters import declared, queries
from counters.models import CounterState, DeadLetter, Delta
from feeds import actions, fanout, timeline
from feeds.models import Post
from tests.feeds.people import profile
from tests.people import staff

pytestmark = pytest.mark.django_db

LIKES = "posts.likes_count"


@pytest.fixture
def viewer():
    """Staff who may look, and do nothing."""
    looking = Permission.objects.filter(codename__startswith="view_")
    return staff(*looking.values_list("codename", flat=True))


def test_the_counters_screen_shows_and_switches(admin_client):
    actions.react(post_id=_post().pk, user=profile("bob"), reaction=actions.LIKE)
    Delta.objects.create(counter_key=declared.get(LIKES).key, target_id=1, delta=3)
    url = reverse("admin:counters_counterstate_changelist")
    page = admin_client.get(url).content.decode()
    assert "Likes of a post" in page
    assert "Views of a post" in page
    assert "not compared yet" in page
    switch = reverse("admin:counters_counterstate_switch", args=[LIKES, "deferred"])
    assert switch in page
    said = admin_client.post(switch, follow=True).content.decode()
    assert "is kept deferred" in said
    assert "COUNTERS_MODES=" in said
    assert CounterState.objects.get(name=LIKES).mode == "deferred"
    unknown = reverse("admin:counters_counterstate_switch", args=["x.y", "deferred"])
    assert admin_client.post(unknown).status_code == 404
    assert admin_client.get(switch).status_code == 405


def test_a_wrong_count_stands_out(admin_client):
    from counters.actions import compare

    post = _post()
    Post.objects.filter(pk=post.pk).update(likes_count=4)
    compare(counter=declared.get(LIKES))
    page = admin_client.get(reverse("admin:counters_counterstate_changelist")).content.decode()
    assert "1 wrong, by 4" in page


def test_who_may_only_look_switches_nothing(viewer):
    page = viewer.get(reverse("admin:counters_counterstate_changelist")).content.decode()
    assert "Likes of a post" in page
    switch = reverse("admin:counters_counterstate_switch", args=[LIKES, "deferred"])
    assert switch not in page
    assert viewer.post(switch).status_code == 403


def test_dead_letters_are_retried(admin_client):
    post = _post()
    good = f'[["8f6f3f0e-6c1d-4d52-9d3e-6f1f0a6b4c11","{_today()}","post_view",{post.pk}]]'
    DeadLetter.objects.create(entry="1-0", payload=good, reason="Nothing counted it then.")
    DeadLetter.objects.create(entry="2-0", payload="{", reason="Is no JSON")
    url = reverse("admin:counters_deadletter_changelist")
    assert "Nothing counted it then." in admin_client.get(url).content.decode()
    chosen = list(DeadLetter.objects.values_list("pk", flat=True))
    said = admin_client.post(
        url, {"action": "retry", "_selected_action": chosen}, follow=True
    ).content.decode()
    assert "Dead letters that are counted now: 1." in said
    assert "Dead as before, see the reason: 1." in said
    post.refresh_from_db()
    assert post.views_count == 1
    shown = reverse("admin:counters_deadletter_change", args=[DeadLetter.objects.get().pk])
    assert "Is no JSON" in admin_client.get(shown).content.decode()


def test_the_timelines_screen(admin_client, settings):
    settings.FEEDS_MODE = "push"
    ann, bob = profile("ann"), profile("bob")
    actions.follow(user=ann, target_id=bob.pk)
    timeline.read(viewer=ann, limit=1)
    fanout.drain()
    actions.create_post(author=bob, text="x")
    fanout.drain()
    waiting = actions.create_post(author=bob, text="y")
    page = admin_client.get(reverse("admin:feeds_feedstate_changelist")).content.decode()
    assert "Mode: push" in page
    assert "No feed worker gives a sign of life" in page
    assert reverse("admin:feeds_post_change", args=[waiting.pk]) in page
    assert "@bob" in page
    assert "Search index" in page


def test_posts_and_people_are_listed_found_and_taken_down(admin_client):
    post = _post()
    url = reverse("admin:feeds_post_changelist")
    assert "A post of Ann" in admin_client.get(url).content.decode()
    for term in (str(post.pk), "ann", "@ann"):
        assert "A post of Ann" in admin_client.get(url, {"q": term}).content.decode()
    assert "A post of Ann" not in admin_client.get(url, {"q": "x" * 100}).content.decode()
    assert admin_client.get(reverse("admin:feeds_post_change", args=[post.pk])).status_code == 200
    said = admin_client.post(
        url, {"action": "take_down", "_selected_action": [post.pk]}, follow=True
    ).content.decode()
    assert "Posts taken down: 1." in said
    post.refresh_from_db()
    assert post.is_deleted
    people = reverse("admin:feeds_profile_changelist")
    assert "@ann" in admin_client.get(people, {"q": "an"}).content.decode()
    ann = reverse("admin:feeds_profile_change", args=[post.author_id])
    assert admin_client.get(ann).status_code == 200


def test_who_may_only_look_takes_nothing_down(viewer):
    post = _post()
    url = reverse("admin:feeds_post_changelist")
    viewer.post(url, {"action": "take_down", "_selected_action": [post.pk]})
    post.refresh_from_db()
    assert not post.is_deleted


def test_the_screens_are_where_staff_look_for_them(admin_client):
    page = admin_client.get(reverse("admin:index")).content.decode()
    for name in ("feeds_feedstate", "feeds_post", "feeds_profile", "counters_counterstate"):
        assert reverse(f"admin:{name}_changelist") in page
    assert queries.dead_letters() == 0


def _post() -> Post:
    return actions.create_post(author=profile("ann"), text="A post of Ann")


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).date().isoformat()
