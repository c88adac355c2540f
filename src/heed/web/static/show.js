// An item on the screen: its prompt, a pane for each candidate, and what stands there instead.

import { all, at, clock, element, say } from "./page.js";

const ROLES = { user: "User", assistant: "Assistant", system: "System", text: "Prompt" };

/** Make a pane for each candidate, unless they are there; `dress(pane, place)` adds what a kind needs. */
export function makePanes(count, dress) {
  const box = at("panes");
  if (all(".pane[data-place]", box).length === count) return;
  for (const old of all(".pane[data-place]", box)) old.remove();
  const panes = [...Array(count).keys()].map((place) => {
    const letter = count > 1 ? String.fromCharCode(65 + place) : "";
    const name = letter ? `Answer ${letter}` : "Answer";
    const pane = element("section", { class: "pane", id: `pane-${place}`, "data-place": place, "aria-label": name },
      element("h2", { class: "pane-title" },
        ...(letter ? [element("span", { class: "letter", "aria-hidden": "true" }, letter), element("span", { class: "unseen" }, name)] : [name]),
        element("span", { class: "pane-flags", id: `flagged-${place}` })),
      element("div", { class: "text", id: `text-${place}`, tabindex: "0", role: "group", "aria-label": `Text of ${name.toLowerCase()}`, dir: "auto" }));
    dress?.(pane, place);
    return pane;
  });
  box.prepend(...panes);
  box.classList.toggle("many", count > 2);
  box.classList.toggle("n4", count === 4);
}

/** Show the texts of an item. They are sanitised by the server, and the page's policy runs no script but its own. */
export function paint(work, view) {
  const instruction = at("instruction");
  instruction.hidden = !work.instruction;
  if (work.instruction) instruction.innerHTML = work.instruction[view];
  at("turns").replaceChildren(...work.turns.map((turn, number) => turnOf(turn, view, number, work.turns.length)));
  work.candidates.forEach((one, place) => { at(`text-${place}`).innerHTML = one[view]; });
  document.body.classList.toggle("as-written", view === "raw");
  for (const wide of all(".text pre, .turn-text pre, .text table")) {
    if (wide.scrollWidth > wide.clientWidth) {
      wide.tabIndex = 0;
      wide.setAttribute("role", "group");
      wide.setAttribute("aria-label", "Wide content, scrolls sideways");
    }
  }
}

function turnOf(turn, view, number, count) {
  const folds = count > 2 && number < count - 1;
  const text = element("div", { class: "turn-text", dir: "auto" });
  text.innerHTML = turn[view];
  const role = element(folds ? "summary" : "p", { class: "role" }, ROLES[turn.role] ?? turn.role);
  return element(folds ? "details" : "div", { class: "turn", ...(folds ? { open: "" } : {}) }, role, text);
}

/** Say why there is no item. */
export function showRest(reason, nothing, done) {
  at("work").hidden = at("dock").hidden = true;
  at("rest").hidden = false;
  const free = nothing?.free_at;
  const about = {
    away: ["The server does not answer", "Your answers are kept in this browser and are sent when it is back. This page tries again by itself."],
    saving: ["Saving", "Your last answers are on their way."],
    paused: ["A pause", "This project is paused. Whoever runs it opens it again."],
    closed: ["This project is closed", "Thank you for your work."],
    guideline: ["First, the guideline", "There is a new version. Read it (g), then go on."],
    daily_cap: ["Enough for today", "You have reached today’s limit. Thank you."],
    leased_by_others: ["Others are at the last items", free ? `One may come back at ${clock(new Date(free))} at the latest.` : ""],
    needs_skill: ["Nothing for you now", "What is left needs a skill that your account does not name."],
    set_aside: ["Only what you skipped is left", "Skipped items come back to you later."],
    no_items: ["No items yet", "They appear here as soon as they are added."],
    all_done: ["All done", `${done === 1 ? "1 answer is" : `${done} answers are`} saved. Thank you.`],
  };
  const [title, text] = about[reason] ?? about.no_items;
  at("rest-title").textContent = title;
  at("rest-text").textContent = text;
  const end = at("rest-export");
  if (end) end.hidden = nothing?.reason !== "all_done";
  // What is said already is not said at every look.
  if (at("rest").dataset.said !== title + text) say(`${title}. ${text}`);
  at("rest").dataset.said = title + text;
}
