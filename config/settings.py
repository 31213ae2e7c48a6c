"""Read every setting from an environment variable; docs/settings.md describes each."""

from pathlib import Path
from typing import Any

from config import environment
from config.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
env = environment.Environment()

DEBUG = env.bool("DEBUG", default=False)
DATABASES = {"default": environment.database(env, base_dir=BASE_DIR)}
SECRET_KEY_FILE = environment.secret_key_file(DATABASES["default"], base_dir=BASE_DIR)
SECRET_KEY = environment.secret_key(env, SECRET_KEY_FILE)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "ninja",
    "config",
    "outbox",
    "relay",
    "sagas",
    "orders",
]
MIDDLEWARE = [
    "outbox.middleware.CorrelationMiddleware",
    "config.web.head.HeadMiddleware",
    "config.web.problems.ProblemMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.web.admin_only.AdminValuesMiddleware",
    "config.web.admin_only.AdminSessionMiddleware",
    "config.web.slashes.SafeSlashMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.web.admin_only.AdminAuthenticationMiddleware",
    "config.web.admin_only.AdminMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_HTTPONLY = True
BEHIND_TLS_PROXY = env.bool("BEHIND_TLS_PROXY", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_TLS_PROXY
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOGGING = logging_config(level=env.log_level("LOG_LEVEL", default="INFO"))

# What sagaz is told, in its own terms; sagas/apps.py hands it over.
SAGAZ = {
    "STORAGE_URL": env.str("SAGAZ_STORAGE_URL", default="django://"),
    "BROKER_URL": env.str("SAGAZ_BROKER_URL", default="memory://"),
    "METRICS": env.bool("SAGAZ_METRICS", default=True),
    "LOGGING": env.bool("SAGAZ_LOGGING", default=True),
    "TRACING": env.bool("SAGAZ_TRACING", default=False),
}
DATABASE_URL = env.str("DATABASE_URL", default="")

# What outbox, relay and sagas are told. The broker's URL stands with sagaz's settings.
SAGA_OUTBOX: dict[str, Any] = {
    "SERVICE": "orders",
    "BROKER_OPTIONS": {
        "partitions": env.int("KAFKA_PARTITIONS", default=12, at_least=1),
        "replication_factor": env.int("KAFKA_REPLICATION_FACTOR", default=1, at_least=1),
        "client": env.str("SAGAZ_KAFKA_CLIENT", default=""),
    },
    "TOPICS": env.list("BROKER_TOPICS", default=["orders.commands", "orders.events"]),
    "COMMAND_TOPICS": env.list("SAGA_TOPICS", default=["orders.commands"]),
    "CONSUMER_GROUP": env.str("SAGA_CONSUMER_GROUP", default="sagas"),
    "SOURCE": env.str("OUTBOX_SOURCE", default="/django-saga-outbox"),
    "WAKE_UP": env.bool("OUTBOX_WAKE_UP", default=True),
    "DIRECT_URL": environment.direct_url(env),
    "PREPARED_STATEMENTS": env.bool("DATABASE_PREPARED_STATEMENTS", default=True),
    "LEASE": env.float("SAGA_LEASE", default=10.0, at_least=1),
    "MAX_TAKEOVERS": env.int("SAGA_MAX_TAKEOVERS", default=10, at_least=1),
    "COMMIT_TOGETHER": env.bool("SAGA_COMMIT_TOGETHER", default=True),
    "FIRST_BACKOFF": env.float("SAGA_FIRST_BACKOFF", default=0.2, at_least=0),
    "LONGEST_BACKOFF": env.float("SAGA_LONGEST_BACKOFF", default=30.0, at_least=0),
}
OUTBOX_MAX_AGE = env.float("OUTBOX_MAX_AGE", default=60.0, at_least=0)
PAYMENT_GATEWAY_URL = env.str("PAYMENT_GATEWAY_URL", default="simulated://")
STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="https://api.stripe.com")
STRIPE_TIMEOUT = env.float("STRIPE_TIMEOUT", default=10.0)
WEB_CONCURRENCY = env.int("WEB_CONCURRENCY", default=2, at_least=1)  # gunicorn's, read here to say
WEB_THREADS = env.int("WEB_THREADS", default=8, at_least=1)  # in one line what is wrong with it
MAX_WAITING_REQUESTS = env.int("MAX_WAITING_REQUESTS", default=max(1, WEB_THREADS // 2), at_least=0)
ORDER_MAX_AGE = env.float("ORDER_MAX_AGE", default=3600.0, at_least=0)
