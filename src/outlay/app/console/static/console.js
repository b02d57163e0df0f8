// What pages do beyond HTML: look again and put in what changed, apply filters at once, remember the colours.
// Nothing here makes HTML of its own: what it puts in was escaped by the server.
(function () {
  "use strict";
  const EVERY_MS = 2000;
  const AFTER_FAILURE_MS = 5000;
  const live = document.querySelector("[data-live]");
  const light = document.getElementById("live");
  const text = document.getElementById("live-text");

  function isBusy(part) {
    const active = document.activeElement;
    const typing = active && part.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName);
    const selection = window.getSelection();
    const marking = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    return typing || marking || part.querySelector("form[data-changed]") !== null;
  }

  function replace(part, found) {
    const open = Array.from(part.querySelectorAll("details[open][id]"), (item) => item.id);
    const scrolled = Array.from(part.querySelectorAll(".scroll"), (item) => [item.scrollLeft, item.scrollTop]);
    const active = document.activeElement;
    const focused = active && part.contains(active) ? path(part, active) : null;
    part.innerHTML = found.html;
    part.dataset.digest = found.digest;
    for (const id of open) {
      const item = document.getElementById(id);
      if (item) item.open = true;
    }
    part.querySelectorAll(".scroll").forEach((item, index) => {
      if (scrolled[index]) [item.scrollLeft, item.scrollTop] = scrolled[index];
    });
    const target = focused && follow(part, focused);
    if (target) target.focus({ preventScroll: true });
  }

  // Where an element stands, so that the one in its place gets the focus back.
  function path(part, element) {
    const steps = [];
    for (let at = element; at !== part; at = at.parentElement) {
      steps.unshift(Array.prototype.indexOf.call(at.parentElement.children, at));
    }
    return { id: element.id, tag: element.tagName, steps };
  }

  function follow(part, wanted) {
    if (wanted.id) return document.getElementById(wanted.id);
    let at = part;
    for (const step of wanted.steps) at = at && at.children[step];
    return at && at.tagName === wanted.tag ? at : null;
  }

  async function look() {
    const parts = Array.from(live.querySelectorAll("[data-part]"));
    const have = parts.map((part) => part.dataset.part + "=" + part.dataset.digest).join(",");
    const answer = await fetch(location.href, { headers: { "x-outlay-have": have }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      location.reload(); // signed out: the page itself leads to the sign-in
      return;
    }
    if (!answer.ok) throw new Error("status " + answer.status);
    const said = await answer.json();
    const known = new Map(parts.map((part) => [part.dataset.part, part]));
    if (said.parts.some((found) => !known.has(found.id))) {
      if (!parts.some(isBusy)) location.reload(); // the page has another shape now
      return;
    }
    for (const found of said.parts) {
      const part = known.get(found.id);
      if (!isBusy(part)) replace(part, found);
    }
    light.classList.remove("stale");
    text.textContent = said.at;
  }

  async function watch() {
    let pause = EVERY_MS;
    if (!document.hidden) {
      try {
        await look();
      } catch (error) {
        light.classList.add("stale");
        text.textContent = "not up to date";
        pause = AFTER_FAILURE_MS;
      }
    }
    setTimeout(watch, pause);
  }

  if (live && light) {
    live.addEventListener("input", (event) => {
      const form = event.target.closest("form");
      if (form) form.dataset.changed = "";
    });
    setTimeout(watch, EVERY_MS);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) look().catch(() => light.classList.add("stale"));
    });
  }

  const filters = document.querySelector("[data-filters]");
  if (filters) {
    const go = () => {
      const wanted = new URLSearchParams();
      for (const [name, value] of new FormData(filters)) {
        const usual = filters.elements[name].dataset.default;
        if (value && value !== usual) wanted.append(name, value);
      }
      location.assign(filters.getAttribute("action") + (wanted.size ? "?" + wanted : ""));
    };
    filters.addEventListener("submit", (event) => { event.preventDefault(); go(); });
    // a list that the keyboard walks through changes at each step: it is applied when it is left or by Enter
    filters.querySelectorAll("select").forEach((list) => {
      let byKey = false;
      list.addEventListener("keydown", (event) => {
        byKey = event.key !== "Enter";
        if (event.key === "Enter") { event.preventDefault(); go(); }
      });
      list.addEventListener("pointerdown", () => { byKey = false; });
      list.addEventListener("change", () => { if (!byKey) go(); });
    });
    // after the back button a browser puts in what was chosen there last: the address is what counts
    window.addEventListener("pageshow", () => filters.reset());
  }

  const theme = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  const words = { auto: "Auto", light: "Light", dark: "Dark" };
  function say() {
    const now = document.documentElement.dataset.theme || "auto";
    theme.textContent = words[now];
    theme.setAttribute("aria-label", "Colours: " + (now === "auto" ? "as the system" : now));
  }
  if (theme) {
    say();
    theme.addEventListener("click", () => {
      const now = document.documentElement.dataset.theme || "auto";
      const next = order[(order.indexOf(now) + 1) % order.length];
      if (next === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      try { localStorage.setItem("outlay-theme", next); } catch (error) { /* it holds for this page */ }
      say();
    });
  }

  // A link from elsewhere comes without the session's cookie (SameSite=Strict): asked again from here, it has it.
  const signin = document.querySelector("[data-signin]");
  if (signin) {
    fetch("/signin", { redirect: "manual" }).then((answer) => {
      if (answer.type === "opaqueredirect") location.replace(location.href);
    }).catch(() => undefined);
  }
})();
