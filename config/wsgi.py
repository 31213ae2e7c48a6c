"""Make the WSGI application, for gunicorn, uWSGI and runserver."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()
assert settings.SECRET_KEY  # noqa: S101 - a missing key is an error now, not at the first login
