"""Make a secret key where none is given."""

import os
from contextlib import suppress

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


def make_secret_key() -> None:
    """Make SECRET_KEY where it is not set, in a file for its owner's eyes only.

    Raises:
        ImproperlyConfigured: the file cannot be written.
    """
    with suppress(ImproperlyConfigured):  # raised by Django where there is no key
        if settings.SECRET_KEY:
            return
    try:
        descriptor = os.open(settings.SECRET_KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ImproperlyConfigured(
            f"cannot write a secret key to {settings.SECRET_KEY_FILE}: {error.strerror}"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        settings.SECRET_KEY = get_random_secret_key()
        file.write(settings.SECRET_KEY)
