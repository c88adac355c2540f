// Values of attributes for each candidate. One candidate with one attribute takes one key.

import { all, at, element, placeName, press, say, setup } from "./page.js";

const MOST_BUTTONS = 11;

export function make(shell) {
  const { attributes } = setup;
  let now = 0; // the cell that a digit fills: candidate by candidate, attribute by attribute

  const count = () => shell.work().candidates.length;
  const cells = () => count() * attributes.length;
  const placeOf = (cell) => Math.floor(cell / attributes.length);
  const attributeOf = (cell) => attributes[cell % attributes.length];
  const nameOf = (cell) => (count() > 1 ? `${placeName(placeOf(cell), count())}, ${attributeOf(cell).says}` : attributeOf(cell).says);
  const ranges = (attribute) => attribute.high - attribute.low + 1 > MOST_BUTTONS;

  function valueOf(cell) {
    const [place, { name }] = [placeOf(cell), attributeOf(cell)];
    return shell.draft().ratings.find((one) => one.place === place && one.attribute === name)?.value ?? null;
  }

  /** Which value a digit means: itself, where all values are digits; else the step that it counts. */
  function meant({ low, high }, digit) {
    const value = low >= 0 && high <= 9 ? digit : low + (digit || 10) - 1;
    return value >= low && value <= high ? value : null;
  }

  function keep(cell, value) {
    const [place, { name }] = [placeOf(cell), attributeOf(cell)];
    const others = shell.draft().ratings.filter((one) => one.place !== place || one.attribute !== name);
    shell.draft().ratings = value === null ? others : [...others, { place, attribute: name, value }];
  }

  function fill(cell, value) {
    now = cell;
    keep(cell, value);
    if (cells() === 1) {
      submit();
      return;
    }
    const next = [...Array(cells()).keys()].map((step) => (cell + step + 1) % cells()).find((one) => valueOf(one) === null);
    shell.changed();
    if (next === undefined) say("All is rated. Enter sends it.");
    else move(next);
  }

  function move(cell) {
    now = Math.max(0, Math.min(cell, cells() - 1));
    showNow();
    rowOf(now)?.scrollIntoView({ block: "nearest" });
    say(`${nameOf(now)}${valueOf(now) === null ? "" : `: ${valueOf(now)}`}`);
  }

  const rowOf = (cell) => document.querySelector(`[data-cell="${cell}"]`);

  function showNow() {
    for (const row of all(".marks-row")) {
      const on = Number(row.dataset.cell) === now && cells() > 1;
      row.classList.toggle("now", on);
      if (on) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  function showDraft() {
    for (const row of all(".marks-row")) {
      const value = valueOf(Number(row.dataset.cell));
      for (const step of all(".step", row)) press(step, Number(step.dataset.value) === value);
      const box = row.querySelector("input");
      if (box && document.activeElement !== box) box.value = value ?? "";
    }
    showNow();
  }

  function submit() {
    const missing = [...Array(cells()).keys()].find((cell) => attributeOf(cell).required && valueOf(cell) === null);
    if (missing !== undefined) {
      move(missing);
      say(`${nameOf(missing)} is missing.`, true);
      return;
    }
    const words = cells() === 1 ? `${attributeOf(0).says}: ${valueOf(0)}` : "Rated";
    shell.answer("rated", { ratings: shell.draft().ratings }, words);
  }

  function dress(pane, place) {
    const single = shell.work().candidates.length === 1;
    const rows = attributes.map((attribute, number) => {
      const of = single ? "" : ` of answer ${placeName(place, 2)}`;
      const row = element("div", { class: "marks-row", role: "group", "aria-label": `${attribute.says}${of}`, "data-cell": place * attributes.length + number },
        element("span", { class: "marks-name" }, attribute.says, ...(attribute.required ? [] : [element("span", { class: "soft" }, " optional")])));
      row.append(ranges(attribute) ? boxFor(row, attribute, of) : stepsFor(row, attribute, of));
      return row;
    });
    pane.append(element("div", { class: "marks" }, ...rows));
  }

  function stepsFor(row, attribute, of) {
    const steps = [];
    for (let value = attribute.low; value <= attribute.high; value += 1) {
      const step = element("button", { type: "button", class: "step", "data-value": value, "aria-pressed": "false", "aria-label": `${attribute.says}${of}: ${value}` }, String(value));
      step.addEventListener("click", () => { shell.byPointer(); fill(Number(row.dataset.cell), value); });
      steps.push(step);
    }
    return element("div", { class: "steps" }, ...steps);
  }

  function boxFor(row, { says, low, high }, of) {
    const box = element("input", { type: "number", min: low, max: high, step: "1", class: "number", "aria-label": `${says}${of}, ${low} to ${high}`, placeholder: `${low} to ${high}` });
    const given = () => (box.value !== "" && box.checkValidity() ? Number(box.value) : null);
    box.addEventListener("focus", () => { now = Number(row.dataset.cell); showNow(); });
    box.addEventListener("input", () => { keep(Number(row.dataset.cell), given()); shell.changed(false); });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      if (given() === null) say(`${says} is a whole number from ${low} to ${high}.`, true);
      else { box.blur(); fill(Number(row.dataset.cell), given()); }
    });
    return box;
  }

  function digit(number) {
    const attribute = attributeOf(now);
    if (ranges(attribute)) {
      const box = rowOf(now).querySelector("input");
      box.value = String(number);
      box.focus();
      keep(now, box.checkValidity() ? number : null);
      shell.changed(false);
      return;
    }
    const value = meant(attribute, number);
    if (value === null) say(`${nameOf(now)} goes from ${attribute.low} to ${attribute.high}.`, true);
    else fill(now, value);
  }

  return {
    fields: { ratings: [] },
    moves: true,
    dress,
    show() { now = Math.max(0, [...Array(cells()).keys()].findIndex((cell) => valueOf(cell) === null)); },
    showDraft,
    digit,
    enter: submit,
    keys: {
      arrowup: () => move(now - 1), arrowleft: () => move(now - 1),
      arrowdown: () => move(now + 1), arrowright: () => move(now + 1),
      backspace: () => { keep(now, null); shell.changed(); },
    },
    wire() { at("done").addEventListener("click", () => { shell.byPointer(); submit(); }); },
  };
}
