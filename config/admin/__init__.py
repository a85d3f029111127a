"""The staff screens of what all domains share; `base` is what every domain's screens build on."""

from django.contrib import admin

from config.admin import access, operations, queue, vitals

__all__ = ["access", "operations", "queue", "vitals"]

admin.site.index_template = "config/index.html"
