"""Addresses of feeds under /api/v1/."""

from django.urls import path

from feeds.api import views

urlpatterns = [
    path("feed", views.FeedView.as_view(), name="feeds-feed"),
    path("posts", views.PostsView.as_view(), name="feeds-posts"),
    path("posts/search", views.SearchView.as_view(), name="feeds-search"),
    path("posts/<int:post_id>", views.PostView.as_view(), name="feeds-post"),
    path("posts/<int:post_id>/like", views.LikeView.as_view(), name="feeds-like"),
    path("posts/<int:post_id>/share", views.ShareView.as_view(), name="feeds-share"),
    path("posts/<int:post_id>/comments", views.CommentsView.as_view(), name="feeds-comments"),
    path("comments/<int:comment_id>", views.CommentView.as_view(), name="feeds-comment"),
    path("people/<int:person_id>", views.PersonView.as_view(), name="feeds-person"),
    path("people/<int:person_id>/posts", views.PersonPostsView.as_view(), name="feeds-their-posts"),
    path("people/<int:person_id>/followers", views.FollowersView.as_view(), name="feeds-followers"),
    path("people/<int:person_id>/following", views.FollowingView.as_view(), name="feeds-following"),
    path("people/<int:person_id>/follow", views.FollowView.as_view(), name="feeds-follow"),
    path("people/<int:person_id>/mute", views.MuteView.as_view(), name="feeds-mute"),
    path("people/<int:person_id>/block", views.BlockView.as_view(), name="feeds-block"),
    path("me/profile", views.ProfileView.as_view(), name="feeds-profile"),
]
