"""Staff screens of discovery: sources with their window, venues, drops, watches, deliveries."""

from discovery.admin import sources, venues, watches

__all__ = ["sources", "venues", "watches"]
