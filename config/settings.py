"""All settings, driven by the environment. `.env.example` lists every variable that is read here, and only here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONCE

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()
if (BASE_DIR / ".env").exists():
    env.read_env(str(BASE_DIR / ".env"))

DEBUG = env.bool("DEBUG", default=False)

# ── Where data lives ─────────────────────────────────────────────────────────────────────────────────────────────
DATA_DIR = Path(env.str("TOUCHSTONE_DATA", default=str(BASE_DIR / "var"))).resolve()
MODELS_DIR = DATA_DIR / "models"
JOBS_DIR = DATA_DIR / "jobs"
LOG_DIR = DATA_DIR / "log"
UPLOADS_DIR = DATA_DIR / "uploads"


def _socket_dir() -> Path:
    """The folder of the embedded servers' Unix sockets; a short one where the data folder's path is too deep.

    A Unix socket path holds about 107 bytes, and Postgres appends `/.s.PGSQL.5432`.
    """
    direct = DATA_DIR / "run"
    if len(str(direct)) <= 80:
        return direct
    digest = hashlib.sha256(str(DATA_DIR).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"touchstone-{os.getuid()}-{digest}"


SOCKET_DIR = _socket_dir()


def _secret_key() -> str:
    """DJANGO_SECRET_KEY, or one made on first need and kept in the data folder, readable by its owner only."""
    if given := env.str("DJANGO_SECRET_KEY", default=""):
        return given
    path = DATA_DIR / "secret_key"
    if not path.exists():
        DATA_DIR.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"secret_key.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):  # another process was first: its key stands
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# ── Applications ─────────────────────────────────────────────────────────────────────────────────────────────────
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "knox",
    "axes",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "annotation",
    "rlhf",
    "config",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.DatabaseDownMiddleware",
    "config.middleware.BrokenProtocolMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "annotation.accounts.AuthenticationMiddleware",
    "axes.middleware.AxesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    },
]

# ── Database: embedded unless DATABASE_URL says otherwise ────────────────────────────────────────────────────────
DATABASE_URL = env.str("DATABASE_URL", default="")
EMBEDDED_POSTGRES = not DATABASE_URL
DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url_config(DATABASE_URL)
    if DATABASE_URL
    else {
        "NAME": "touchstone",
        "USER": "app",
        "HOST": str(SOCKET_DIR),
    }
}
DATABASES["default"]["ENGINE"] = "config.postgres"
# A new connection plans the statements of the votes' path anew: votes come slowly, so keep it for many.
DATABASES["default"]["CONN_MAX_AGE"] = 3600
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# The statements of annotation/services/statements.py are prepared once a connection; the ORM's never are.
DATABASES["default"].setdefault("OPTIONS", {})["prepare_threshold"] = 0
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# ── Celery: only a dispatcher; Postgres holds the truth about jobs (docs/adr/0003) ───────────────────────────────
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="")
EMBEDDED_BROKER = not CELERY_BROKER_URL
if EMBEDDED_BROKER:
    CELERY_BROKER_URL = f"redis+socket://{SOCKET_DIR}/valkey.sock"
JOB_LEASE_SECONDS = env.int("TOUCHSTONE_JOB_LEASE_SECONDS", default=90)
JOB_HEARTBEAT_SECONDS = env.int("TOUCHSTONE_JOB_HEARTBEAT_SECONDS", default=15)
# Seconds to wait after the first, second, … failure of a job's machine; the last one holds for all that follow.
JOB_RETRY_PAUSES = env.list("TOUCHSTONE_JOB_RETRY_PAUSES", cast=float, default=[5.0, 30.0, 120.0])
# A training process that gives no sign of life for so long, and for 20 times its median step, is ended; before its
# first steps it has twice as long.
JOB_SILENT_SECONDS = env.int("TOUCHSTONE_JOB_SILENT_SECONDS", default=1800)
# Training jobs of one person that may run at once; 0 is no limit.
JOBS_PER_PERSON = env.int("TOUCHSTONE_JOBS_PER_PERSON", default=0)
RECONCILE_SECONDS = env.int("TOUCHSTONE_RECONCILE_SECONDS", default=20)

# ── Models ───────────────────────────────────────────────────────────────────────────────────────────────────────
# An OpenAI-compatible server that loads the model directory named in each request; `up` starts one on this port.
MODEL_SERVER_PORT = env.int("TOUCHSTONE_MODEL_SERVER_PORT", default=8017)
MODEL_SERVER_URL = env.str("TOUCHSTONE_MODEL_SERVER_URL", default="")
EMBEDDED_MODEL_SERVER = not MODEL_SERVER_URL
if EMBEDDED_MODEL_SERVER:
    MODEL_SERVER_URL = f"http://127.0.0.1:{MODEL_SERVER_PORT}/v1"
STARTER_MODEL = "smollm2-135m-instruct"
# What to send as `model` for a source: only the training side knows where a checkpoint lies.
SERVED_MODEL = "rlhf.generation.served_model"

# ── Annotation ───────────────────────────────────────────────────────────────────────────────────────────────────
UPLOAD_MAX_BYTES = env.int("TOUCHSTONE_UPLOAD_MAX_MB", default=1000) * 10**6
ASSIGNMENT_LEASE_SECONDS = env.int("TOUCHSTONE_ASSIGNMENT_LEASE_SECONDS", default=900)
# Each holds a thread of its web process (config/embedded/gunicorn_hooks.py) for as long as a model writes.
OPEN_STREAMS = env.int("TOUCHSTONE_OPEN_STREAMS", default=2)

# Webhooks may call addresses inside this network, which an admin of one project could otherwise probe.
WEBHOOKS_TO_PRIVATE_ADDRESSES = env.bool("TOUCHSTONE_WEBHOOKS_TO_PRIVATE_ADDRESSES", default=False)

# ── Sign-in ──────────────────────────────────────────────────────────────────────────────────────────────────────
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "annotation.accounts.AccountBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Wrong passwords are counted for an account and an address together: nobody can lock somebody else out from elsewhere.
AXES_FAILURE_LIMIT = env.int("TOUCHSTONE_SIGN_IN_TRIES", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.int("TOUCHSTONE_LOCK_OUT_MINUTES", default=15))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # who signs in is in the journal
AXES_VERBOSE = False
AXES_CLIENT_IP_CALLABLE = "annotation.sign_in.client_address"
AXES_LOCKOUT_CALLABLE = "annotation.sign_in.locked_out"
SESSION_ENGINE = "annotation.accounts"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"

HTTPS = env.bool("TOUCHSTONE_HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000)
    SECURE_SSL_REDIRECT = True
    # Subdomains and browsers' preload lists are the domain owner's to decide about.
    SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # health checks come from inside, without the proxy
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'", NONCE],
        # uPlot and KaTeX position with style attributes; annotation/markdown.py strips any from model output.
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

# ── The rest ─────────────────────────────────────────────────────────────────────────────────────────────────────
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": DATA_DIR / "files"}},
    # Frozen data sets. Another Django storage (S3 …) can be named here.
    "snapshots": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": DATA_DIR / "snapshots"},
    },
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
# Machines that share no disk keep data sets, models and training checkpoints in a bucket (docs/deployment.md).
# The keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
S3_BUCKET = env.str("TOUCHSTONE_S3_BUCKET", default="")
SHARED_STORAGE = bool(S3_BUCKET)
if S3_BUCKET:
    for _name in ("snapshots", "models"):
        STORAGES[_name] = {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": S3_BUCKET,
                "location": f"{env.str('TOUCHSTONE_S3_PREFIX', default='touchstone')}/{_name}",
                "endpoint_url": env.str("TOUCHSTONE_S3_ENDPOINT", default="") or None,
                "region_name": env.str("TOUCHSTONE_S3_REGION", default="") or None,
                "default_acl": None,
                "file_overwrite": True,
                "max_memory_size": 32_000_000,  # larger files pass through a temporary one
            },
        }
WHITENOISE_USE_FINDERS = DEBUG
REST_FRAMEWORK = {
    # The token first: what it answers to a stranger is 401, where a session's answer would be 403.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "URL_FORMAT_OVERRIDE": None,  # ?format= is ours: what an imported file is written in
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "annotation.api.common.answer_refusal",
    # Counted in each web process by itself: with n processes the real limit is up to n times as high.
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.UserRateThrottle",
        "rest_framework.throttling.AnonRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "user": env.str("TOUCHSTONE_API_RATE", default="1200/min"),
        "anon": env.str("TOUCHSTONE_API_ANONYMOUS_RATE", default="30/min"),
    },
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Touchstone",
    "VERSION": "1",
    "DESCRIPTION": "Comparisons, judgments, people and data sets. Sign in with `Authorization: Token …`.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    # From the installed package: no content delivery network is asked.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # Sets of choices that share a field's name.
    "ENUM_NAME_OVERRIDES": {
        "CheckpointKind": "rlhf.models.CheckpointKind",
        "DataJobKind": "annotation.models.DataJobKind",
        "DataJobStatus": "annotation.models.DataJobStatus",
        "ErrorKind": "annotation.models.ErrorKind",
        "EventKind": "annotation.models.EventKind",
        "JobStatus": "rlhf.models.JobStatus",
        "JudgeKind": "rlhf.models.JudgeKind",
        "JudgeScope": "rlhf.models.JudgeScope",
        "MessageRole": ["system", "user", "assistant"],
        "Method": "rlhf.models.Method",
        "Priority": "rlhf.models.Priority",
        "PromptLanguage": "rlhf.models.PromptLanguage",
        "Role": "annotation.models.Role",
        "Scenario": "annotation.models.Scenario",
        "SourceKind": "annotation.models.SourceKind",
    },
}
REST_KNOX = {"TOKEN_TTL": None, "AUTO_REFRESH": False}  # each token's own expiry is chosen where it is made
KNOX_TOKEN_MODEL = "annotation.ApiToken"
# Its migrations would make a table for the token model that ours replaces.
MIGRATION_MODULES = {"knox": None}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    # One line for every sampled response and every sign-in would drown the rest.
    "loggers": {"httpx": {"level": "WARNING"}, "axes": {"level": "WARNING"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
}
