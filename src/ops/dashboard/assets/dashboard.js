// Fetches the page again every few seconds and shows what is new. Without it, everything works but that.
"use strict";
(() => {
  const contact = document.getElementById("contact");
  let lostAt = null;
  let isPressing = false;

  const live = () => document.getElementById("live");
  const everyMs = () => 1000 * Number(live()?.dataset.everyS ?? 0);

  // What a person is about to do comes first: no text is taken from under a selection, no field from under a hand.
  const isBusy = () => {
    const selection = document.getSelection();
    const isSelecting = selection && !selection.isCollapsed && live().contains(selection.anchorNode);
    return document.visibilityState !== "visible" || isPressing || isSelecting || Boolean(document.activeElement?.closest("form"));
  };

  // The links and buttons of a page are found again by what they lead to and where they stand.
  const stops = () => [...live().querySelectorAll("a, button, summary, [tabindex]")];
  const nameOf = (stop) => stop.getAttribute("href") ?? stop.id ?? stop.textContent;

  const swap = (fresh) => {
    const focused = document.activeElement;
    const place = stops().indexOf(focused);
    const name = place >= 0 ? nameOf(focused) : null;
    const scrolled = [...live().querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const open = new Set([...live().querySelectorAll("details[open]")].map((box) => box.id));
    live().replaceWith(fresh);
    live().querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
    live().querySelectorAll("details").forEach((box) => { box.open = box.open || open.has(box.id); });
    if (place >= 0) {
      const same = stops();
      const next = nameOf(same[place] ?? document.body) === name ? same[place] : same.find((stop) => nameOf(stop) === name);
      next?.focus({ preventScroll: true });
    }
  };

  const say = (text) => { if (contact.textContent !== text) contact.textContent = text; };

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
      // Whose sign-in is over is led to the form, which leads back here.
      if (answer.redirected && new URL(answer.url).pathname === "/login") {
        location.assign(answer.url);
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!fresh) throw new Error(`no page, but status ${answer.status}`);
      lostAt = null;
      say("");
      if (!isBusy() && fresh.innerHTML !== live().innerHTML) swap(document.adoptNode(fresh));
    } catch {
      lostAt ??= new Date();
      say(`No contact with the worker since ${lostAt.toLocaleTimeString()}: what you see may be out of date.`);
    }
  };

  const loop = async () => {
    if (everyMs() > 0 && !isBusy()) await refresh();
    setTimeout(loop, everyMs() || 3000);
  };

  // A link that is taken away between press and release is never followed.
  addEventListener("pointerdown", () => { isPressing = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { isPressing = false; }, 100));

  // A notice of what was done is not for whoever loads the page again.
  const here = new URL(location.href);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    here.searchParams.delete("n");
    history.replaceState(null, "", here);
  }
  document.addEventListener("visibilitychange", () => { if (everyMs() > 0 && !isBusy()) refresh(); });
  setTimeout(loop, everyMs() || 3000);
})();
