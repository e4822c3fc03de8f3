// Refreshes the live part of the page. Without script the pages work, and do not refresh.
"use strict";
(() => {
  const contact = document.getElementById("contact");
  let lostAt = null;
  let isPressing = false;

  const live = () => document.getElementById("live");
  const everyMs = () => 1000 * Number(live()?.dataset.everyS ?? 0);

  // A refresh must not destroy a selection, an open form or a field that an operator uses.
  const isBusy = () => {
    const selection = document.getSelection();
    const isSelecting = selection && !selection.isCollapsed && live().contains(selection.anchorNode);
    return document.visibilityState !== "visible" || isPressing || isSelecting || Boolean(document.activeElement?.closest("form") ?? document.querySelector(":popover-open"));
  };

  // After a refresh, the focused link or button is found again by its name and its position.
  const focusable = () => [...live().querySelectorAll("a, button, [tabindex]")];
  const nameOf = (element) => element.getAttribute("href") ?? element.id ?? element.textContent;

  const swap = (fresh) => {
    const focused = document.activeElement;
    const place = focusable().indexOf(focused);
    const name = place >= 0 ? nameOf(focused) : null;
    const scrolled = [...live().querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    live().replaceWith(fresh);
    live().querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
    if (place >= 0) {
      const same = focusable();
      const next = nameOf(same[place] ?? document.body) === name ? same[place] : same.find((element) => nameOf(element) === name);
      next?.focus({ preventScroll: true });
    }
  };

  const showContact = (text) => { if (contact.textContent !== text) contact.textContent = text; };

  const refresh = async () => {
    try {
      // A browser fetches no URL with a password, as an operator may have typed it.
      const response = await fetch(location.origin + location.pathname + location.search, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!fresh) throw new Error(`no page, but status ${response.status}`);
      lostAt = null;
      showContact("");
      if (!isBusy() && fresh.innerHTML !== live().innerHTML) swap(document.adoptNode(fresh));
    } catch {
      lostAt ??= new Date();
      showContact(`The worker has not answered since ${lostAt.toLocaleTimeString()}. This page may be out of date.`);
    }
  };

  const loop = async () => {
    if (everyMs() > 0 && !isBusy()) await refresh();
    setTimeout(loop, everyMs() || 3000);
  };

  // Browsers do not follow a link that a refresh replaces between press and release.
  addEventListener("pointerdown", () => { isPressing = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { isPressing = false; }, 100));

  document.addEventListener("visibilitychange", () => { if (everyMs() > 0 && !isBusy()) refresh(); });
  setTimeout(loop, everyMs() || 3000);
})();
