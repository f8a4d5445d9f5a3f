"""Strings that must never be executed, fetched, obeyed or hidden, wherever received text is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Dialog, Page, Request

STRINGS = (
    "<script>window.hit=1</script>",
    "</script><script>window.hit=1</script>",
    '"><script>window.hit=1</script>',
    "</title></textarea></style><script>window.hit=1</script>",
    "<!--<script>window.hit=1</script>-->",
    "<scr\0ipt>window.hit=1</scr\0ipt>",
    "<ſcript>window.hit=1</ſcript>",
    "\ufe64script\ufe65window.hit=1\ufe64/script\ufe65",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "&#60;script&#62;window.hit=1&#60;/script&#62;",
    "\\x3cscript\\x3ewindow.hit=1\\u003c/script\\u003e",
    "'><img src=canary onerror=window.hit=1>",
    '"><img src=canary onerror="window.hit=1">',
    "<img src=http://canary.invalid/x.png>",
    "<img srcset=http://canary.invalid/x.png>",
    "<video><source onerror=window.hit=1></video>",
    "<svg/onload=window.hit=1>",
    "<svg><script>window.hit=1</script></svg>",
    "<svg><animate onbegin=window.hit=1 attributeName=x dur=1s></svg>",
    "<math><mtext><table><mglyph><style><img src=canary onerror=window.hit=1>",
    "<iframe src=javascript:window.hit=1></iframe>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<object data=http://canary.invalid/></object>",
    "<body onload=window.hit=1>",
    "<details open ontoggle=window.hit=1>",
    "<marquee onstart=window.hit=1>",
    "<a href=javascript:window.hit=1>x</a>",
    "javascript:window.hit=1",
    "JaVaScRiPt&colon;window.hit=1//",
    "data:text/html,<script>window.hit=1</script>",
    "//canary.invalid/",
    '" autofocus onfocus="window.hit=1',
    "' onmouseover='window.hit=1",
    "`onfocus=window.hit=1 autofocus`",
    '" style="position:fixed;inset:0;background:url(http://canary.invalid/x)',
    '" hx-get="/canary" hx-trigger="load',
    '"><div hx-post="/canary" hx-trigger="load"></div>',
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
    "{subject.__class__.__mro__}",
    "%(n)s 100% %d %",
    '=HYPERLINK("http://canary.invalid/","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    " \u3000\uff1d1+1",
    "' OR '1'='1",
    "'; DROP TABLE studies; --",
    "%' ESCAPE '!",
    "../../../../etc/passwd",
    "\u202egpj.exe\u202c",
    "\u2066hidden\u2069\u200b\ufeff\u00ad\u061c",
    "Z̸̢̛͓̱͂̇a̷̡̛͎̾͜l̴͔̃͋g̵̱̀̿o̶̞̽" * 8,
    "\U000e0041\U000e0042 tags, \u2028 and \u2029 lines",
    "\x1b[2J\x07\x08\x7f\x9b31m",
    "NUL\0in the middle",
    "line\r\nSet-Cookie: stolen=1\r\n\r\n<script>window.hit=1</script>",
    "👩‍⚕️" * 40,
    "unbroken" * 25,
    "王小明" * 8000,
)
# Of pages that show one row only each, several at once: alone where the beginning decides, together where not.
_ALONE = ("javascript:", "JaVa", "data:", "//", "../")
# Received text is cut off at this length on most pages.
_SHOWN = 190


def groups() -> tuple[str, ...]:
    """All strings, several in one text, so that few pages show them all."""
    found = [string for string in STRINGS if string.startswith(_ALONE) or len(string) > _SHOWN]
    text = ""
    for string in (string for string in STRINGS if string not in found):
        if len(text) + len(string) >= _SHOWN:
            found.append(text)
            text = ""
        text = f"{text} {string}" if text else string
    return (*found, text)


# What a page may hold by itself; everything else came in with a text.
_ALIVE = """() => {
  const own = [
    "script:not([src^='/static/'])", "link:not([href^='/static/'])", "base", "style", "object", "embed", "svg", "math",
    "iframe:not(.report)", "meta[http-equiv]", "video", "marquee", "[srcset]", "[srcdoc]",
    "[autofocus]:not([name=name])", "[style*='canary']",
    "a:not([href^='/']):not([href^='#'])", "form[action]:not([action^='/'])", "a[href^='//'], form[action^='//']",
    "img:not([src^='/worklist/'])", "[hx-get*='canary'], [hx-post*='canary']",
  ];
  const found = own.flatMap((selector) => [...document.querySelectorAll(selector)]);
  for (const element of document.querySelectorAll("*")) {
    if (element.getAttributeNames().some((name) => /^(on|hx-on)/.test(name))) found.push(element);
  }
  return found.map((element) => element.outerHTML.slice(0, 200));
}"""
# Marks that reorder or hide text. Fields that somebody edits hold what they hold.
_MARKS = (
    "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]"
    "|\\udb40"
)
_HIDDEN = """(marks) => {
  const places = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let place = places.nextNode(); place; place = places.nextNode()) {
    const editable = place.parentElement.closest("textarea, script");
    if (new RegExp(marks).test(place.data) && !editable) found.push(place.parentElement.outerHTML.slice(0, 200));
  }
  return found;
}"""
_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def assert_harmless(page: Page) -> None:
    """Nothing of the strings is an element, an attribute, hidden or reordered, or makes the page wider."""
    assert page.evaluate(_ALIVE) == [], page.url
    assert page.evaluate("window.hit") is None, page.url
    assert page.evaluate(_HIDDEN, _MARKS) == [], page.url
    assert page.evaluate(_WIDE) <= 0, page.url


@contextmanager
def inert(page: Page) -> Iterator[None]:
    """Fail if anything of the strings came alive in a page that is opened within the block."""
    alive: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        alive.append(dialog.message)

    def on_request(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.hostname != "127.0.0.1" or parts.path.endswith("canary"):
            alive.append(request.url)

    page.on("dialog", on_dialog)
    page.on("request", on_request)
    page.on("pageerror", lambda error: alive.append(str(error)))
    page.on(
        "console", lambda message: alive.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (event) => console.error(\n"
        "  `Content Security Policy: ${event.violatedDirective} ${event.blockedURI}`))"
    )
    yield
    assert page.evaluate("window.hit") is None
    assert alive == []
