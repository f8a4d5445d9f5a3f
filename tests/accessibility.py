"""axe-core on a page: nothing serious may stand in the way of anybody."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_SERIOUS = ("serious", "critical")


def assert_accessible(page: Page) -> None:
    """Fail with axe's words for each serious fault."""
    found = Axe().run(page).response["violations"]
    faults = [
        f"{fault['id']}: {fault['help']}: {[node['html'][:160] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in _SERIOUS
    ]
    assert faults == [], faults
