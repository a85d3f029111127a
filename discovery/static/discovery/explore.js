/* Pictures by keyboard: one stop for Tab, arrows from one part to the next, a line that says what
 * the part under the pointer or the focus is. `data-explore` names that line, `data-says` a part;
 * with `data-order="line"` the parts follow one another, else they lie in two dimensions. */
(() => {
  "use strict";

  const middle = (one) => {
    const box = one.getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  };
  const DIRECTIONS = {
    ArrowLeft: { x: -1, y: 0 },
    ArrowRight: { x: 1, y: 0 },
    ArrowUp: { x: 0, y: -1 },
    ArrowDown: { x: 0, y: 1 },
  };

  /** The nearest part in a direction; what lies aside counts as farther away. */
  const nearest = (parts, here, direction) => {
    const from = middle(here);
    let best = null;
    let least = Infinity;
    for (const part of parts) {
      if (part === here) continue;
      const to = middle(part);
      const along = (to.x - from.x) * direction.x + (to.y - from.y) * direction.y;
      const aside = Math.abs((to.x - from.x) * direction.y) + Math.abs((to.y - from.y) * direction.x);
      if (along > 2 && along + 3 * aside < least) {
        least = along + 3 * aside;
        best = part;
      }
    }
    return best;
  };

  const explore = (root) => {
    const parts = [...root.querySelectorAll("[data-says]")];
    const line = document.getElementById(root.dataset.explore);
    const inLine = root.dataset.order === "line";
    if (!parts.length || !line) return;
    let current = parts[0];

    const say = (part) => {
      line.textContent = part.dataset.says;
      line.classList.add("dc-said");
    };
    const enter = (part) => {
      current.setAttribute("tabindex", "-1");
      current = part;
      current.setAttribute("tabindex", "0");
    };
    const following = (key) => {
      if (key === "Home") return parts[0];
      if (key === "End") return parts[parts.length - 1];
      const direction = DIRECTIONS[key];
      if (!direction) return null;
      if (!inLine) return nearest(parts, current, direction);
      return parts[parts.indexOf(current) + direction.x + direction.y] ?? null;
    };

    for (const part of parts) part.setAttribute("tabindex", part === current ? "0" : "-1");
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
      const next = following(event.key);
      if (next) next.focus();
      if (next || event.key in DIRECTIONS) event.preventDefault();
    });
    root.addEventListener("focusin", (event) => {
      const part = event.target.closest("[data-says]");
      if (part) { enter(part); say(part); }
    });
    for (const kind of ["pointerover", "pointerdown"]) {
      root.addEventListener(kind, (event) => {
        const part = event.target.closest("[data-says]");
        if (part) say(part);
      });
    }
  };

  const start = () => {
    for (const root of document.querySelectorAll("[data-explore]")) explore(root);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
