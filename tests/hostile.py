"""Strings that must never be executed, fetched, obeyed or hidden, wherever received text is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Dialog, Page, Request

STRINGS = (
    "<script>window.hit=1</script>",
    "</script><script>window.hit=1</script>",
    '"><script>window.hit=1</script>',
    "'><img src=x onerror=window.hit=1>",
    "<img src=http://canary.invalid/x.png>",
    "<svg/onload=window.hit=1>",
    "<svg><script>window.hit=1</script></svg>",
    "<iframe src=javascript:window.hit=1></iframe>",
    "<body onload=window.hit=1>",
    "<a href=javascript:window.hit=1>x</a>",
    "javascript:window.hit=1",
    "data:text/html,<script>window.hit=1</script>",
    '" autofocus onfocus="window.hit=1',
    "' onmouseover='window.hit=1",
    "`onfocus=window.hit=1 autofocus`",
    '" hx-get="/logout" hx-trigger="load',
    '"><div hx-post="/logout" hx-trigger="load"></div>',
    '<div hx-on:load="window.hit=1"></div>',
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=http://canary.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=http://canary.invalid/'>",
    "<base href=http://canary.invalid/>",
    "<form action=http://canary.invalid/><input name=password>",
    "{{ 7 * 7 }}",
    "{% raw %}{{ config }}{% endraw %}",
    "${7*7}",
    "#{7*7}",
    '=HYPERLINK("http://canary.invalid/","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "' OR '1'='1",
    "'; DROP TABLE studies; --",
    "%' ESCAPE '!",
    "../../../../etc/passwd",
    "\u202egpj.exe\u202c",
    "\u2066hidden\u2069\u200b\ufeff",
    "line\r\nSet-Cookie: stolen=1\r\n\r\n<script>window.hit=1</script>",
    "王小明" * 8000,
)


@contextmanager
def inert(page: Page) -> Iterator[None]:
    """Fail if anything of the strings came alive in a page that is opened within the block."""
    alive: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        alive.append(dialog.message)

    def on_request(request: Request) -> None:
        if urlsplit(request.url).hostname != "127.0.0.1":
            alive.append(request.url)

    page.on("dialog", on_dialog)
    page.on("request", on_request)
    page.on("pageerror", lambda error: alive.append(str(error)))
    page.on(
        "console", lambda message: alive.append(message.text) if "Content Security Policy" in message.text else None
    )
    yield
    assert page.evaluate("window.hit") is None
    assert alive == []
