// The list of studies: keyboard, filters without losing the place, rows that change while somebody reads.
"use strict";

(() => {
  const list = () => document.getElementById("list");
  const table = () => list().querySelector("table.studies");
  const rows = () => [...table().querySelectorAll("tr[data-id]")];
  const current = () => document.activeElement?.closest?.("tr[data-id]") || null;
  const rowOf = (id) => table().querySelector(`tr[data-id="${id}"]`);

  // Requests of the page itself tell how long nobody has touched it: they do not keep a login alive.
  const ask = async (url, byHand) => {
    const idle = byHand ? 0 : Math.round(clearfilm.idleSeconds());
    const answer = await fetch(url, { headers: { Accept: "text/html", "X-Idle-Seconds": String(idle) } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") {
      location.assign(answer.url);
      throw new Error("logged out");
    }
    const text = await answer.text();
    // Rows by themselves are no HTML: the parser would leave only their words.
    const whole = text.startsWith("<tbody") ? `<table>${text}</table>` : text;
    const found = new DOMParser().parseFromString(whole, "text/html");
    if (!answer.ok) {
      clearfilm.say((found.querySelector("[role=alert]") || found.body).textContent.trim());
      throw new Error(`status ${answer.status}`);
    }
    return found;
  };
  const quietly = (promise) => promise.catch((error) => {
    if (error instanceof TypeError) clearfilm.say(document.body.dataset.away);
  });

  // --- another list: the address changes, the page stays -------------------------------------------------

  let visit = 0;
  const show = async (url, { keep = true } = {}) => {
    const mine = ++visit;
    const found = await ask(url, true);
    const fresh = found.getElementById("list");
    if (mine !== visit) return;
    if (!fresh) { location.assign(url); return; }
    const held = document.activeElement?.id;
    const caret = document.activeElement?.selectionStart;
    const typed = document.activeElement?.value;
    const opened = list().querySelector("details.choices[open]")?.id;
    list().replaceWith(document.adoptNode(fresh));
    if (keep) history.pushState(null, "", url);
    const path = location.pathname + location.search;
    for (const field of document.querySelectorAll('.bar input[name="next"]')) field.value = path;
    document.querySelector("#save-view [data-query]").value = list().dataset.address;
    if (opened) document.getElementById(opened).open = true;
    const again = held && document.getElementById(held);
    if (again) {
      again.focus();
      // What was typed while the answer was under way stays.
      if (caret !== null && caret !== undefined && again.type === "search") {
        again.value = typed;
        again.setSelectionRange(caret, caret);
      }
    }
    begin();
  };

  const filtered = () => {
    const form = document.getElementById("filters");
    const pairs = [...new FormData(form)].filter(([, value]) => value !== "");
    return `${form.getAttribute("action")}?${new URLSearchParams(pairs)}`;
  };

  let pause;
  addEventListener("input", (event) => {
    if (event.target.form?.id !== "filters") return;
    clearTimeout(pause);
    const wait = event.target.matches("select, [type=checkbox]") ? 0 : 400;
    if (event.target.name === "when") {
      for (const name of ["from", "to"]) document.querySelector(`#filters [name="${name}"]`)?.remove();
    }
    pause = setTimeout(() => quietly(show(filtered())), wait);
  });
  addEventListener("submit", (event) => {
    if (event.target.id !== "filters") return;
    event.preventDefault();
    clearTimeout(pause);
    quietly(show(filtered()));
  });
  addEventListener("popstate", () => quietly(show(location.href, { keep: false })));

  // --- pointer -----------------------------------------------------------------------------------------

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers have no clipboard for pages; selecting still works.
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  };
  const copied = (button) => {
    copy(button.dataset.copy);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };

  addEventListener("click", (event) => {
    const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
    const link = event.target.closest("#list .tabs a, #list thead a, #list .empty a");
    if (link && plain) {
      event.preventDefault();
      quietly(show(link.href));
      return;
    }
    const button = event.target.closest("button");
    if (button?.dataset.copy !== undefined) copied(button);
    else if (button?.matches("[data-more]")) quietly(more());
    else if (button?.matches("[data-above]")) { scrollTo({ top: 0 }); rows()[0]?.focus({ preventScroll: true }); }
    else if (button?.matches("[data-print]")) print();
    else if (!button && !event.target.closest("a, .details, thead")) event.target.closest("tr[data-id]")?.focus();
  });
  addEventListener("dblclick", (event) => {
    if (event.target.closest("a, button, .details")) return;
    event.target.closest("tr[data-id]")?.querySelector(".c-patient a").click();
  });

  const more = async () => {
    const body = [...table().tBodies].at(-1);
    const after = body.dataset.after;
    const found = await ask(`/worklist/rows?${list().dataset.address}&after=${encodeURIComponent(after)}`, true);
    const next = found.querySelector("tbody") || document.createElement("tbody");
    for (const row of next.querySelectorAll("tr[data-id]")) if (rowOf(row.dataset.id)) row.remove();
    const first = next.querySelector("tr[data-id]");
    table().append(document.adoptNode(next));
    if (next.dataset.more === undefined) list().querySelector("[data-more]")?.remove();
    first?.focus();
    tick();
  };

  // --- keyboard ----------------------------------------------------------------------------------------

  const go = (row) => {
    if (!row) return false;
    row.focus({ preventScroll: true });
    const box = row.getBoundingClientRect();
    const top = table().tHead.getBoundingClientRect().bottom;
    if (box.top < top) scrollBy({ top: box.top - top - 4 });
    else if (box.bottom > innerHeight) scrollBy({ top: box.bottom - innerHeight + 8 });
    return true;
  };
  const step = (by) => {
    const all = rows();
    const at = all.indexOf(current());
    if (at < 0) return go(all[0]);
    if (by > 0 && at === all.length - 1 && list().querySelector("[data-more]")) quietly(more());
    return go(all[at + by]);
  };
  const nextUnread = () => {
    const all = rows();
    const at = all.indexOf(current());
    const waiting = (row) => row.dataset.unread !== undefined;
    return go(all.slice(at + 1).find(waiting) || all.slice(0, Math.max(at, 0)).find(waiting));
  };
  const expand = async (row) => {
    const below = row.nextElementSibling;
    if (below?.matches(".expanded")) {
      below.remove();
      row.removeAttribute("aria-expanded");
      return;
    }
    const found = await ask(`/worklist/studies/${row.dataset.id}/details`, true);
    const holder = document.createElement("tr");
    holder.className = "expanded";
    const cell = holder.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(document.adoptNode(found.querySelector(".details")));
    row.after(holder);
    row.setAttribute("aria-expanded", "true");
  };

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    Home: () => go(rows()[0]),
    End: () => go(rows().at(-1)),
    n: nextUnread,
    Enter: (row) => row && (row.querySelector(".c-patient a").click(), true),
    " ": (row) => row && (quietly(expand(row)), true),
    o: (row) => row && (open(`/worklist/studies/${row.dataset.id}/viewer`, "_blank", "noopener"), true),
    c: (row) => row?.querySelector("[data-copy]") && (copied(row.querySelector("[data-copy]")), true),
    "/": () => (document.getElementById("f-q").focus(), document.getElementById("f-q").select(), true),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const place = event.target;
    if (event.key === "Escape") {
      const menu = place.closest("details[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); return; }
      const row = current();
      if (place.closest("thead")) go(rows()[0]);
      else if (row?.nextElementSibling?.matches(".expanded")) quietly(expand(row));
      else if (place.closest(".expanded")) go(place.closest(".expanded").previousElementSibling);
      else if (row) row.blur();
      return;
    }
    if (place.closest("input, textarea, select, summary, details[open]")) {
      if (place.id === "f-q" && event.key === "ArrowDown" && go(rows()[0])) event.preventDefault();
      return;
    }
    // A button or link that has the focus keeps its own keys.
    if ((event.key === "Enter" || event.key === " ") && place.closest("a, button")) return;
    const tab = /^[1-9]$/.test(event.key) && list().querySelector(`[data-view="${event.key}"]`);
    if (tab) { tab.click(); event.preventDefault(); return; }
    if (keys[event.key]?.(current())) event.preventDefault();
  });

  // --- live rows ---------------------------------------------------------------------------------------

  // Change rows so that what has the focus stays where it is on the screen.
  const still = (change) => {
    const row = current() || document.activeElement?.closest?.(".expanded");
    const before = row?.getBoundingClientRect().top;
    change();
    if (!row?.isConnected) return;
    const moved = row.getBoundingClientRect().top - before;
    if (!moved) return;
    const room = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (moved > room) {
      // A list shorter than the window scrolls only after it was filled up to the window's end.
      const blank = Math.max(0, innerHeight - scrollY - list().getBoundingClientRect().bottom);
      list().style.paddingBottom = `${parseFloat(list().style.paddingBottom || 0) + blank + moved - room + 1}px`;
    }
    scrollBy({ top: moved, behavior: "instant" });
  };

  const parts = (row) => {
    const [level, time, id] = row.dataset.order.split(" ");
    return list().dataset.by === "triage" ? [Number(level), Date.parse(time), Number(id)] : [Date.parse(time), Number(id)];
  };
  const before = (one, other) => {
    const [left, right] = [parts(one), parts(other)];
    const at = left.findIndex((value, index) => value !== right[index]);
    if (at < 0) return false;
    return list().dataset.descending === undefined ? left[at] < right[at] : left[at] > right[at];
  };

  const renew = (old, fresh) => {
    const inside = old.contains(document.activeElement) && document.activeElement !== old;
    for (const name of old.getAttributeNames()) {
      if (!["tabindex", "aria-expanded"].includes(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const name of fresh.getAttributeNames()) old.setAttribute(name, fresh.getAttribute(name));
    old.replaceChildren(...fresh.childNodes);
    if (inside) old.focus({ preventScroll: true });
  };

  const place = (fresh) => {
    const sorted = ["triage", "received"].includes(list().dataset.by);
    const following = sorted && rows().find((row) => row !== fresh && before(fresh, row));
    if (!sorted || (!following && list().querySelector("[data-more]"))) return false;
    list().querySelector(".empty")?.remove();
    if (following) following.before(fresh);
    else [...table().tBodies].at(-1).append(fresh);
    return true;
  };

  const merge = (asked, found) => {
    const fresh = new Map([...found.querySelectorAll("tr[data-id]")].map((row) => [row.dataset.id, row]));
    still(() => {
      for (const id of asked) {
        const old = rowOf(id);
        const row = fresh.get(String(id));
        if (old && !row) {
          // It no longer belongs here; it goes with the next look at the list, not from under the reader's hand.
          old.classList.add("left");
          old.removeAttribute("data-unread");
        } else if (old) {
          const rises = Number(row.dataset.order.split(" ")[0]) < Number(old.dataset.order.split(" ")[0]);
          renew(old, document.adoptNode(row));
          if (rises && old !== current() && !old.hasAttribute("aria-expanded")) place(old);
        } else if (row) {
          const added = document.adoptNode(row);
          if (place(added)) {
            added.classList.add("arrived");
            arrived.add(added.dataset.id);
          }
        }
      }
    });
    tick();
    badge();
    if (asked.length) counts();
  };

  const arrived = new Set();
  const badge = () => {
    const button = list().querySelector("[data-above]");
    const top = table().tHead.getBoundingClientRect().bottom;
    for (const id of [...arrived]) {
      const box = rowOf(id)?.getBoundingClientRect();
      if (!box || box.bottom > top + 4) arrived.delete(id);
    }
    button.hidden = arrived.size === 0;
    button.firstElementChild.textContent = String(arrived.size);
  };
  addEventListener("scroll", () => { if (arrived.size) badge(); }, { passive: true });

  let waiting = new Set();
  let busy = false;
  const look = async () => {
    if (busy || !waiting.size) return;
    busy = true;
    const asked = [...waiting], began = performance.now();
    waiting = new Set();
    // What changed meanwhile is asked for next, after a pause as long as the answer took: a busy server gets more time.
    let pause = 0;
    try {
      merge(asked, await ask(`/worklist/changes?${list().dataset.address}&ids=${asked.join(",")}`, false));
      pause = performance.now() - began;
    } catch (error) {
      // Asked again with the next event, or when the stream is back.
      asked.forEach((id) => waiting.add(id));
      if (!(error instanceof TypeError) && String(error.message).startsWith("status 4")) waiting.clear();
      pause = 2000;
    } finally {
      busy = false;
    }
    if (waiting.size) setTimeout(look, pause);
  };
  document.addEventListener("studies", (event) => {
    for (const id of JSON.parse(event.detail.data)) waiting.add(id);
    look();
  });
  // The stream was interrupted, or too much changed: all visible rows, and what is new.
  document.addEventListener("refresh", async () => {
    await quietly((async () => {
      const found = await ask(`/worklist/rows?${list().dataset.address}`, false);
      merge([...found.querySelectorAll("tr[data-id]")].map((row) => row.dataset.id), found);
    })());
    for (const row of rows().slice(0, 400)) waiting.add(row.dataset.id);
    look();
  });

  // --- counts and waits --------------------------------------------------------------------------------

  let counted = 0;
  let later;
  const counts = () => {
    clearTimeout(later);
    later = setTimeout(async () => {
      counted = Date.now();
      try {
        const answer = await fetch(`/worklist/counts?${list().dataset.address}`, {
          headers: { "X-Idle-Seconds": String(Math.round(clearfilm.idleSeconds())) },
        });
        if (!answer.ok) return;
        const found = await answer.json();
        for (const place of list().querySelectorAll("[data-count]")) place.textContent = found[place.dataset.count] ?? "";
      } catch {
        // The next change asks again.
      }
    }, Math.max(0, 2000 - (Date.now() - counted)));
  };

  const words = (minutes) => {
    const { min, hours, days } = table().dataset;
    if (minutes < 120) return min.replace("{n}", minutes);
    if (minutes < 2880) {
      return hours.replace("{h}", Math.floor(minutes / 60)).replace("{m}", String(minutes % 60).padStart(2, "0"));
    }
    return days.replace("{n}", Math.floor(minutes / 1440));
  };
  const tick = () => {
    for (const row of table().querySelectorAll("tr[data-unread]")) {
      const minutes = Math.max(0, Math.floor((Date.now() - Date.parse(row.dataset.since)) / 60000));
      const wait = row.querySelector(".wait");
      if (wait) wait.textContent = words(minutes);
      const meter = row.querySelector("meter");
      if (meter) meter.value = minutes;
    }
  };
  setInterval(tick, 15000);

  const begin = () => {
    arrived.clear();
    waiting.clear();
    tick();
    counts();
  };
  begin();
})();
