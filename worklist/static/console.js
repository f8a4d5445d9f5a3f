// The admin console: rows that are chosen, by mouse or keyboard, and parts that renew themselves without disturbing.
"use strict";

(() => {
  const boxes = () => [...document.querySelectorAll('tbody input[type="checkbox"][name="chosen"]')];

  // A part that somebody works in is left alone: rows that were chosen, open details, a field with the focus.
  const isBusy = (part) => part.querySelector(
    'input:checked:not([type="radio"]), details[open], input:focus, textarea:focus, select:focus, button:focus, :active'
  ) !== null;
  // Asked again before the swap: somebody may have begun while the answer was on its way.
  for (const name of ["htmx:before:request", "htmx:before:swap"]) {
    document.addEventListener(name, (event) => {
      const source = event.detail.ctx.sourceElement;
      if (source && source.matches("[data-calm]") && isBusy(source)) event.preventDefault();
    });
  }

  const tell = () => {
    const place = document.querySelector("[data-chosen]");
    const count = boxes().filter((box) => box.checked).length;
    if (place) place.textContent = count ? `${count} ${place.dataset.words}` : "";
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-all]")) for (const box of boxes()) box.checked = event.target.checked;
    tell();
  });

  // Two clicks are one: a form is sent once.
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = "1";
    setTimeout(() => { delete event.target.dataset.sent; }, 3000);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input:not([type="checkbox"]), textarea, select, dialog')) return;
    const all = boxes();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const keys = {
      j: () => all[Math.min(at + 1, all.length - 1)].focus(),
      k: () => all[Math.max(at - 1, 0)].focus(),
      x: () => { const box = all[Math.max(at, 0)]; box.checked = !box.checked; box.focus(); tell(); },
      a: () => { const on = !all.every((box) => box.checked); for (const box of all) box.checked = on; tell(); },
    };
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
  });

  // The operating point: the figures that belong to the slider's place.
  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-slider]")) return;
    const rows = [...document.querySelectorAll("[data-step]")];
    const place = Math.max(...rows.map((row) => Number(row.dataset.step)).filter((step) => step <= Number(event.target.value)));
    for (const row of rows) row.hidden = Number(row.dataset.step) !== place;
  });

  // A file is read by the page itself and shown before it is sent.
  document.addEventListener("change", async (event) => {
    const file = event.target.matches("[data-into]") && event.target.files[0];
    if (file) document.getElementById(event.target.dataset.into).value = await file.text();
  });
})();
