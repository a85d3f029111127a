"""Settings, all from the environment; `docs/operations.md` lists every variable.

With neither DATABASE_URL nor REDIS_URL, `manage.py` and `script/server` start embedded servers
(`config.embedded`) and set both variables before this module is imported. Production is what
has a DATABASE_URL of its own: there SECRET_KEY and ALLOWED_HOSTS have no default.
"""

from pathlib import Path

import environ
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.text import format_lazy

from config import limits

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()


def _between(name: str, default: int, least: int, most: int) -> int:
    """An integer with limits. Raises ImproperlyConfigured."""
    value = env.int(name, default=default)
    if not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be {least} to {most}, not {value}")
    return value


def _one_of(name: str, *allowed: str) -> str:
    """A word, the first of `allowed` by default. Raises ImproperlyConfigured."""
    value = env.str(name, default=allowed[0])
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


EMBEDDED = env.bool("SPYGLASS_EMBEDDED", default=False)
VAR_DIR = Path(env.str("SPYGLASS_VAR", default=str(BASE_DIR / "var")))
VERSION = "0.1.0"

# --- Identity and transport -------------------------------------------------------------------

SECRET_KEY = env.str("SECRET_KEY")
DEBUG = env.bool("DEBUG", default=False)
DEFAULT_EXCEPTION_REPORTER_FILTER = "config.errorpages.Filter"
ALLOWED_HOSTS = env.list(
    "ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if EMBEDDED else []
)
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# HTTPS=off is for a server on loopback; everything else sits behind TLS.
HTTPS = env.bool("HTTPS", default=not EMBEDDED)
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if env.bool("BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
NUM_PROXIES = env.int("NUM_PROXIES", default=0)

# Unfold's Alpine.js evaluates expressions in attributes; it is confined to the admin.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE, "'unsafe-eval'"],
        "style-src": [SELF, "'unsafe-inline'"],
        "img-src": [SELF, "data:", "https:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

DATA_UPLOAD_MAX_MEMORY_SIZE = env.int("REQUEST_MAX_BYTES", default=16 * 1024 * 1024)
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000

# --- Applications -----------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "django_prometheus",
    "pgtrigger",
    "config",
    "catalog",
    "matching",
    "discovery",
    "counters",
    "feeds",
]

MIDDLEWARE = [
    "config.accesslog.RequestIdMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.problems.GuardMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "config.audit.AuditMiddleware",
    "config.metrics.RequestMetricsMiddleware",
    "config.routing.ReplicaMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- PostgreSQL -------------------------------------------------------------------------------

# The role decides pool and timeouts: web pools connections, the worker forks and must not.
PROCESS_ROLE = env.str("PROCESS_ROLE", default="command")  # web | worker | command
# Where it leads through PgBouncer: the database roles of the processes, spyglass_web=web,…
DB_ROLES = env.dict("DB_ROLES", default={})

DATABASES = {"default": env.db("DATABASE_URL")}
DATABASES["default"].update(
    ENGINE="django.db.backends.postgresql",
    CONN_HEALTH_CHECKS=True,  # after a restart of PostgreSQL no request meets a dead connection
    CONN_MAX_AGE=0 if PROCESS_ROLE == "web" else 60,
    DISABLE_SERVER_SIDE_CURSORS=True,  # PgBouncer in transaction mode
)
_OPTIONS = DATABASES["default"].setdefault("OPTIONS", {})
if PROCESS_ROLE == "web":
    _OPTIONS["pool"] = {
        "min_size": 1,
        "max_size": env.int("DB_POOL_MAX", default=8),
        "timeout": 1.5,  # seconds until a 503 says that PostgreSQL is away
        # The pool tries again by itself for this long. By default for 5 minutes with growing
        # pauses, during which PostgreSQL may be back; given up, the next request tries at once.
        "reconnect_timeout": 0.5,
        "max_lifetime": 1800,
    }
# PgBouncer passes no start-up options on: with it the role has the limits (DB_ROLES). And a
# prepared statement stays with the server's session, which it hands to others.
PGBOUNCER = env.bool("PGBOUNCER", default=False)
if not PGBOUNCER:
    _OPTIONS["prepare_threshold"] = 1  # for the statements of config.prepared alone
    _OPTIONS["options"] = limits.startup_options(PROCESS_ROLE)

# A streaming standby for reads (config/routing.py), where there is one.
REPLICA_URL = env.str("REPLICA_URL", default="")
REPLICA_MAX_LAG_SECONDS = env.float("REPLICA_MAX_LAG_SECONDS", default=2.0)
if REPLICA_URL and PROCESS_ROLE == "web":
    _REPLICA = env.db_url("REPLICA_URL")
    _OURS = {
        name: _OPTIONS[name] for name in _OPTIONS.keys() - env.db("DATABASE_URL").get("OPTIONS", {})
    }
    DATABASES["replica"] = DATABASES["default"] | _REPLICA
    DATABASES["replica"] |= {
        "ENGINE": DATABASES["default"]["ENGINE"],
        "OPTIONS": _OURS
        | _REPLICA.get("OPTIONS", {})
        | {"connect_timeout": 2, "pool": _OURS["pool"] | {"timeout": 0.5}},
        "TEST": {"MIRROR": "default"},
    }

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Valkey -----------------------------------------------------------------------------------

REDIS_URL = env.str("REDIS_URL")
CACHES = {
    "default": {
        "BACKEND": "config.valkey.ResilientCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": env.str("CACHE_PREFIX", default="spyglass"),
        "OPTIONS": {
            "SERIALIZER": "config.valkey.PlainSerializer",
            "SOCKET_CONNECT_TIMEOUT": 0.25,
            "SOCKET_TIMEOUT": env.float("CACHE_TIMEOUT", default=0.25),  # seconds
        },
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"

# --- Queue ------------------------------------------------------------------------------------

Q_CLUSTER = {
    "name": "spyglass",
    "orm": "default",
    "workers": env.int("WORKER_PROCESSES", default=2),
    "timeout": 840,
    "retry": 1_000,  # > timeout + the longest wait in the queue
    "max_attempts": 3,
    "ack_failures": False,
    "catch_up": False,
    "bulk": 1,
    "queue_limit": 4,
    "save_limit": 250,
    "poll": 0.5,
    "recycle": 200,
    "label": "Task queue",
}

# --- API --------------------------------------------------------------------------------------

API_PUBLIC_READS = env.bool("API_PUBLIC_READS", default=True)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["config.tokens.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["config.tokens.PublicRead"],
    "DEFAULT_RENDERER_CLASSES": ["config.rendering.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["config.rendering.OrjsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "config.rendering.Negotiation",
    "DEFAULT_THROTTLE_CLASSES": [
        "config.throttles.AddressThrottle",
        "config.throttles.TokenThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "address": env.str("THROTTLE_ADDRESS", default="600/min"),
        "token": env.str("THROTTLE_TOKEN", default="1200/min"),
        # Failed log-ins: of an address, of a name by browsers that are unknown, of a known browser.
        "login_address": env.str("THROTTLE_LOGIN_ADDRESS", default="30/h"),
        "login_name": env.str("THROTTLE_LOGIN_NAME", default="20/h"),
        "login_browser": env.str("THROTTLE_LOGIN_BROWSER", default="10/h"),
        "watch_test": env.str("THROTTLE_WATCH_TEST", default="10/h"),  # of each person
    },
    "DEFAULT_SCHEMA_CLASS": "config.openapi.Schema",
    "EXCEPTION_HANDLER": "config.problems.exception_handler",
    "NUM_PROXIES": NUM_PROXIES,
    "UNAUTHENTICATED_USER": None,
}
KNOX_TOKEN_MODEL = "config.ApiToken"
# Else its migrations make the swapped-out table, whose foreign key stops TRUNCATE auth_user.
MIGRATION_MODULES = {"knox": None}
REST_KNOX = {
    "TOKEN_TTL": None,  # each token carries its own expiry
    "AUTH_HEADER_PREFIX": "Token",
    "TOKEN_MODEL": KNOX_TOKEN_MODEL,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Spyglass",
    "DESCRIPTION": "A self-hosted backend that finds things for people.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums"],
    # Fields of one name with other values, which the document must tell apart.
    "ENUM_NAME_OVERRIDES": {
        "ItemStatusEnum": "matching.api.serializers.ITEM_STATUSES",
        "MatchStateEnum": "matching.api.serializers.MATCH_STATES",
        "MatchJobStateEnum": "matching.api.serializers.JOB_STATES",
        "DropStateEnum": "discovery.api.serializers.STATES",
        "SourceStateEnum": "discovery.api.serializers.SOURCE_STATES",
        "PollOutcomeEnum": "discovery.api.serializers.OUTCOMES",
        "ItemKindEnum": "matching.api.serializers.KINDS",
        "PostKindEnum": "feeds.api.serializers.KINDS",
        "WatchNotificationStateEnum": "discovery.api.watch_serializers.NOTIFICATION_STATES",
    },
}

# --- Pages, files, time -----------------------------------------------------------------------

LOGIN_REDIRECT_URL = reverse_lazy("admin:index")
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # The embedded mode serves the files from where they lie: no collectstatic, so no manifest.
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if EMBEDDED
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = EMBEDDED
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True


def _screen(title: str, icon: str, app: str, model: str) -> dict:
    """A link of the admin's navigation, for those who may see the list behind it."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": lambda request: request.user.has_perm(f"{app}.view_{model}"),
    }


def _deliveries(title: str, state: str) -> dict:
    """A tab over the deliveries of discovery: those in one state, or all."""
    tab = _screen(title, "", "discovery", "usernotification")
    if state:
        tab["link"] = format_lazy("{}?state__exact={}", tab["link"], state)
    return tab | {"active": lambda request: request.GET.get("state__exact", "") == state}


UNFOLD = {
    "SITE_TITLE": "Spyglass",
    "SITE_HEADER": "Spyglass",
    "SITE_URL": reverse_lazy("api-docs"),
    "SITE_SYMBOL": "travel_explore",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("config/favicon.svg"),
        }
    ],
    "SHOW_HISTORY": True,
    "STYLES": [lambda request: static("config/staff.css")],
    "DASHBOARD_CALLBACK": "config.admin.dashboard.callback",
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Catalog",
                "items": [
                    _screen("Products", "sell", "catalog", "slugsummary"),
                    _screen("Outliers", "troubleshoot", "catalog", "outlier"),
                    _screen("Seller priority", "swap_vert", "catalog", "sellerpriority"),
                    _screen("Ingest runs", "upload_file", "catalog", "ingestrun"),
                ],
            },
            {
                "title": "Matching",
                "items": [
                    _screen("Items", "category", "matching", "item"),
                    _screen("Matches", "join_inner", "matching", "match"),
                    _screen("Match queue", "hourglass_top", "matching", "matchjob"),
                    _screen("Weights", "balance", "matching", "pairweights"),
                    _screen("Audit log", "history", "matching", "auditlog"),
                ],
            },
            {
                "title": "Discovery",
                "items": [
                    _screen("Sources", "sensors", "discovery", "source"),
                    _screen("Venues", "storefront", "discovery", "venue"),
                    _screen("Drops", "bolt", "discovery", "dropevent"),
                    _screen("Watches", "visibility", "discovery", "watch"),
                    _screen("Deliveries", "outgoing_mail", "discovery", "usernotification"),
                ],
            },
            {
                "title": "Feeds",
                "items": [
                    _screen("Timelines", "dynamic_feed", "feeds", "feedstate"),
                    _screen("Posts", "article", "feeds", "post"),
                    _screen("People", "group", "feeds", "profile"),
                    _screen("Counters", "tag", "counters", "counterstate"),
                    _screen("Dead letters", "unsubscribe", "counters", "deadletter"),
                ],
            },
            {
                "title": "Operations",
                "items": [
                    _screen("Jobs", "schedule", "config", "jobrun"),
                    _screen("Read models", "database", "config", "readmodelstate"),
                    _screen("Queue", "inbox", "django_q", "ormq"),
                    _screen("Tallies", "pin", "config", "tally"),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _screen("Staff actions", "history", "config", "staffaction"),
                    _screen("API tokens", "key", "config", "apitoken"),
                    _screen("Users", "person", "auth", "user"),
                    _screen("Groups", "group", "auth", "group"),
                ],
            },
        ],
    },
    "TABS": [
        {
            "models": ["config.jobrun", "config.lease", "config.heartbeat"],
            "items": [
                _screen("Runs", "", "config", "jobrun"),
                _screen("Leases", "", "config", "lease"),
                _screen("Signs of life", "", "config", "heartbeat"),
            ],
        },
        {
            "models": [
                "django_q.ormq",
                "django_q.schedule",
                "django_q.success",
                "django_q.failure",
            ],
            "items": [
                _screen("Waiting", "", "django_q", "ormq"),
                _screen("Schedules", "", "django_q", "schedule"),
                _screen("Done", "", "django_q", "success"),
                _screen("Failed", "", "django_q", "failure"),
            ],
        },
        {
            "models": ["discovery.usernotification"],
            "items": [
                _deliveries("All", ""),
                _deliveries("Waiting", "pending"),
                _deliveries("Dead letters", "dead"),
            ],
        },
    ],
}

# --- Observability ----------------------------------------------------------------------------

PROMETHEUS_EXPORT_MIGRATIONS = False
METRICS_PUBLIC = env.bool("METRICS_PUBLIC", default=False)  # else loopback or a token
LOG_FORMAT = env.str("LOG_FORMAT", default="text")  # or json
if LOG_FORMAT not in ("text", "json"):
    raise ImproperlyConfigured(f"LOG_FORMAT must be text or json, not {LOG_FORMAT!r}")
ACCESS_LOG = env.bool("ACCESS_LOG", default=LOG_FORMAT == "json")  # a line for each request
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {
            "()": "config.logs.TextFormatter",
            "fmt": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "config.logs.JsonFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="WARNING")},
    "loggers": {"spyglass": {"level": env.str("SPYGLASS_LOG_LEVEL", default="INFO")}},
}

# --- Jobs -------------------------------------------------------------------------------------

STAFF_ACTIONS_RETENTION_MONTHS = env.int("STAFF_ACTIONS_RETENTION_MONTHS", default=24)
EXPIRED_TOKENS_RETENTION_DAYS = env.int("EXPIRED_TOKENS_RETENTION_DAYS", default=30)
JOB_RUNS_RETENTION_DAYS = env.int("JOB_RUNS_RETENTION_DAYS", default=30)
WORKER_HEARTBEAT_STALE_SECONDS = env.int("WORKER_HEARTBEAT_STALE_SECONDS", default=180)

# --- Backup -----------------------------------------------------------------------------------

BACKUP_DIR = env.str("BACKUP_DIR", default="")  # an existing folder: the job `backup` fills it
BACKUP_KEEP = _between("BACKUP_KEEP", 7, 1, 10_000)  # the newest so many
POSTGRES_BIN = env.str("POSTGRES_BIN", default="")  # where pg_dump and pg_restore lie

# --- Archive ----------------------------------------------------------------------------------

# A directory or s3://bucket/prefix to which partitions past retention go; empty: they are dropped.
# Credentials come from the environment (AWS_ACCESS_KEY_ID …), where the S3 client finds them.
ARCHIVE_URL = env.str("ARCHIVE_URL", default="")
ARCHIVE_S3_ENDPOINT = env.str("ARCHIVE_S3_ENDPOINT", default="")  # of a store that is not AWS
if "@" in ARCHIVE_URL.partition("://")[2] or "@" in ARCHIVE_S3_ENDPOINT:
    raise ImproperlyConfigured("ARCHIVE_URL holds credentials: set AWS_ACCESS_KEY_ID instead")
if "://" in ARCHIVE_URL and not ARCHIVE_URL.startswith("s3://"):
    raise ImproperlyConfigured("ARCHIVE_URL must be a directory or s3://bucket/prefix")

# --- Catalog ----------------------------------------------------------------------------------

CATALOG_DEFAULT_CURRENCY = env.str("CATALOG_DEFAULT_CURRENCY", default="EUR")
CATALOG_SNAPSHOTS_RETENTION_MONTHS = env.int("CATALOG_SNAPSHOTS_RETENTION_MONTHS", default=0)
CATALOG_UPLOAD_MAX_BYTES = env.int("CATALOG_UPLOAD_MAX_BYTES", default=256 * 1024 * 1024)
CATALOG_INGEST_RUNS_RETENTION_DAYS = env.int("CATALOG_INGEST_RUNS_RETENTION_DAYS", default=180)

# --- Embeddings -------------------------------------------------------------------------------

EMBEDDER = env.str("EMBEDDER", default="wordllama")  # or "off", or a dotted path
# What EMBEDDER was, while another takes over: its vectors serve until the new ones are complete.
EMBEDDER_PREVIOUS = env.str("EMBEDDER_PREVIOUS", default="")

# --- Matching ---------------------------------------------------------------------------------

# How vectors are searched: auto (by what a filter leaves), exact (all are compared), off.
MATCHING_VECTOR = _one_of("MATCHING_VECTOR", "auto", "exact", "off")
MATCHING_MATCHES_RETENTION_MONTHS = env.int("MATCHING_MATCHES_RETENTION_MONTHS", default=24)
MATCHING_AUDIT_RETENTION_MONTHS = env.int("MATCHING_AUDIT_RETENTION_MONTHS", default=24)
MATCHING_DELETED_ITEMS_RETENTION_DAYS = env.int("MATCHING_DELETED_ITEMS_RETENTION_DAYS", default=30)
MATCHING_NOTIFICATIONS_RETENTION_DAYS = env.int("MATCHING_NOTIFICATIONS_RETENTION_DAYS", default=90)
# What everybody may search and list; the other kinds need a token. Resumes are personal.
MATCHING_PUBLIC_KINDS = env.list(
    "MATCHING_PUBLIC_KINDS", default=["lost", "found", "wanted", "offered", "job"]
)
MATCHING_PUBLIC_ITEMS = env.int("MATCHING_PUBLIC_ITEMS", default=500)  # of each kind, in Valkey
MATCHING_WORKERS = env.int("MATCHING_WORKERS", default=2)  # processes of one `manage.py worker`
MATCHING_JOBS_PER_OWNER = env.int("MATCHING_JOBS_PER_OWNER", default=20)  # open at once
MATCHING_QUEUE_LIMIT = env.int("MATCHING_QUEUE_LIMIT", default=1_000)  # waiting, of all owners
MATCHING_RESULTS = env.int("MATCHING_RESULTS", default=20)  # matches stored by one job, at most
MATCHING_SCORE_FLOOR = env.float("MATCHING_SCORE_FLOOR", default=0.02)  # below it: no match
MATCHING_RESULTS_HOURS = env.int("MATCHING_RESULTS_HOURS", default=24)  # until a task expires
MATCHING_JOBS_RETENTION_DAYS = env.int("MATCHING_JOBS_RETENTION_DAYS", default=7)  # after that
MATCHING_JOB_TIMEOUT_SECONDS = env.float("MATCHING_JOB_TIMEOUT_SECONDS", default=60)
MATCHING_RECALL_SAMPLE = env.float("MATCHING_RECALL_SAMPLE", default=0.01)  # of the match jobs
MATCHING_POLL_SECONDS = env.float("MATCHING_POLL_SECONDS", default=2)
# Where a match worker listens for new jobs: a connection to PostgreSQL itself. Behind PgBouncer in
# transaction mode there is none unless it is named here, and the worker polls.
MATCHING_LISTEN_URL = env.str(
    "MATCHING_LISTEN_URL",
    default="" if PGBOUNCER else env.str("DATABASE_URL"),
)

# --- Discovery --------------------------------------------------------------------------------

DISCOVERY_WINDOW_DAYS = env.int("DISCOVERY_WINDOW_DAYS", default=14)  # from today on
# The parts of a day, by the local time at which each begins.
DISCOVERY_TIME_SLOTS = env.list("DISCOVERY_TIME_SLOTS", default=["00:00", "15:00"])
DISCOVERY_SOURCES_LIMIT = env.int("DISCOVERY_SOURCES_LIMIT", default=200)  # polls make no more
DISCOVERY_SLOTS_PER_BUCKET = env.int("DISCOVERY_SLOTS_PER_BUCKET", default=2_000)
DISCOVERY_SLOTS_PER_POLL = env.int("DISCOVERY_SLOTS_PER_POLL", default=100_000)
DISCOVERY_CLOSE_AFTER_MISSES = env.int("DISCOVERY_CLOSE_AFTER_MISSES", default=2)  # polls in a row
DISCOVERY_COOLDOWN_SECONDS = env.int("DISCOVERY_COOLDOWN_SECONDS", default=600)
DISCOVERY_EMPTY_CONFIRMATIONS = env.int("DISCOVERY_EMPTY_CONFIRMATIONS", default=1)
DISCOVERY_OUTAGE_FAILURES = env.int("DISCOVERY_OUTAGE_FAILURES", default=3)  # in a row: frozen
# Hours of silence after which the buckets of a source count as frozen, too.
DISCOVERY_SILENCE_HOURS = env.float("DISCOVERY_SILENCE_HOURS", default=24)
DISCOVERY_NOTIFY_WITHIN_MINUTES = env.int("DISCOVERY_NOTIFY_WITHIN_MINUTES", default=60)
DISCOVERY_POLLERS = env.int("DISCOVERY_POLLERS", default=1)  # of one `manage.py worker`
DISCOVERY_NOTIFIERS = env.int("DISCOVERY_NOTIFIERS", default=1)
DISCOVERY_STREAMS_PER_PROCESS = env.int("DISCOVERY_STREAMS_PER_PROCESS", default=1)
# Caps of what is read: open drops that are looked at, what the feed cache keeps of each segment,
# drops in one answer.
STILL_OPEN_EVENTS_LIMIT = env.int("STILL_OPEN_EVENTS_LIMIT", default=10_000)
JUST_OPENED_MINUTES = env.int("JUST_OPENED_MINUTES", default=15)
FEED_JUST_OPENED_LIMIT = env.int("FEED_JUST_OPENED_LIMIT", default=500)
FEED_STILL_OPEN_LIMIT = env.int("FEED_STILL_OPEN_LIMIT", default=1_000)
FEED_BOARD_LIMIT = env.int("FEED_BOARD_LIMIT", default=100)
NEW_DROPS_LIMIT = env.int("NEW_DROPS_LIMIT", default=500)
DROP_EVENTS_RETENTION_DAYS = _between("DROP_EVENTS_RETENTION_DAYS", 14, 7, 30)
NOTIFICATIONS_RETENTION_DAYS = _between("NOTIFICATIONS_RETENTION_DAYS", 30, 7, 90)
DISCOVERY_VENUES_RETENTION_DAYS = env.int("DISCOVERY_VENUES_RETENTION_DAYS", default=30)
DISCOVERY_SCANS_RETENTION_DAYS = env.int("DISCOVERY_SCANS_RETENTION_DAYS", default=7)
# Hosts on private networks and loopback that polls and notifications may still be sent to.
OUTGOING_ALLOWED_HOSTS = env.list("OUTGOING_ALLOWED_HOSTS", default=[])
OUTGOING_TIMEOUT_SECONDS = env.float("OUTGOING_TIMEOUT_SECONDS", default=10)
DISCOVERY_SENDERS = env.int("DISCOVERY_SENDERS", default=4)  # messages a notifier sends at once
# The mail server (smtp+tls://user:password@host:587). Without it nobody is told by e-mail.
EMAIL_URL = env.str("EMAIL_URL", default="")
vars().update(env.email_url_config(EMAIL_URL or "smtp://localhost:25"))
EMAIL_TIMEOUT = OUTGOING_TIMEOUT_SECONDS
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Spyglass <spyglass@localhost>")

# --- Counters ---------------------------------------------------------------------------------

# How counts are kept: inline (added at once, unless somebody else writes to the same row) or
# deferred (added by the fold). COUNTERS_MODES names exceptions: posts.likes_count=deferred,…
COUNTERS_MODE = _one_of("COUNTERS_MODE", "inline", "deferred")
COUNTERS_MODES = env.dict("COUNTERS_MODES", default={})
if _odd := {*COUNTERS_MODES.values()} - {"inline", "deferred"}:
    raise ImproperlyConfigured(f"COUNTERS_MODES knows inline and deferred, not {min(_odd)!r}")
COUNTERS_WORKERS = env.int("COUNTERS_WORKERS", default=1)  # processes of one `manage.py worker`
COUNTERS_FOLD_SECONDS = env.float("COUNTERS_FOLD_SECONDS", default=1)
# Batches of events, of 500 at most, that may wait; beyond it events are refused with 503.
COUNTERS_STREAM_LIMIT = env.int("COUNTERS_STREAM_LIMIT", default=5_000)
COUNTERS_DEAD_LETTERS_DAYS = env.int("COUNTERS_DEAD_LETTERS_DAYS", default=30)

# --- Feeds ------------------------------------------------------------------------------------

# How posts come to those who follow: pull (looked up when read), push (delivered when posted),
# hybrid (delivered, but for authors with many followers and readers who are idle).
FEEDS_MODE = _one_of("FEEDS_MODE", "hybrid", "push", "pull")
FEEDS_CAP = env.int("FEEDS_CAP", default=1_000)  # posts that a kept timeline holds at least
FEEDS_PULL_FOLLOWERS = env.int("FEEDS_PULL_FOLLOWERS", default=20_000)  # of an author who is pulled
# From so many followers on, an author is pulled as well whose posts would be written more often a
# day than the followers read.
FEEDS_PULL_CONSIDERED = env.int("FEEDS_PULL_CONSIDERED", default=2_000)
FEEDS_IDLE_DAYS = env.int("FEEDS_IDLE_DAYS", default=14)  # without reading: the timeline is dropped
FEEDS_WORKERS = env.int("FEEDS_WORKERS", default=1)  # processes of one `manage.py worker`
FEEDS_CACHE_SECONDS = env.int("FEEDS_CACHE_SECONDS", default=60)  # of computed timelines
FEEDS_FOLLOWING_LIMIT = env.int("FEEDS_FOLLOWING_LIMIT", default=10_000)  # whom one may follow
FEEDS_SEARCH_BACKEND = env.str("FEEDS_SEARCH_BACKEND", default="feeds.search.PostgresBackend")
# Where a feed worker listens for new posts; see MATCHING_LISTEN_URL.
FEEDS_LISTEN_URL = env.str("FEEDS_LISTEN_URL", default=MATCHING_LISTEN_URL)
