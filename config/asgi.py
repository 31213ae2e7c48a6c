"""The ASGI application, for servers that speak it."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_asgi_application()
assert settings.SECRET_KEY  # noqa: S101 - Django says what is missing now, not at the first login
