"""Make the ASGI application, for servers that speak ASGI."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_asgi_application()
assert settings.SECRET_KEY  # noqa: S101 - a missing key is an error now, not at the first login
