// The wall: shows anew what the node says has changed, and counts the minutes.
"use strict";

(() => {
  const wall = document.getElementById("wall");
  let asked = false;

  const refresh = async () => {
    if (asked) return;
    asked = true;
    try {
      const answer = await fetch("/wall/rows", { headers: { "X-Idle-Seconds": "86400" } });
      if (answer.ok) wall.innerHTML = await answer.text();
    } catch {
      // The mark of the lost connection says so; the next event or minute tries again.
    } finally {
      asked = false;
    }
  };

  for (const name of ["studies", "refresh"]) document.addEventListener(name, refresh);
  setInterval(refresh, 30000);
})();
