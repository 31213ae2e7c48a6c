"""The service's settings, with apps of a test's own: TEST_APPS names them."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS as _INSTALLED_APPS
from config.settings import env

INSTALLED_APPS = [*_INSTALLED_APPS, *env.list("TEST_APPS", default=[])]
