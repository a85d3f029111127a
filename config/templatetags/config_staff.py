"""Template tags of the staff screens."""

from django import template

register = template.Library()


@register.inclusion_tag("config/post_button.html", takes_context=True)
def post_button(context: dict, action: str, label: str, what: str = "", **fields) -> dict:
    """A button that posts to `action`; `what` tells it from its like to a screen reader."""
    return {
        "csrf_token": context.get("csrf_token", ""),
        "action": action,
        "label": label,
        "what": what,
        "fields": fields,
    }
