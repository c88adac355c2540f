// An order of two to nine candidates in places, best first; those with the same place are equal.
//
// While it is unfinished, `buckets` has one entry per place, some of them empty; what is sent has none.

import { all, at, element, placeName, press, say } from "./page.js";

const BAD = "bad";

export function make(shell) {
  let now = 0; // the candidate that a digit places
  let last = null; // the one that was placed last

  const count = () => shell.work().candidates.length;
  const name = (candidate) => placeName(candidate, 2);
  const places = () => [...Array(count()).keys()];

  /** The place of a candidate from 0, `bad`, or null. */
  function where(candidate) {
    const { buckets, unranked_bad } = shell.draft();
    if (unranked_bad.includes(candidate)) return BAD;
    const found = buckets.findIndex((bucket) => bucket.includes(candidate));
    return found < 0 ? null : found;
  }

  function put(candidate, place) {
    const draft = shell.draft();
    const buckets = places().map((one) => (draft.buckets[one] ?? []).filter((other) => other !== candidate));
    draft.unranked_bad = draft.unranked_bad.filter((other) => other !== candidate);
    if (place === BAD) draft.unranked_bad.push(candidate);
    else if (place !== null) buckets[place].push(candidate);
    draft.buckets = buckets;
    if (place !== null) last = candidate;
  }

  function place(candidate, wanted) {
    put(candidate, wanted);
    now = candidate;
    shell.changed();
    const next = places().map((step) => (candidate + step) % count()).find((one) => where(one) === null);
    if (next === undefined) say("All have a place. Enter sends the order.");
    else move(next);
  }

  function move(candidate) {
    now = Math.max(0, Math.min(candidate, count() - 1));
    showNow();
    at(`pane-${now}`)?.scrollIntoView({ block: "nearest" });
    const found = where(now);
    say(`Answer ${name(now)}${found === null ? "" : found === BAD ? ": too bad to rank" : `: place ${found + 1}`}`);
  }

  function shift(step) {
    const found = where(now);
    if (found === null || found === BAD) {
      say(`Answer ${name(now)} has no place yet; a digit gives it one.`, true);
      return;
    }
    put(now, Math.max(0, Math.min(found + step, count() - 1)));
    shell.changed();
    say(`Answer ${name(now)}: place ${where(now) + 1}`);
  }

  function tie() {
    const found = last === null || last === now ? null : where(last);
    if (found === null) say("Nothing has a place yet that it could share.", true);
    else place(now, found);
  }

  function showNow() {
    for (const pane of all(".pane[data-place]")) {
      const on = Number(pane.dataset.place) === now;
      pane.classList.toggle("now", on);
      if (on) pane.setAttribute("aria-current", "true");
      else pane.removeAttribute("aria-current");
    }
  }

  function showDraft() {
    for (const candidate of places()) {
      const found = where(candidate);
      for (const step of all(".step", at(`pane-${candidate}`))) press(step, step.dataset.value === String(found));
    }
    showNow();
    const open = places().filter((one) => where(one) === null);
    const { unranked_bad } = shell.draft();
    const said = ranked().map((bucket, rank) => `${rank + 1}: ${bucket.map(name).join(" = ")}`);
    if (unranked_bad.length) said.push(`bad: ${unranked_bad.map(name).join(", ")}`);
    if (open.length) said.push(`no place yet: ${open.map(name).join(", ")}`);
    at("order").replaceChildren(...said.map((words) => element("span", { class: "order-part" }, words)));
  }

  /** The buckets that hold something, best first. */
  function ranked() {
    return shell.draft().buckets.filter((bucket) => bucket.length).map((bucket) => [...bucket].sort((a, b) => a - b));
  }

  function submit() {
    const open = places().find((one) => where(one) === null);
    if (open !== undefined) {
      move(open);
      say(`Answer ${name(open)} has no place yet.`, true);
      return;
    }
    const buckets = ranked();
    if (buckets.length) shell.answer("ranked", { buckets, unranked_bad: shell.draft().unranked_bad }, "Ranked");
    else shell.answer("all_bad");
  }

  function dress(pane, candidate) {
    const steps = [...places(), BAD].map((value) => {
      const words = value === BAD ? "Bad" : String(value + 1);
      const label = value === BAD ? `Answer ${name(candidate)} is too bad to rank` : `Answer ${name(candidate)}: place ${value + 1}`;
      const step = element("button", { type: "button", class: "step", "data-value": value, "aria-pressed": "false", "aria-label": label }, words);
      step.addEventListener("click", () => { shell.byPointer(); place(candidate, value); });
      return step;
    });
    pane.append(element("div", { class: "marks" }, element("div", { class: "steps", role: "group", "aria-label": `Place of answer ${name(candidate)}, 1 is best` }, ...steps)));
  }

  return {
    fields: { buckets: [], unranked_bad: [] },
    moves: true,
    dress,
    show() { last = null; now = Math.max(0, places().findIndex((one) => where(one) === null)); },
    showDraft,
    digit(number) {
      if (number > count()) say(`There are places 1 to ${count()}; 0 says too bad to rank.`, true);
      else place(now, number === 0 ? BAD : number - 1);
    },
    enter: submit,
    keys: {
      arrowleft: () => move(now - 1), arrowright: () => move(now + 1),
      arrowup: () => shift(-1), arrowdown: () => shift(1),
      "=": tie,
      backspace: () => { put(now, null); shell.changed(); },
    },
    wire() { at("done").addEventListener("click", () => { shell.byPointer(); submit(); }); },
  };
}
