// The page of a case: loads the film, keeps the words beside it fresh, takes keys and verdicts.
"use strict";

(() => {
  const page = document.getElementById("case"), panel = document.getElementById("panel");
  const byId = (id) => document.getElementById(id);
  const study = page.dataset.study, base = `/studies/${study}`;
  const { Film, Viewer } = window.clearfilm.viewer;
  const canvas = byId("film"), words = byId("film-words"), fade = byId("fade");
  let shown = null, loading = null, map = null;

  // --- the film

  const viewer = new Viewer(canvas, { changed: readout });

  function readout() {
    if (!viewer.film) return;
    const { centre, width } = viewer.windowStated, { low, high } = viewer.film.facts;
    const digits = width < 20 ? 1 : 0;
    byId("window").textContent = `C ${centre.toFixed(digits)} W ${width.toFixed(digits)}`;
    byId("zoom").textContent = `${Math.round(100 * viewer.scale * viewer.ratio)} %`;
    if (viewer.low === low && viewer.high === high) byId("preset").value = "sent";
    else if (byId("preset").value === "sent") byId("preset").value = "own";
  }

  const say = (text, again = false) => {
    words.hidden = !text;
    words.querySelector("span").textContent = text;
    words.querySelector("button").hidden = !again;
  };
  const loadingWords = words.querySelector("span").textContent;

  // An answer that is not the one we want, in the words of the node.
  async function trouble(response) {
    const text = await response.text();
    if (response.headers.get("HX-Redirect")) { location.assign(response.headers.get("HX-Redirect")); return ""; }
    try { return JSON.parse(text).title; } catch { /* a fragment of a page */ }
    const found = new DOMParser().parseFromString(text, "text/html");
    return (found.querySelector("[role=alert]") || found.body).textContent.trim();
  }
  const ask = (path, options = {}) => fetch(path, { ...options, headers: {
    "X-Form-Token": document.querySelector('meta[name="form-token"]').content,
    "X-Idle-Seconds": String(Math.round(window.clearfilm.idleSeconds())), ...options.headers } });

  async function show(id) {
    if (loading) loading.abort();
    loading = new AbortController();
    const { signal } = loading;
    shown = id;
    map = null;
    viewer.clear();
    canvas.dataset.state = "loading";
    say(loadingWords);
    markFilm();
    try {
      const response = await ask(`${base}/films/${id}`, { signal, headers: { Accept: "application/json" } });
      if (!response.ok) { canvas.dataset.state = "failed"; say(await trouble(response), response.status >= 500); return; }
      const facts = JSON.parse(response.headers.get("X-Film"));
      viewer.show(new Film(facts, await response.arrayBuffer()));
      viewer.drawNow();
      canvas.dataset.state = "ready";
      performance.mark("film-drawn");
      say("");
      pressed("invert", false);
      loadMap();
    } catch (error) {
      if (error.name === "AbortError") return;
      canvas.dataset.state = "failed";
      say(page.dataset.away, true);
    }
  }

  // --- the map

  async function loadMap() {
    const id = shown, button = byId("map-button");
    const has = panel.querySelector(`[data-film="${id}"][data-map]`) !== null;
    button.disabled = fade.disabled = !has;
    legend();
    if (!has || map) return;
    try {
      const response = await ask(`${base}/films/${id}/map`, { headers: { Accept: "application/json" } });
      if (id !== shown || !viewer.film) return;
      map = response.ok ? await response.json() : { words: await trouble(response) };
      viewer.setEvidence(map);
      canvas.dataset.map = "ready";
    } catch {
      map = { words: page.dataset.away };
    }
    legend();
  }

  function legend() {
    const on = viewer.mapShown && map !== null;
    byId("legend").hidden = !on;
    if (!on) return;
    byId("legend-scale").hidden = Boolean(map.words);
    byId("legend-words").textContent = map.words || "";
    byId("legend-note").hidden = Boolean(map.words);
    fade.disabled = Boolean(map.words);
    if (map.words) return;
    byId("legend-low").textContent = map.threshold.toFixed(1);
    byId("legend-high").textContent = `${(map.threshold + map.span).toFixed(1)}+`;
    byId("legend-peak").textContent = `${byId("legend-peak").dataset.words} ${map.peak.toFixed(1)}`;
    const context = byId("legend-ramp").getContext("2d");
    for (let x = 0; x < 256; x++) {
      context.fillStyle = `rgb(${map.ramp.slice(3 * x, 3 * x + 3).join(" ")})`;
      context.fillRect(x, 0, 1, 8);
    }
    const mark = Math.min(1, (map.peak - map.threshold) / map.span) * 255;
    context.fillStyle = "#000"; context.fillRect(mark - 2, 0, 5, 8);
    context.fillStyle = "#fff"; context.fillRect(mark - 1, 0, 3, 8);
  }

  const pressed = (name, on) => page.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", String(on));
  const markFilm = () => {
    for (const button of panel.querySelectorAll("[data-film]")) {
      button.setAttribute("aria-current", String(Number(button.dataset.film) === shown));
    }
  };
  const films = () => [...panel.querySelectorAll("[data-film]")].map((button) => Number(button.dataset.film));
  const stepFilm = (step) => {
    const all = films(), next = all[all.indexOf(shown) + step];
    if (next !== undefined) show(next);
  };

  const actions = {
    fit: () => viewer.fit(),
    actual: () => viewer.actual(),
    rotate: () => viewer.rotate(),
    invert: () => { viewer.invert(); pressed("invert", viewer.inverted); },
    map: () => {
      if (byId("map-button").disabled) return;
      viewer.toggleMap();
      pressed("map", viewer.mapShown);
      legend();
    },
    again: () => show(shown),
  };
  const onFilm = (action) => { if (viewer.film) action(); };
  page.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button && button.dataset.do === "again") actions.again();
    else if (button) onFilm(actions[button.dataset.do]);
    const film = event.target.closest("[data-film]");
    if (film) show(Number(film.dataset.film));
  });
  byId("preset").addEventListener("change", (event) => onFilm(() => {
    viewer.preset(event.target.value);
    event.target.blur();
  }));
  fade.addEventListener("input", () => viewer.setFade(Number(fade.value)));

  // --- words beside it

  // Parts that differ are exchanged; what somebody types, has opened, or is in keeps its place.
  function renew(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const open = new Set([...panel.querySelectorAll("details[open][data-keep]")].map((item) => item.dataset.keep));
    const own = panel.querySelector("#p-verdict");
    const typed = byId("comment") && byId("comment").value !== byId("comment").defaultValue;
    const parts = [...fresh.body.children];
    const wanted = new Set(parts.map((part) => part.id));
    for (const part of [...panel.children]) if (!wanted.has(part.id)) part.remove();
    let before = null;
    for (const part of parts) {
      const old = byId(part.id);
      const busy = old && old === own && typed && sameRevision(old, part);
      if (!old) panel.insertBefore(document.adoptNode(part), before ? before.nextSibling : panel.firstChild);
      else if (!busy && stripped(old) !== stripped(part)) old.replaceWith(document.adoptNode(part));
      before = byId(part.id);
    }
    for (const item of panel.querySelectorAll("details[data-keep]")) item.open = open.has(item.dataset.keep);
    markFilm();
    if (viewer.film) loadMap();
  }
  const revision = (part) => part.querySelector("input[name=revision], input[name=seen]")?.value;
  const sameRevision = (one, other) => revision(one) === revision(other);
  const stripped = (part) => part.outerHTML.replace(/ (open|aria-current)="[^"]*"/g, "").replace(/name="token" value="[^"]*"/g, "");

  async function refresh() {
    try {
      const response = await ask(`${base}/panel`);
      if (response.ok) renew(await response.text());
      else if (response.status === 404) window.clearfilm.say(page.dataset.gone);
      else if (response.status === 401) location.assign(`/login?ended=1&next=${encodeURIComponent(base)}`);
    } catch { /* the stream tells that the node is away, and asks again when it is back */ }
  }
  let planned = 0;
  const soon = () => { clearTimeout(planned); planned = setTimeout(refresh, 150); };
  document.addEventListener("studies", (event) => {
    if (JSON.parse(event.detail.data).includes(Number(study))) soon();
  });
  document.addEventListener("refresh", soon);

  // --- verdicts

  let busy = false;
  page.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-verdict]");
    if (!form) return;
    event.preventDefault();
    if (busy) return;
    busy = true;
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const part = byId("p-verdict");
    part.setAttribute("aria-busy", "true");
    if (event.submitter) event.submitter.dataset.saving = page.dataset.keeping;
    try {
      const response = await ask(form.getAttribute("action"), { method: "POST", body, headers: {
        "HX-Request": "true", "HX-Current-URL": location.href } });
      if (response.ok) {
        const text = await response.text();  // the keys need the old part until the new one is here
        part.remove();  // kept now: nothing of the form is worth saving
        renew(text);
        panel.querySelector("#p-verdict [aria-pressed=true]")?.focus({ preventScroll: true });
      } else {
        window.clearfilm.say(await trouble(response));
        if (response.status === 409 || response.status === 404) soon();
      }
    } catch {
      window.clearfilm.say(page.dataset.away);
    } finally {
      busy = false;
      byId("p-verdict")?.removeAttribute("aria-busy");
      if (event.submitter) delete event.submitter.dataset.saving;
    }
  });

  // --- the list that the case was opened from

  const list = (() => { try { return JSON.parse(sessionStorage.getItem("clearfilm-list")); } catch { return null; } })();
  const neighbour = (step) => {
    const place = list ? list.ids.indexOf(Number(study)) : -1;
    if (place < 0) { window.clearfilm.say(page.dataset.noList); return; }
    const next = list.ids[place + step];
    if (next === undefined) window.clearfilm.say(step > 0 ? page.dataset.last : page.dataset.first);
    else location.assign(`/studies/${next}`);
  };

  // --- keys

  const press = (key) => {
    const button = panel.querySelector(`[data-key="${key}"]`);
    if (button) button.form.requestSubmit(button);
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const presets = { 0: "sent", 1: "sent", 2: "hard", 3: "soft", 4: "full" };
  const keys = {
    h: () => onFilm(actions.map), i: () => onFilm(actions.invert), r: () => onFilm(actions.rotate),
    f: () => onFilm(actions.fit), g: () => onFilm(actions.actual),
    a: () => press("a"), d: () => press("d"), u: () => press("u"),
    c: () => byId("comment")?.focus(), o: () => byId("pacs")?.click(),
    j: () => neighbour(1), k: () => neighbour(-1), "[": () => stepFilm(-1), "]": () => stepFilm(1),
    "+": () => onFilm(() => viewer.zoom(1.25)), "=": () => onFilm(() => viewer.zoom(1.25)),
    "-": () => onFilm(() => viewer.zoom(0.8)),
    Escape: () => location.assign(list ? list.path : "/worklist"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("details.menu[open]") && event.key === "Escape") return;
    if (event.key in arrows) {
      // Without the focus on the film, arrows scroll the words.
      if (document.activeElement !== canvas || !viewer.film) return;
      const [x, y] = arrows[event.key];
      if (event.shiftKey) viewer.dragWindow(0.05 * x, -0.03 * -y); else viewer.pan(-60 * x, -60 * y);
    } else if (event.key in presets) {
      onFilm(() => { viewer.preset(presets[event.key]); byId("preset").value = presets[event.key]; });
    } else if (event.key in keys) {
      if (event.repeat && "adujko".includes(event.key)) return;
      keys[event.key]();
    } else return;
    event.preventDefault();
  });

  const first = panel.querySelector("[data-first]") || panel.querySelector("[data-film][data-map]") || panel.querySelector("[data-film]");
  if (first) show(Number(first.dataset.film)); else say("");
  canvas.focus({ preventScroll: true });
})();
