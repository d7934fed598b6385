"""The static files: what is vendored, what the import map names, and that the hashed storage takes all of it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.template.loader import render_to_string
from django.test import RequestFactory

STATIC = Path(settings.BASE_DIR) / "static"


def test_modules_import_each_other_by_names_in_the_import_map() -> None:
    page = (Path(settings.BASE_DIR) / "templates" / "base.html").read_text()
    import_map = dict(re.findall(r"""["]([a-z/-]+)["]: "{% static '([^']+)' %}\"""", page))
    assert len(import_map) >= 5
    assert all((STATIC / path).is_file() for path in import_map.values())
    for module in (STATIC / "js").glob("*.js"):
        imported = re.findall(r"""(?:\bfrom|\bimport\(?)\s*["']([^"']+)["']""", module.read_text())
        # A relative name would work, but without a hash in it: browsers would keep the old file.
        assert set(imported) <= set(import_map), module.name


def test_the_compare_page_fetches_its_modules_at_once() -> None:
    def imported(name: str) -> set[str]:
        found = set(
            re.findall(r"""^import .*?["']app/([a-z-]+)["']""", (STATIC / "js" / f"{name}.js").read_text(), re.M)
        )
        return found.union(*map(imported, found))

    page = (Path(settings.BASE_DIR) / "templates" / "compare.html").read_text()
    assert set(re.findall(r"modulepreload\" href=\"{% static 'js/([a-z-]+)\.js'", page)) == imported("compare")


def test_vendored_files_are_what_was_downloaded() -> None:
    listed = dict(
        reversed(line.split("  "))
        for line in (STATIC / "vendor" / "VENDOR.txt").read_text().splitlines()
        if re.match(r"[0-9a-f]{64}  ", line)
    )
    found = {
        str(path.relative_to(STATIC / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").rglob("*")
        if path.is_file() and path.name != "VENDOR.txt"
    }
    assert found == listed


@pytest.mark.slow
def test_the_hashed_storage_takes_every_file(settings, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
    call_command("collectstatic", "--noinput", verbosity=0)
    assert re.fullmatch(r"/static/css/app\.[0-9a-f]{12}\.css", staticfiles_storage.url("css/app.css"))
    page = render_to_string("login.html", {}, RequestFactory().get("/login/"))
    assert re.search(r'"app/hotkeys": "/static/js/hotkeys\.[0-9a-f]{12}\.js"', page)
    app_css = (tmp_path / staticfiles_storage.url("css/app.css").removeprefix("/static/")).read_text()
    assert re.search(r'@import url\("tokens\.[0-9a-f]{12}\.css"\)', app_css)


@pytest.mark.parametrize("name", ["500.html", "503.html"])
def test_pages_for_trouble_need_nothing_that_may_be_broken(name: str) -> None:
    page = render_to_string(name)
    assert "safe" in page and "/static/" not in page
