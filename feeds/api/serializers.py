"""What the endpoints of feeds take and give, for validation and for the OpenAPI document.

What posts, comments and profiles may hold is decided in `feeds.actions`. Answers are rendered from
plain data (`feeds.shown`), not through these serializers: tests hold the two together.
"""

from rest_framework import serializers

from config.params import LimitField, QuerySerializer
from feeds import actions
from feeds.models import Post

Q_LENGTH = 300
MAX_PERSON = 2**31 - 1  # of an integer
KINDS = Post.Kind.values
VISIBILITIES = Post.Visibility.values


class SearchQuery(QuerySerializer):
    """Parameters of GET posts/search."""

    q = serializers.CharField(max_length=Q_LENGTH, help_text="Words, as one would say them.")
    kind = serializers.ChoiceField(KINDS, required=False, help_text="Only of this kind.")
    author = serializers.IntegerField(
        required=False, min_value=1, max_value=MAX_PERSON, help_text="Only of this person."
    )
    limit = LimitField(most=50)


class AuthorSerializer(serializers.Serializer):
    """Somebody, shortly."""

    id = serializers.IntegerField()
    handle = serializers.CharField()
    display_name = serializers.CharField(allow_blank=True)


class PostSerializer(serializers.Serializer):
    """A post as the viewer sees it. Counts are exact."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(KINDS)
    author = AuthorSerializer()
    text = serializers.CharField(allow_blank=True)
    media = serializers.ListField(child=serializers.CharField())
    visibility = serializers.ChoiceField(VISIBILITIES)
    created_at = serializers.DateTimeField()
    edited_at = serializers.DateTimeField(allow_null=True)
    likes_count = serializers.IntegerField()
    comments_count = serializers.IntegerField()
    shares_count = serializers.IntegerField()
    views_count = serializers.IntegerField()
    liked = serializers.BooleanField(help_text="By you.")
    shared = serializers.BooleanField(help_text="By you.")


class PostPageSerializer(serializers.Serializer):
    """Posts, newest first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = PostSerializer(many=True)


class WhySerializer(serializers.Serializer):
    """What makes a hit one."""

    words = serializers.FloatField(help_text="Rank of its words; 0: it has them not.")
    spelling = serializers.FloatField(help_text="How much of it is spelt alike, 0 to 1.")
    meaning = serializers.FloatField(help_text="Cosine of its meaning and the query's.")


class PostHitSerializer(PostSerializer):
    """A post that was found."""

    score = serializers.FloatField()
    why = WhySerializer()


class PostHitsSerializer(serializers.Serializer):
    """The best hits, best first."""

    results = PostHitSerializer(many=True)


class PostBody(serializers.Serializer):
    """A new post: text, media or both."""

    kind = serializers.ChoiceField(KINDS, required=False, default=Post.Kind.POST)
    text = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=actions.TEXT_LENGTH
    )
    media = serializers.ListField(
        child=serializers.CharField(max_length=actions.URL_LENGTH),
        required=False,
        max_length=actions.MEDIA,
        help_text="http and https URLs.",
    )
    visibility = serializers.ChoiceField(
        VISIBILITIES, required=False, default=Post.Visibility.PUBLIC
    )


class PostChanges(serializers.Serializer):
    """What changes of a post."""

    text = serializers.CharField(required=False, allow_blank=True, max_length=actions.TEXT_LENGTH)
    media = serializers.ListField(
        child=serializers.CharField(max_length=actions.URL_LENGTH),
        required=False,
        max_length=actions.MEDIA,
    )
    visibility = serializers.ChoiceField(VISIBILITIES, required=False)


class CommentBody(serializers.Serializer):
    """What one says."""

    text = serializers.CharField(max_length=actions.COMMENT_LENGTH)


class CommentSerializer(serializers.Serializer):
    """What somebody said."""

    id = serializers.IntegerField()
    author = AuthorSerializer()
    text = serializers.CharField()
    created_at = serializers.DateTimeField()
    edited_at = serializers.DateTimeField(allow_null=True)


class CommentPageSerializer(serializers.Serializer):
    """Comments, newest first."""

    next_cursor = serializers.CharField(allow_null=True)
    results = CommentSerializer(many=True)


class PersonSerializer(AuthorSerializer):
    """Somebody, with exact counts and how one stands to them."""

    bio = serializers.CharField(allow_blank=True)
    is_private = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    followers_count = serializers.IntegerField()
    following_count = serializers.IntegerField()
    posts_count = serializers.IntegerField()
    followed = serializers.BooleanField(help_text="You follow them.")
    follows_you = serializers.BooleanField()
    muted = serializers.BooleanField(help_text="By you.")
    blocked = serializers.BooleanField(help_text="By you.")


class PeoplePageSerializer(serializers.Serializer):
    """People, by id."""

    next_cursor = serializers.CharField(allow_null=True)
    results = AuthorSerializer(many=True)


class ProfileChanges(serializers.Serializer):
    """What changes of one's profile."""

    handle = serializers.RegexField(r"^[a-z0-9][a-z0-9_.-]{0,49}$", required=False)
    display_name = serializers.CharField(
        required=False, allow_blank=True, max_length=actions.NAME_LENGTH
    )
    bio = serializers.CharField(required=False, allow_blank=True, max_length=actions.BIO_LENGTH)
    is_private = serializers.BooleanField(
        required=False, help_text="Only followers see your posts, and nobody new may follow."
    )
