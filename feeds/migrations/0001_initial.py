"""The tables of feeds, and the triggers of their counters and of the search index.

The SQL files are what runs on the database; the model operations beside them tell Django's state.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("config", "0003_generations"),
        ("counters", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.RunSQL(ddl("feeds", "0001_posts.sql")),
        migrations.RunSQL(ddl("feeds", "0002_timelines.sql")),
        migrations.RunSQL(
            ddl("feeds", "0003_search.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="Document",
                    fields=[
                        ("post_id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("version", models.BigIntegerField()),
                        ("is_gone", models.BooleanField(default=False)),
                        ("author_id", models.IntegerField()),
                        ("kind", models.TextField()),
                        ("text", models.TextField()),
                        ("created_at", models.DateTimeField()),
                        (
                            "indexed_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "post_documents",
                    },
                ),
                migrations.CreateModel(
                    name="Post",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "kind",
                            models.TextField(
                                choices=[("post", "Post"), ("reel", "Reel")], default="post"
                            ),
                        ),
                        ("text", models.TextField(blank=True)),
                        ("media", models.JSONField(blank=True, default=list)),
                        (
                            "visibility",
                            models.TextField(
                                choices=[
                                    ("public", "Public"),
                                    ("followers", "Followers"),
                                    ("private", "Private"),
                                ],
                                default="public",
                            ),
                        ),
                        (
                            "delivery",
                            models.TextField(
                                choices=[("push", "Push"), ("pull", "Pull")], default="push"
                            ),
                        ),
                        ("is_deleted", models.BooleanField(default=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("edited_at", models.DateTimeField(null=True)),
                        ("likes_count", models.BigIntegerField(default=0)),
                        ("comments_count", models.BigIntegerField(default=0)),
                        ("shares_count", models.BigIntegerField(default=0)),
                        ("views_count", models.BigIntegerField(default=0)),
                        ("impressions_count", models.BigIntegerField(default=0)),
                    ],
                    options={
                        "db_table": "posts",
                    },
                ),
                migrations.CreateModel(
                    name="Profile",
                    fields=[
                        (
                            "user",
                            models.OneToOneField(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="profile",
                                serialize=False,
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                        ("handle", models.TextField(unique=True)),
                        ("display_name", models.TextField(blank=True)),
                        ("bio", models.TextField(blank=True)),
                        ("is_private", models.BooleanField(default=False)),
                        ("is_pulled", models.BooleanField(default=False)),
                        ("timeline_version", models.BigIntegerField(default=0)),
                        ("followers_count", models.BigIntegerField(default=0)),
                        ("following_count", models.BigIntegerField(default=0)),
                        ("posts_count", models.BigIntegerField(default=0)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "person",
                        "verbose_name_plural": "people",
                        "db_table": "profiles",
                    },
                ),
                migrations.CreateModel(
                    name="Fill",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "follower_id",
                                "followee_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("follower_id", models.IntegerField()),
                        ("followee_id", models.IntegerField()),
                    ],
                    options={
                        "db_table": "feed_fills",
                    },
                ),
                migrations.CreateModel(
                    name="Follow",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "follower_id",
                                "followee_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("is_filled", models.BooleanField(default=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "follows",
                    },
                ),
                migrations.CreateModel(
                    name="Like",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "post_id",
                                "user_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "likes",
                    },
                ),
                migrations.CreateModel(
                    name="Mute",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "user_id",
                                "target_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "mutes",
                    },
                ),
                migrations.CreateModel(
                    name="PostEvent",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("post_id", models.BigIntegerField(null=True)),
                        ("author_id", models.IntegerField(null=True)),
                        ("kind", models.TextField()),
                        (
                            "at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "post_events",
                    },
                ),
                migrations.CreateModel(
                    name="Share",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "post_id",
                                "user_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "shares",
                    },
                ),
                migrations.CreateModel(
                    name="UserFeed",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "user_id",
                                "inserted_at",
                                "post_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("inserted_at", models.DateTimeField()),
                    ],
                    options={
                        "db_table": "user_feeds",
                    },
                ),
                migrations.CreateModel(
                    name="Fanout",
                    fields=[
                        (
                            "post",
                            models.OneToOneField(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="+",
                                serialize=False,
                                to="feeds.post",
                            ),
                        ),
                        ("created_at", models.DateTimeField()),
                        (
                            "queued_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("tier", models.SmallIntegerField(default=0)),
                        ("after_id", models.IntegerField(default=0)),
                        ("delivered", models.BigIntegerField(default=0)),
                        ("attempts", models.IntegerField(default=0)),
                        (
                            "due_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("error", models.TextField(blank=True)),
                    ],
                    options={
                        "verbose_name": "fan-out",
                        "db_table": "feed_fanouts",
                    },
                ),
                migrations.CreateModel(
                    name="FeedState",
                    fields=[
                        (
                            "user",
                            models.OneToOneField(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="+",
                                serialize=False,
                                to="feeds.profile",
                            ),
                        ),
                        ("floor_at", models.DateTimeField()),
                        ("floor_id", models.BigIntegerField(default=0)),
                        ("built_at", models.DateTimeField(null=True)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "last_read_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("visits", models.BigIntegerField(default=1)),
                    ],
                    options={
                        "verbose_name": "timeline",
                        "db_table": "feed_states",
                    },
                ),
                migrations.CreateModel(
                    name="PullAuthor",
                    fields=[
                        (
                            "author",
                            models.OneToOneField(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="+",
                                serialize=False,
                                to="feeds.profile",
                            ),
                        ),
                        ("newest_at", models.DateTimeField()),
                    ],
                    options={
                        "db_table": "pull_authors",
                    },
                ),
                migrations.AddField(
                    model_name="post",
                    name="author",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="posts",
                        to="feeds.profile",
                    ),
                ),
                migrations.CreateModel(
                    name="Comment",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("text", models.TextField()),
                        ("is_deleted", models.BooleanField(default=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("edited_at", models.DateTimeField(null=True)),
                        (
                            "post",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="comments",
                                to="feeds.post",
                            ),
                        ),
                        (
                            "author",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="feeds.profile",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "comments",
                    },
                ),
                migrations.CreateModel(
                    name="Block",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "user_id",
                                "target_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "target",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="feeds.profile",
                            ),
                        ),
                        (
                            "user",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="feeds.profile",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "blocks",
                    },
                ),
                migrations.AddField(
                    model_name="follow",
                    name="followee",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="follow",
                    name="follower",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="like",
                    name="post",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="likes",
                        to="feeds.post",
                    ),
                ),
                migrations.AddField(
                    model_name="like",
                    name="user",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="mute",
                    name="target",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="mute",
                    name="user",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="share",
                    name="post",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="shares",
                        to="feeds.post",
                    ),
                ),
                migrations.AddField(
                    model_name="share",
                    name="user",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="userfeed",
                    name="post",
                    field=models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.post",
                    ),
                ),
                migrations.AddField(
                    model_name="userfeed",
                    name="user",
                    field=models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
                migrations.AddField(
                    model_name="fanout",
                    name="author",
                    field=models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="feeds.profile",
                    ),
                ),
            ],
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="profile",
            trigger=pgtrigger.compiler.Trigger(
                name="feeds_log_profile_updates",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO post_events (author_id, kind)\n                    SELECT user_id, 'updated' FROM (\n                        SELECT user_id, handle, display_name, is_private FROM new_rows\n                        EXCEPT SELECT user_id, handle, display_name, is_private FROM old_rows\n                    ) AS changed;\n                    RETURN NULL;\n                ",
                    hash="387945c509b0752f8e0a68519cd8b6002be15ee6",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_feeds_log_profile_updates_c913d",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="profiles",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="profile",
            trigger=pgtrigger.compiler.Trigger(
                name="feeds_drop_timelines",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    DELETE FROM user_feeds AS u USING old_rows AS o WHERE u.user_id = o.user_id;\n                    RETURN NULL;\n                ",
                    hash="2838e7151a077243dd7d0f57d3d451437ae144f3",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_feeds_drop_timelines_a19e8",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="profiles",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="feeds_log_post_inserts",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO post_events (post_id, kind) SELECT id, 'created' FROM new_rows;\n                    RETURN NULL;\n                ",
                    hash="31778d3853f2aa469cd21564b7d2e5498b6350aa",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_feeds_log_post_inserts_62451",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="feeds_log_post_updates",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO post_events (post_id, kind)\n                    SELECT id, CASE WHEN is_deleted THEN 'deleted' ELSE 'updated' END FROM (\n                        SELECT id, is_deleted, author_id, kind, text, visibility,\n                            length(ltrim((likes_count + comments_count + shares_count + 1)\n                                ::bit(64)::text, '0'))\n                        FROM new_rows\n                        EXCEPT\n                        SELECT id, is_deleted, author_id, kind, text, visibility,\n                            length(ltrim((likes_count + comments_count + shares_count + 1)\n                                ::bit(64)::text, '0'))\n                        FROM old_rows\n                    ) AS changed;\n                    RETURN NULL;\n                ",
                    hash="5d0049e9c065ea1c566281a2f3b08f601efb4b31",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_feeds_log_post_updates_f9974",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="feeds_log_post_deletes",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO post_events (post_id, kind) SELECT id, 'deleted' FROM old_rows;\n                    RETURN NULL;\n                ",
                    hash="85b104efd9ba0752c91a562798e5c827ddc704e0",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_feeds_log_post_deletes_41af7",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_posts_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1222693733;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1222693733, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="4ca46fb8fe84058b8c03abf745988958a6b3fbe6",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_profiles_posts_count_insert_d37fc",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_posts_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1222693733;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1222693733, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL UNION ALL SELECT "author_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL UNION ALL SELECT "author_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="c35b8ae840c21c1e79906e65e526e4025c19648e",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_profiles_posts_count_update_0f3be",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_posts_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1222693733;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1222693733, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="8cc35e403ad0af41ccd19c9bdf7504741112a78d",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_profiles_posts_count_delete_1afde",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="posts",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="post",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_posts_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1222693733;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1222693733, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, -1 AS n FROM "posts" WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "author_id" AS id, -1 AS n FROM "posts" WHERE (NOT is_deleted) AND "author_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "posts_count" = t."posts_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."posts_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1222693733, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="6a3620d076bbc986fd1bfbb015e9a1011aa8a6b4",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_profiles_posts_count_truncate_e19fe",
                    table="posts",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="comment",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_comments_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1394251538;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1394251538, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="adde857eadd15558f3a12025e8b306b9afc07f62",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_posts_comments_count_insert_e2104",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="comments",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="comment",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_comments_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1394251538;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1394251538, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="8f972e89ef171f3878a1bbe974285d06a01752b8",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_posts_comments_count_update_07baa",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="comments",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="comment",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_comments_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1394251538;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1394251538, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="a746e2293f98042bad117c1866e3752e45d8ed44",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_posts_comments_count_delete_84ae9",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="comments",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="comment",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_comments_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1394251538;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1394251538, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "comments" WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "comments" WHERE (NOT is_deleted) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "comments_count" = t."comments_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."comments_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1394251538, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="719de26acc3ed9e163ad6a097e6c9c8db5da057d",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_posts_comments_count_truncate_ea419",
                    table="comments",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_followers_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -194210240;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -194210240, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="aff5ec767935cca312864d49380e3d2ca3b4abf1",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_profiles_followers_count_insert_621fe",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_followers_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -194210240;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -194210240, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "followee_id" IS NOT NULL UNION ALL SELECT "followee_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "followee_id" IS NOT NULL UNION ALL SELECT "followee_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="32e1da6cd69b16479043517f27048d048b8ed1c3",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_profiles_followers_count_update_5b399",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_followers_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -194210240;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -194210240, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="88960f5d22068aca54254c2af452ac2162f91a7f",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_profiles_followers_count_delete_b4361",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_followers_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -194210240;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -194210240, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, -1 AS n FROM "follows" WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "followee_id" AS id, -1 AS n FROM "follows" WHERE (TRUE) AND "followee_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "followers_count" = t."followers_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."followers_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -194210240, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="cd2a371dd8cad449f33d53c365c68b6346373dd6",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_profiles_followers_count_truncate_28869",
                    table="follows",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_following_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -1428293139;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -1428293139, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="7c9a6c6afd5e9e3f37c13cf7b788173463c6593a",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_profiles_following_count_insert_01527",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_following_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -1428293139;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -1428293139, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "follower_id" IS NOT NULL UNION ALL SELECT "follower_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "follower_id" IS NOT NULL UNION ALL SELECT "follower_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="6f97f42a2b70b83e110a03f08a910dff9b1bd985",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_profiles_following_count_update_750b7",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_following_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -1428293139;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -1428293139, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="ef7e4bddfb079d519b77fcbe626c21d75c0f6178",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_profiles_following_count_delete_ab52a",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="follows",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="follow",
            trigger=pgtrigger.compiler.Trigger(
                name="profiles_following_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = -1428293139;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT -1428293139, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, -1 AS n FROM "follows" WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "follower_id" AS id, -1 AS n FROM "follows" WHERE (TRUE) AND "follower_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."user_id" AS id\n    FROM "profiles" AS t JOIN change ON t."user_id" = change.id\n    ORDER BY t."user_id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "profiles" AS t SET "following_count" = t."following_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."user_id" = change.id AND t."following_count" + change.n >= 0\n    RETURNING t."user_id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT -1428293139, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "profiles" AS t WHERE t."user_id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="6bc1a3e1fe64a0f2b27646dbf9cb881222374e0c",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_profiles_following_count_truncate_6d202",
                    table="follows",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="like",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_likes_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1519261788;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1519261788, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="32cfd4583f27909d78bc9b9f29e50abdb191d24e",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_posts_likes_count_insert_f59af",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="likes",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="like",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_likes_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1519261788;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1519261788, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="c6a9ac94f86a67267b3a318348667efc3b48b6cb",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_posts_likes_count_update_5d6bd",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="likes",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="like",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_likes_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1519261788;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1519261788, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="ff3280f5f3a8a616a4bb6bba2b87912cd4b17693",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_posts_likes_count_delete_91961",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="likes",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="like",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_likes_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 1519261788;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 1519261788, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "likes" WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "likes" WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "likes_count" = t."likes_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."likes_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 1519261788, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="0f5d792985e0aad2e8ecd6992fb0f8d97ae2d284",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_posts_likes_count_truncate_dbd12",
                    table="likes",
                    when="BEFORE",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="share",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_shares_count_insert",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 471309169;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 471309169, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="8cc1ee0684ff697f696055843e3d631265e340d0",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_posts_shares_count_insert_36bdc",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="shares",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="share",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_shares_count_update",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 471309169;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 471309169, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, 1 AS n FROM new_rows WHERE (TRUE) AND "post_id" IS NOT NULL UNION ALL SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="8daafbe52ebc727a0d98681e08708c7a95cf056e",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_posts_shares_count_update_eccf0",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="shares",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="share",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_shares_count_delete",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 471309169;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 471309169, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM old_rows WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="11efe22447ef9695f4fa433c975e28d938b7087a",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_posts_shares_count_delete_da452",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="shares",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="share",
            trigger=pgtrigger.compiler.Trigger(
                name="posts_shares_count_truncate",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE ids bigint[]; numbers bigint[]; how text;",
                    func='\nSELECT mode INTO how FROM counter_states WHERE counter_key = 471309169;\nIF how = \'deferred\' THEN\n    INSERT INTO counter_deltas (counter_key, target_id, delta)\n    SELECT 471309169, id, n FROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "shares" WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\n    RETURN NULL;\nEND IF;\nSELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers\nFROM (SELECT id, sum(n) AS n FROM (SELECT "post_id" AS id, -1 AS n FROM "shares" WHERE (TRUE) AND "post_id" IS NOT NULL) AS one GROUP BY id HAVING sum(n) <> 0) AS change;\nIF cardinality(ids) <= 200 THEN\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest(ids, numbers) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id);\nELSIF ids IS NOT NULL THEN\n    EXECUTE $apply$\nWITH change AS MATERIALIZED (\n    SELECT id, n FROM unnest($1, $2) AS given (id, n)\n), free AS MATERIALIZED (\n    SELECT t."id" AS id\n    FROM "posts" AS t JOIN change ON t."id" = change.id\n    ORDER BY t."id"\n    FOR NO KEY UPDATE OF t SKIP LOCKED\n), done AS (\n    UPDATE "posts" AS t SET "shares_count" = t."shares_count" + change.n\n    FROM change JOIN free USING (id)\n    WHERE t."id" = change.id AND t."shares_count" + change.n >= 0\n    RETURNING t."id" AS id\n)\nINSERT INTO counter_deltas (counter_key, target_id, delta)\nSELECT 471309169, change.id, change.n FROM change\nWHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)\n    AND EXISTS (SELECT FROM "posts" AS t WHERE t."id" = change.id)$apply$ USING ids, numbers;\nEND IF;\nRETURN NULL;',
                    hash="d41ddb5d4c0e09a88131c0ccc02567e1e761889d",
                    level="STATEMENT",
                    operation="TRUNCATE",
                    pgid="pgtrigger_posts_shares_count_truncate_dbef1",
                    table="shares",
                    when="BEFORE",
                ),
            ),
        ),
    ]
