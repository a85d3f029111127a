"""What is counted of posts and people."""

from counters.declared import Counter, StreamCounter
from feeds.models import Comment, Follow, Like, Post, Profile, Share

Counter("posts.likes_count", source=Like, target=Post, title="Likes of a post")
Counter("posts.shares_count", source=Share, target=Post, title="Shares of a post")
Counter(
    "posts.comments_count",
    source=Comment,
    target=Post,
    where="NOT is_deleted",
    title="Comments on a post",
)
Counter(
    "profiles.followers_count",
    source=Follow,
    target=Profile,
    key_field="followee",
    title="Followers of a person",
)
Counter(
    "profiles.following_count",
    source=Follow,
    target=Profile,
    key_field="follower",
    title="People whom a person follows",
)
Counter(
    "profiles.posts_count",
    source=Post,
    target=Profile,
    where="NOT is_deleted",
    title="Posts of a person",
)
StreamCounter("posts.views_count", event="post_view", target=Post, title="Views of a post")
StreamCounter(
    "posts.impressions_count",
    event="post_impression",
    target=Post,
    title="Impressions of a post",
)
