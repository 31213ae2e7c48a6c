"""Map paths to views: the home page, the admin, the API."""

from django.contrib import admin
from django.urls import path

from config.web.api import api
from config.web.home import home

urlpatterns = [
    path("", home, name="home"),
    path("admin/", admin.site.urls),
    path("", api.urls),
]
handler400 = "config.web.problems.bad_request"
handler403 = "config.web.problems.forbidden"
handler404 = "config.web.problems.not_found"
handler500 = "config.web.problems.server_error"
