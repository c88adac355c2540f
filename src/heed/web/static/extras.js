// Beside the answer, for every kind of work: reasons, flags, a note, each in a drawer.

import { all, at, element, placeName, press, setup } from "./page.js";

/** `draft()` is the unfinished answer, `count()` how many candidates it is about, `changed()` is called after changes. */
export function makeExtras({ draft, count, changed }) {
  let open = null;
  let flagged = 0; // the candidate that flags are for

  function show() {
    const { reasons, flags, note: words } = draft();
    for (const chip of all("[data-reason]")) press(chip, reasons.includes(setup.reasons[chip.dataset.reason]));
    for (const chip of all("[data-flag]")) press(chip, has(setup.flags[chip.dataset.flag]));
    for (let place = 0; place < count(); place += 1) {
      press(at(`flag-${place}`), flagged === place);
      const codes = flags.filter((flag) => flag.place === place).map((flag) => flag.code.replaceAll("_", " "));
      const box = at(`flagged-${place}`);
      if (box) box.textContent = codes.length ? `flagged: ${codes.join(", ")}` : "";
    }
    const note = at("note");
    if (document.activeElement !== note) note.value = words ?? "";
    mark("reasons", reasons.length);
    mark("flags", flags.length);
    mark("notes", words ? 1 : 0);
  }

  function mark(drawer, number) {
    document.querySelector(`[data-drawer="${drawer}"]`)?.classList.toggle("has", number > 0);
  }

  function has(code) {
    return draft().flags.some((flag) => flag.place === flagged && flag.code === code);
  }

  function toggleReason(number) {
    const code = setup.reasons[number];
    if (code === undefined) return;
    const { reasons } = draft();
    draft().reasons = reasons.includes(code) ? reasons.filter((one) => one !== code) : [...reasons, code];
    changed();
  }

  function toggleFlag(number) {
    const code = setup.flags[number];
    if (code === undefined || flagged >= count()) return;
    const { flags } = draft();
    draft().flags = has(code)
      ? flags.filter((flag) => flag.place !== flagged || flag.code !== code)
      : [...flags, { place: flagged, code }];
    changed();
  }

  /** Open a drawer, or close it where it is open; null closes. */
  function openDrawer(name, focus = true) {
    open = focus && open === name ? null : name;
    for (const drawer of all(".drawer")) drawer.hidden = drawer.id !== open;
    for (const button of all("[data-drawer]")) button.setAttribute("aria-expanded", String(button.dataset.drawer === open));
    if (focus && open === "notes") at("note").focus();
  }

  /** `f` opens the flags, and goes from candidate to candidate; after the last it closes. */
  function flagKey() {
    if (!at("flags") || !count()) return;
    if (open !== "flags") {
      const pane = document.activeElement?.closest(".pane[data-place]");
      flagged = pane ? Number(pane.dataset.place) : 0;
      openDrawer("flags");
    } else if (flagged < count() - 1) {
      flagged += 1;
    } else {
      flagged = 0;
      openDrawer("flags");
    }
    show();
  }

  /** A digit while a drawer is open; whether it was one for it. */
  function digit(number) {
    if (open === "reasons") toggleReason(number - 1);
    else if (open === "flags") toggleFlag(number - 1);
    else return false;
    return true;
  }

  /** A new item. */
  function begin() {
    flagged = 0;
    const several = count() > 1 ? [...Array(count()).keys()] : [];
    at("flag-places")?.replaceChildren(...several.map((place) => {
      const chip = element("button", { type: "button", class: "chip", id: `flag-${place}` }, placeName(place, count()));
      chip.addEventListener("click", () => { flagged = place; show(); });
      return chip;
    }));
    openDrawer(draft().note ? "notes" : null, false);
  }

  function wire() {
    for (const button of all("[data-drawer]")) button.addEventListener("click", () => openDrawer(button.dataset.drawer));
    for (const chip of all("[data-reason]")) chip.addEventListener("click", () => toggleReason(Number(chip.dataset.reason)));
    for (const chip of all("[data-flag]")) chip.addEventListener("click", () => toggleFlag(Number(chip.dataset.flag)));
    at("note").addEventListener("input", () => { draft().note = at("note").value || null; changed(false); });
  }

  return { show, begin, wire, digit, flagKey, openDrawer };
}
