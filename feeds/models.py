"""The tables of feeds. Their columns, indexes and constraints are made by the files in `sql/`."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class Profile(models.Model):
    """A person as others see them. Made by `actions.ensure_profile`; goes with its user."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, primary_key=True, related_name="profile"
    )
    handle = models.TextField(unique=True)
    display_name = models.TextField(blank=True)
    bio = models.TextField(blank=True)
    is_private = models.BooleanField(default=False)
    is_pulled = models.BooleanField(default=False)
    timeline_version = models.BigIntegerField(default=0)
    followers_count = models.BigIntegerField(default=0)
    following_count = models.BigIntegerField(default=0)
    posts_count = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "profiles"
        verbose_name = "person"
        verbose_name_plural = "people"
        triggers = [
            # The index shows the author's names, and nothing of those who are private. EXCEPT, as
            # a join would keep the plan of its first use: nested loops, if that was one row.
            pgtrigger.Trigger(
                name="feeds_log_profile_updates",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Update,
                referencing=pgtrigger.Referencing(old="old_rows", new="new_rows"),
                func="""
                    INSERT INTO post_events (author_id, kind)
                    SELECT user_id, 'updated' FROM (
                        SELECT user_id, handle, display_name, is_private FROM new_rows
                        EXCEPT SELECT user_id, handle, display_name, is_private FROM old_rows
                    ) AS changed;
                    RETURN NULL;
                """,
            ),
            # user_feeds has no foreign keys.
            pgtrigger.Trigger(
                name="feeds_drop_timelines",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Delete,
                referencing=pgtrigger.Referencing(old="old_rows"),
                func="""
                    DELETE FROM user_feeds AS u USING old_rows AS o WHERE u.user_id = o.user_id;
                    RETURN NULL;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"@{self.handle}"


class Post(models.Model):
    """A post or a reel. Deleted softly by its author, for good with its author."""

    class Kind(models.TextChoices):
        POST = "post"
        REEL = "reel"

    class Visibility(models.TextChoices):
        PUBLIC = "public"
        FOLLOWERS = "followers"
        PRIVATE = "private"

    class Delivery(models.TextChoices):
        PUSH = "push"
        PULL = "pull"

    id = models.BigAutoField(primary_key=True)
    author = models.ForeignKey(Profile, models.DO_NOTHING, related_name="posts")
    kind = models.TextField(choices=Kind, default=Kind.POST)
    text = models.TextField(blank=True)
    media = models.JSONField(default=list, blank=True)
    visibility = models.TextField(choices=Visibility, default=Visibility.PUBLIC)
    delivery = models.TextField(choices=Delivery, default=Delivery.PUSH)
    is_deleted = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    edited_at = models.DateTimeField(null=True)
    likes_count = models.BigIntegerField(default=0)
    comments_count = models.BigIntegerField(default=0)
    shares_count = models.BigIntegerField(default=0)
    views_count = models.BigIntegerField(default=0)
    impressions_count = models.BigIntegerField(default=0)

    class Meta:
        db_table = "posts"
        triggers = [
            pgtrigger.Trigger(
                name="feeds_log_post_inserts",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Insert,
                referencing=pgtrigger.Referencing(new="new_rows"),
                func="""
                    INSERT INTO post_events (post_id, kind) SELECT id, 'created' FROM new_rows;
                    RETURN NULL;
                """,
            ),
            # Counts are worth a new version once they have doubled: ranking takes their logarithm.
            pgtrigger.Trigger(
                name="feeds_log_post_updates",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Update,
                referencing=pgtrigger.Referencing(old="old_rows", new="new_rows"),
                func="""
                    INSERT INTO post_events (post_id, kind)
                    SELECT id, CASE WHEN is_deleted THEN 'deleted' ELSE 'updated' END FROM (
                        SELECT id, is_deleted, author_id, kind, text, visibility,
                            length(ltrim((likes_count + comments_count + shares_count + 1)
                                ::bit(64)::text, '0'))
                        FROM new_rows
                        EXCEPT
                        SELECT id, is_deleted, author_id, kind, text, visibility,
                            length(ltrim((likes_count + comments_count + shares_count + 1)
                                ::bit(64)::text, '0'))
                        FROM old_rows
                    ) AS changed;
                    RETURN NULL;
                """,
            ),
            pgtrigger.Trigger(
                name="feeds_log_post_deletes",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Delete,
                referencing=pgtrigger.Referencing(old="old_rows"),
                func="""
                    INSERT INTO post_events (post_id, kind) SELECT id, 'deleted' FROM old_rows;
                    RETURN NULL;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class Like(models.Model):
    """Somebody likes a post."""

    pk = models.CompositePrimaryKey("post_id", "user_id")
    post = models.ForeignKey(Post, models.DO_NOTHING, related_name="likes")
    user = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "likes"

    def __str__(self) -> str:
        return f"{self.user_id} likes {self.post_id}"


class Share(models.Model):
    """Somebody has shared a post."""

    pk = models.CompositePrimaryKey("post_id", "user_id")
    post = models.ForeignKey(Post, models.DO_NOTHING, related_name="shares")
    user = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "shares"

    def __str__(self) -> str:
        return f"{self.user_id} shares {self.post_id}"


class Comment(models.Model):
    """What somebody says about a post. Deleted softly by its author."""

    id = models.BigAutoField(primary_key=True)
    post = models.ForeignKey(Post, models.DO_NOTHING, related_name="comments")
    author = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    text = models.TextField()
    is_deleted = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    edited_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "comments"

    def __str__(self) -> str:
        return f"comment {self.pk}"


class Follow(models.Model):
    """Who follows whom. `is_filled`: what was posted before is in the follower's timeline."""

    pk = models.CompositePrimaryKey("follower_id", "followee_id")
    follower = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    followee = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    is_filled = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "follows"

    def __str__(self) -> str:
        return f"{self.follower_id} follows {self.followee_id}"


class Mute(models.Model):
    """Whose posts somebody does not want to see, although they follow them."""

    pk = models.CompositePrimaryKey("user_id", "target_id")
    user = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    target = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "mutes"

    def __str__(self) -> str:
        return f"{self.user_id} mutes {self.target_id}"


class Block(models.Model):
    """Two who see nothing of each other, because the first wants it so."""

    pk = models.CompositePrimaryKey("user_id", "target_id")
    user = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    target = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "blocks"

    def __str__(self) -> str:
        return f"{self.user_id} blocks {self.target_id}"


class FeedState(models.Model):
    """That a person's timeline is kept, and from which post on. Dropped when they do not read.

    The floor is the oldest post that is sure to be there. `visits`: how often the person read,
    reads within ten minutes counted as one.
    """

    user = models.OneToOneField(Profile, models.DO_NOTHING, primary_key=True, related_name="+")
    floor_at = models.DateTimeField()
    floor_id = models.BigIntegerField(default=0)
    built_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    last_read_at = models.DateTimeField(db_default=Now())
    visits = models.BigIntegerField(default=1)

    class Meta:
        db_table = "feed_states"
        verbose_name = "timeline"

    def __str__(self) -> str:
        return f"timeline of {self.user_id}"


class UserFeed(models.Model):
    """A post in a timeline. Partitioned by hash of the person; capped per person."""

    pk = models.CompositePrimaryKey("user_id", "inserted_at", "post_id")
    user = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+", db_constraint=False)
    post = models.ForeignKey(Post, models.DO_NOTHING, related_name="+", db_constraint=False)
    inserted_at = models.DateTimeField()

    class Meta:
        db_table = "user_feeds"

    def __str__(self) -> str:
        return f"{self.post_id} for {self.user_id}"


class Fanout(models.Model):
    """A post whose delivery is under way. Goes with the last delivery."""

    post = models.OneToOneField(Post, models.DO_NOTHING, primary_key=True, related_name="+")
    author = models.ForeignKey(Profile, models.DO_NOTHING, related_name="+", db_constraint=False)
    created_at = models.DateTimeField()
    queued_at = models.DateTimeField(db_default=Now())
    tier = models.SmallIntegerField(default=0)
    after_id = models.IntegerField(default=0)
    delivered = models.BigIntegerField(default=0)
    attempts = models.IntegerField(default=0)
    due_at = models.DateTimeField(db_default=Now())
    error = models.TextField(blank=True)

    class Meta:
        db_table = "feed_fanouts"
        verbose_name = "fan-out"

    def __str__(self) -> str:
        return f"fan-out of {self.post_id}"


class Fill(models.Model):
    """A follow whose followee's older posts are to be put into the follower's timeline."""

    pk = models.CompositePrimaryKey("follower_id", "followee_id")
    follower_id = models.IntegerField()
    followee_id = models.IntegerField()

    class Meta:
        db_table = "feed_fills"

    def __str__(self) -> str:
        return f"fill {self.followee_id} for {self.follower_id}"


class PullAuthor(models.Model):
    """An author some of whose posts are looked up instead of delivered."""

    author = models.OneToOneField(Profile, models.DO_NOTHING, primary_key=True, related_name="+")
    newest_at = models.DateTimeField()

    class Meta:
        db_table = "pull_authors"

    def __str__(self) -> str:
        return f"pulled: {self.author_id}"


class Document(models.Model):
    """A post in the search index; `sql/0003_search.sql` has its columns for words and vector."""

    post_id = models.BigIntegerField(primary_key=True)
    version = models.BigIntegerField()
    is_gone = models.BooleanField(default=False)
    author_id = models.IntegerField()
    kind = models.TextField()
    text = models.TextField()
    created_at = models.DateTimeField()
    indexed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "post_documents"

    def __str__(self) -> str:
        return f"document {self.post_id}"


class PostEvent(models.Model):
    """What happened to a post, or to all of an author, that the search index does not know yet."""

    id = models.BigAutoField(primary_key=True)
    post_id = models.BigIntegerField(null=True)
    author_id = models.IntegerField(null=True)
    kind = models.TextField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "post_events"

    def __str__(self) -> str:
        return f"{self.kind} {self.post_id or self.author_id}"
