// What all pages share: the form token, the viewer's zone, the keyboard help, and what became of requests.
"use strict";

(() => {
  // The zone goes with every request, so that the server writes times as the viewer's clock shows them.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) document.cookie = `zone=${zone}; path=/; max-age=31536000; samesite=strict`;

  let touched = Date.now();
  for (const name of ["keydown", "pointerdown", "wheel"]) {
    addEventListener(name, () => { touched = Date.now(); }, { passive: true, capture: true });
  }

  document.addEventListener("htmx:config:request", (event) => {
    const { request } = event.detail.ctx;
    request.headers["X-Form-Token"] = document.querySelector('meta[name="form-token"]').content;
    // Requests that the page makes by itself do not keep a login alive.
    request.headers["X-Idle-Seconds"] = String(Math.round((Date.now() - touched) / 1000));
  });

  const say = (text) => {
    const place = document.getElementById("notices");
    const line = document.createElement("p");
    line.className = "notice";
    line.textContent = text;
    place.replaceChildren(line);
  };
  window.clearfilm = { say, idleSeconds: () => (Date.now() - touched) / 1000 };

  // What went wrong is said in a corner; the page keeps what it shows.
  document.addEventListener("htmx:before:swap", (event) => {
    const { response, text } = event.detail.ctx;
    if (!response || response.status < 400) return;
    event.preventDefault();
    const found = new DOMParser().parseFromString(text, "text/html");
    say((found.querySelector("[role=alert]") || found.body).textContent.trim());
  });

  // The event stream: whether it flows is shown; it is begun anew until it does.
  const mark = (lost) => document.getElementById("live")?.classList.toggle("lost", lost);
  document.addEventListener("htmx:sse:after:connection", () => mark(false));
  document.addEventListener("htmx:sse:error", (event) => {
    mark(true);
    if (event.detail.status === 401) toLogin();
  });
  for (const name of ["htmx:response:error", "htmx:error"]) {
    document.addEventListener(name, (event) => {
      if (event.target.id === "live") {
        mark(true);
        setTimeout(() => htmx.trigger(event.target, "again"), 3000);
      } else if (name === "htmx:error") {
        say(document.body.dataset.away);
      }
    });
  }

  // The stream tells that the login has ended: say so at once, with the way back.
  const toLogin = () => {
    location.assign(`/login?ended=1&next=${encodeURIComponent(location.pathname + location.search)}`);
  };
  document.addEventListener("logout", toLogin);

  const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const help = document.getElementById("keys");
    if (help && !help.open) { help.showModal(); event.preventDefault(); }
  });
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) document.getElementById(opener.dataset.open).showModal();
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // The order of the list that a case is opened from: the case goes to its neighbours, and back.
  addEventListener("pagehide", () => {
    if (location.pathname !== "/worklist") return;
    const links = [...document.querySelectorAll('main a[href^="/studies/"]')];
    const ids = [...new Set(links.map((link) => Number(link.pathname.split("/")[2])))];
    sessionStorage.setItem("clearfilm-list", JSON.stringify({ path: location.pathname + location.search, ids }));
  });
})();
