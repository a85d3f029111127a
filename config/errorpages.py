"""What error pages and mails of DEBUG may tell of the settings."""

import re

from django.views.debug import SafeExceptionReporterFilter


class Filter(SafeExceptionReporterFilter):
    """Django's, which hides passwords by their name; here some stand in URLs of servers, too."""

    hidden_settings = re.compile(
        SafeExceptionReporterFilter.hidden_settings.pattern + "|URL|LOCATION", re.IGNORECASE
    )
