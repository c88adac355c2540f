// The work screen: one item at a time, one key an answer, nothing lost.

import { makeApi, Away } from "./api.js";
import { Outbox } from "./outbox.js";

const GUARD_MS = 250;
const DRAFT_MS = 600;
const BEAT_MS = 30000;
const ACTIVE_MS = 30000;
const IDLE_MS = 300000;
const RETRY_MS = 1500;
const LOOK_MS = 5000;

const setup = JSON.parse(document.getElementById("setup").textContent);
const at = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const project = encodeURIComponent(setup.project);
const request = makeApi(setup.csrf);
const names = { both_bad: "Both bad", cannot_judge: "Can’t judge", invalid: "Broken item", tie: "Equal" };
const store = `heed.${setup.person}.${setup.project}`;

const state = {
  queue: [], // items held, the first on screen
  shown: null, // the item on screen
  draft: null, // its unfinished answer
  finished: new Set(), // leases answered here or in another tab
  progress: { done: 0, today: 0, remaining: 0 },
  nothing: null,
  filling: false,
  guardUntil: 0,
  by: "pointer",
  raw: false,
  sync: false,
  flagSide: 0,
  drawer: null,
  active: 0, // seconds in use for this item
  began: 0,
  revisions: 0,
  input: Date.now(),
};

// --- what is on its way ---------------------------------------------------------------------

const outbox = new Outbox(`${store}.outbox`, send, { changed: showSaved, lost: answerRefused });
outbox.sent = (entry) => {
  localStorage.removeItem(draftKey(entry.item));
  fill();
};
const tabs = "BroadcastChannel" in window ? new BroadcastChannel(store) : null;
tabs?.addEventListener("message", ({ data }) => {
  if (data.done) {
    state.finished.add(data.done);
    drop(data.done, "You answered this item in another tab.");
  } else if (data.undone) {
    state.finished.delete(data.undone);
    fill();
  }
});

function send(entry) {
  if (entry.skip) return request("POST", `/leases/${entry.lease}/skip`, entry.skip);
  const { id: submission_id, answer, timing, client } = entry;
  return request("POST", `/leases/${entry.lease}/judgment`, { submission_id, answer, timing, client });
}

function answerRefused(entry, error) {
  if (error.status === 401 || error.status === 403) {
    const waiting = outbox.size;
    const kept = waiting ? ` ${waiting} answers wait in this browser and are sent once you are back.` : "";
    trouble(`Your session is over. Log in again in this browser, then reload this page.${kept}`);
  } else if (error.status === 409) {
    say("That item had been answered already, perhaps in another tab.");
  } else {
    trouble(`One answer was not taken: ${error.message}`);
  }
  fill();
}

function showSaved() {
  const waiting = outbox.size;
  const box = at("saved");
  box.classList.toggle("waiting", outbox.away);
  if (outbox.away) {
    box.textContent = `offline, ${waiting} kept here`;
  } else if (waiting) {
    box.textContent = "saving…";
  } else if (box.textContent) {
    box.textContent = `saved ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
  }
}

// --- items ----------------------------------------------------------------------------------

async function fill() {
  if (state.filling) return;
  state.filling = true;
  try {
    // What this browser has not delivered yet is no more work, though the server thinks so.
    const value = await request("POST", `/projects/${project}/leases`, { count: setup.depth });
    const known = new Set(state.queue.map((work) => work.lease));
    for (const work of value.work) {
      if (known.has(work.lease) || state.finished.has(work.lease) || outbox.holds(work.lease)) continue;
      state.queue.push(work);
    }
    state.nothing = value.nothing;
    state.progress = value.progress;
    if (outbox.away) outbox.flush();
  } catch (error) {
    if (!(error instanceof Away)) answerRefused(null, error);
    else setTimeout(fill, RETRY_MS);
    if (error instanceof Away && !state.queue.length) state.nothing = { reason: "away" };
  } finally {
    state.filling = false;
  }
  if (!state.shown) advance();
  else showProgress();
}

function drop(lease, words) {
  const wasShown = state.shown?.lease === lease;
  state.queue = state.queue.filter((work) => work.lease !== lease);
  if (wasShown) {
    say(words);
    advance();
    fill();
  }
}

function advance() {
  keepTime();
  state.shown = state.queue[0] ?? null;
  state.guardUntil = performance.now() + GUARD_MS;
  if (state.shown) show(state.shown);
  else rest();
  showProgress();
}

function show(work) {
  at("work").hidden = at("dock").hidden = false;
  at("rest").hidden = true;
  delete at("rest").dataset.said;
  state.draft = loadDraft(work);
  state.active = work.active ?? 0;
  state.revisions = work.revisions ?? 0;
  state.began = Date.now();
  paint(work);
  for (const pane of [at("prompt"), at("text-0"), at("text-1")]) pane.scrollTop = 0;
  if (document.documentElement.scrollHeight > innerHeight) scrollTo(0, 0);
  openDrawer(state.draft.note ? "notes" : null, false);
  showDraft();
}

function paint(work) {
  const view = state.raw ? "raw" : "html";
  const instruction = at("instruction");
  instruction.hidden = !work.instruction;
  // Sanitised by the server, and the page's policy runs no script but its own.
  if (work.instruction) instruction.innerHTML = work.instruction[view];
  at("turns").replaceChildren(...work.turns.map((turn, number) => turnOf(turn, view, number, work.turns.length)));
  for (const side of [0, 1]) at(`text-${side}`).innerHTML = work.candidates[side][view];
  document.body.classList.toggle("as-written", state.raw);
  for (const wide of all(".text pre, .turn-text pre, .text table")) {
    if (wide.scrollWidth > wide.clientWidth) {
      wide.tabIndex = 0;
      wide.setAttribute("role", "group");
      wide.setAttribute("aria-label", "Wide content, scrolls sideways");
    }
  }
}

function turnOf(turn, view, number, count) {
  const box = document.createElement(count > 2 && number < count - 1 ? "details" : "div");
  box.className = "turn";
  const role = document.createElement(box.tagName === "DETAILS" ? "summary" : "p");
  role.className = "role";
  role.textContent = { user: "User", assistant: "Assistant", system: "System", text: "Prompt" }[turn.role] ?? turn.role;
  const text = document.createElement("div");
  text.className = "turn-text";
  text.dir = "auto";
  text.innerHTML = turn[view];
  if (box.tagName === "DETAILS") box.open = true;
  box.append(role, text);
  return box;
}

let lookTimer;

function rest() {
  at("work").hidden = at("dock").hidden = true;
  at("rest").hidden = false;
  const { done } = state.progress;
  const free = state.nothing?.free_at;
  const about = {
    away: ["The server does not answer", "Your answers are kept in this browser and are sent when it is back. This page tries again by itself."],
    saving: ["Saving", "Your last answers are on their way."],
    paused: ["A pause", "This project is paused. Whoever runs it opens it again."],
    closed: ["This project is closed", "Thank you for your work."],
    guideline: ["First, the guideline", "There is a new version. Read it (g), then go on."],
    daily_cap: ["Enough for today", "You have reached today’s limit. Thank you."],
    leased_by_others: ["Others are at the last items", free ? `One may come back at ${new Date(free).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })} at the latest.` : ""],
    needs_skill: ["Nothing for you now", "What is left needs a skill that your account does not name."],
    set_aside: ["Only what you skipped is left", "Skipped items come back to you later."],
    no_items: ["No items yet", "They appear here as soon as they are added."],
    all_done: ["All done", `${done === 1 ? "1 answer is" : `${done} answers are`} saved. Thank you.`],
  };
  const reason = outbox.away ? "away" : outbox.size ? "saving" : state.nothing?.reason ?? "all_done";
  const [title, text] = about[reason] ?? about.no_items;
  at("rest-title").textContent = title;
  at("rest-text").textContent = text;
  const end = at("rest-export");
  if (end) end.hidden = state.nothing?.reason !== "all_done";
  // What is said already is not said at every look.
  if (at("rest").dataset.said !== title + text) say(`${title}. ${text}`);
  at("rest").dataset.said = title + text;
  // A trainer may ask for more at any time. Away has its own turn.
  clearTimeout(lookTimer);
  if (reason !== "away") lookTimer = setTimeout(fill, LOOK_MS);
}

function showProgress() {
  // What waits in the outbox is done, for the person who did it.
  const waiting = outbox.read().filter((entry) => !entry.skip).length;
  const total = state.progress.done + state.progress.remaining;
  const done = Math.min(state.progress.done + waiting, total);
  at("count").textContent = total ? `${done} of ${total}` : "";
  at("fill").style.inlineSize = total ? `${(100 * done) / total}%` : "0";
  at("undo").disabled = false;
}

// --- the unfinished answer ------------------------------------------------------------------

let draftTimer = 0;

function draftKey(item) {
  return `${store}.draft.${item}`;
}

function loadDraft(work) {
  const empty = { outcome: null, side: null, level: null, flags: [], reasons: [], note: null };
  const kept = JSON.parse(localStorage.getItem(draftKey(work.item)) ?? "null");
  const newer = kept && (kept.lease !== work.lease || kept.version >= work.draft_version);
  return { ...empty, ...(newer ? kept.body : work.draft ?? {}) };
}

function draftChanged() {
  state.revisions += 1;
  const work = state.shown;
  const body = { ...state.draft };
  // In the browser at once, on the server soon.
  localStorage.setItem(draftKey(work.item), JSON.stringify({ lease: work.lease, version: work.draft_version, body }));
  showDraft();
  clearTimeout(draftTimer);
  draftTimer = setTimeout(() => saveDraft(work), DRAFT_MS);
}

async function saveDraft(work) {
  if (state.shown !== work || outbox.away) return;
  try {
    const value = await request("PUT", `/leases/${work.lease}/draft`, state.draft, { "If-Match": `"${work.draft_version}"` });
    work.draft_version = value.version;
    say("Draft saved.");
  } catch (error) {
    if (error.status !== 409) return; // the browser has it; the next change tries again
    localStorage.removeItem(draftKey(work.item));
    const value = await request("POST", `/projects/${project}/leases`, { count: setup.depth }).catch(() => null);
    const newer = value?.work.find((one) => one.lease === work.lease);
    if (!newer || state.shown !== work) return;
    Object.assign(work, { draft: newer.draft, draft_version: newer.draft_version });
    state.draft = loadDraft(work);
    showDraft();
    say("This draft was changed in another tab. That version is shown.");
  }
}

function showDraft() {
  const draft = state.draft;
  for (const button of all(".choice")) {
    const tie = button.dataset.side === "";
    const chosen = tie ? draft.outcome === "tie" : draft.outcome === "prefer" && Number(button.dataset.side) === draft.side && Number(button.dataset.level) === draft.level;
    button.classList.toggle("before", chosen);
  }
  for (const button of all(".other[data-outcome]")) button.classList.toggle("before", button.dataset.outcome === draft.outcome);
  for (const chip of all("[data-reason]")) press(chip, draft.reasons.includes(setup.reasons[chip.dataset.reason]));
  for (const chip of all("[data-flag]")) press(chip, hasFlag(state.flagSide, setup.flags[chip.dataset.flag]));
  for (const side of [0, 1]) {
    press(at(`flag-${side}`), state.flagSide === side);
    const codes = draft.flags.filter((flag) => flag.place === side).map((flag) => flag.code.replaceAll("_", " "));
    at(`flagged-${side}`).textContent = codes.length ? `flagged: ${codes.join(", ")}` : "";
  }
  const note = at("note");
  if (document.activeElement !== note) note.value = draft.note ?? "";
  mark("reasons", draft.reasons.length);
  mark("flags", draft.flags.length);
  mark("notes", draft.note ? 1 : 0);
}

function mark(drawer, count) {
  document.querySelector(`[data-drawer="${drawer}"]`)?.classList.toggle("has", count > 0);
}

function press(button, on) {
  button?.setAttribute("aria-pressed", String(on));
}

function hasFlag(place, code) {
  return state.draft.flags.some((flag) => flag.place === place && flag.code === code);
}

function toggleReason(number) {
  const code = setup.reasons[number];
  if (code === undefined) return;
  const { reasons } = state.draft;
  state.draft.reasons = reasons.includes(code) ? reasons.filter((one) => one !== code) : [...reasons, code];
  draftChanged();
}

function toggleFlag(number) {
  const code = setup.flags[number];
  if (code === undefined) return;
  const place = state.flagSide;
  state.draft.flags = hasFlag(place, code)
    ? state.draft.flags.filter((flag) => flag.place !== place || flag.code !== code)
    : [...state.draft.flags, { place, code }];
  draftChanged();
}

// --- answering ------------------------------------------------------------------------------

function answer(outcome, side = null, level = null, words = names[outcome]) {
  const work = state.shown;
  if (!work || performance.now() < state.guardUntil) return;
  clearTimeout(draftTimer);
  const { flags, reasons } = state.draft;
  const given = { outcome, flags, reasons, note: state.draft.note?.trim() || null };
  if (outcome === "prefer") Object.assign(given, { side, level });
  leave({
    id: crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    lease: work.lease, item: work.item, answer: given,
    timing: { active_seconds: state.active, open_seconds: (Date.now() - state.began) / 1000, revisions: state.revisions },
    client: { page: setup.page, keys: "default", view: state.raw ? "raw" : "rendered", by: state.by },
  }, words);
}

function skip() {
  const work = state.shown;
  if (!work || !setup.skip_mode || performance.now() < state.guardUntil) return;
  leave({ id: `skip ${work.lease}`, lease: work.lease, item: work.item, skip: { mode: setup.skip_mode } }, "Skipped");
}

function leave(entry, words) {
  const work = state.shown;
  try {
    outbox.add(entry);
  } catch {
    trouble("This browser’s storage is full, so the answer was not given. Free some space and answer again.");
    return;
  }
  state.last = work;
  state.finished.add(work.lease);
  tabs?.postMessage({ done: work.lease });
  state.queue = state.queue.filter((one) => one.lease !== work.lease);
  flash(words);
  advance();
  if (state.queue.length <= setup.depth / 2) fill();
}

async function undo() {
  if (performance.now() < state.guardUntil || state.undoing) return;
  const unsent = outbox.takeBack();
  if (unsent && state.last?.lease === unsent.lease) {
    state.finished.delete(unsent.lease);
    tabs?.postMessage({ undone: unsent.lease });
    bringBack({ ...state.last, draft: unsent.answer ?? null, draft_version: state.last.draft_version });
    return;
  }
  state.undoing = true;
  try {
    if (outbox.size) await outbox.flush();
    if (outbox.size) {
      say("The server is away, and that answer may have reached it. Undo works again when it is back.", true);
      return;
    }
    const value = await request("POST", `/projects/${project}/undo`, {});
    state.progress = value.progress;
    state.finished.delete(value.work.lease);
    tabs?.postMessage({ undone: value.work.lease });
    localStorage.removeItem(draftKey(value.work.item));
    bringBack(value.work);
  } catch (error) {
    if (error instanceof Away) say("The server is away. Undo works again when it is back.", true);
    else if (error.status === 404) say("Nothing is left to undo.", true);
    else say(error.message, true);
  } finally {
    state.undoing = false;
  }
}

function bringBack(work) {
  state.queue = [work, ...state.queue.filter((one) => one.lease !== work.lease)];
  advance();
  flash("Undone. Answer again.");
}

// --- time -----------------------------------------------------------------------------------

function keepTime() {
  if (state.shown) Object.assign(state.shown, { active: state.active, revisions: state.revisions });
}

setInterval(() => {
  const inUse = document.visibilityState === "visible" && Date.now() - state.input < ACTIVE_MS;
  if (inUse && state.shown) state.active += 0.25;
}, 250);

setInterval(async () => {
  if (document.visibilityState !== "visible" || Date.now() - state.input > IDLE_MS || outbox.away) return;
  for (const work of [...state.queue]) {
    await request("POST", `/leases/${work.lease}/heartbeat`).catch((error) => {
      // A lease that ran out is claimed again; what is on screen stays, and is kept when answered.
      if (error.status === 410 && work !== state.shown) {
        state.queue = state.queue.filter((one) => one !== work);
      }
    });
  }
  fill();
}, BEAT_MS);

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "touchstart"]) {
  addEventListener(kind, () => { state.input = Date.now(); }, { passive: true, capture: true });
}

// --- telling --------------------------------------------------------------------------------

let flashTimer = 0;

function say(words, seen = false) {
  at("spoken").textContent = words;
  if (seen) flash(words);
}

function flash(words) {
  say(words);
  let box = at("flash");
  if (!box) {
    box = document.createElement("p");
    box.id = "flash";
    box.className = "flash";
    box.setAttribute("aria-hidden", "true");
    document.body.append(box);
  }
  box.textContent = words;
  box.classList.add("on");
  clearTimeout(flashTimer);
  flashTimer = setTimeout(() => box.classList.remove("on"), 1600);
}

function trouble(words) {
  at("trouble").textContent = words;
  at("trouble").hidden = false;
}

// --- keys and buttons -----------------------------------------------------------------------

function openDrawer(name, focus = true) {
  const next = state.drawer === name ? null : name;
  if (focus && state.drawer === name) name = null;
  state.drawer = focus ? next : name;
  for (const drawer of all(".drawer")) drawer.hidden = drawer.id !== state.drawer;
  for (const button of all("[data-drawer]")) button.setAttribute("aria-expanded", String(button.dataset.drawer === state.drawer));
  if (focus && state.drawer === "notes") at("note").focus();
}

function flagKey() {
  if (state.drawer !== "flags") {
    const pane = document.activeElement?.closest(".pane");
    state.flagSide = pane ? Number(pane.id.slice(-1)) : 0;
    openDrawer("flags");
  } else if (state.flagSide === 0) {
    state.flagSide = 1;
  } else {
    state.flagSide = 0;
    openDrawer("flags");
  }
  showDraft();
}

function setRaw() {
  state.raw = !state.raw;
  press(at("raw"), state.raw);
  if (state.shown) paint(state.shown);
  say(state.raw ? "Text as written." : "Text rendered.");
}

function choose(number) {
  const button = all(".choice")[number - 1];
  if (!button) return;
  const { side, level } = button.dataset;
  const words = button.querySelector(".says").textContent.trim();
  if (side === "") answer("tie");
  else answer("prefer", Number(side), Number(level), words.replace(/\s+/g, " "));
}

function middle(side) {
  const level = Math.ceil(setup.levels / 2);
  const number = all(".choice").findIndex((one) => one.dataset.side === String(side) && Number(one.dataset.level) === level);
  choose(number + 1);
}

const letters = {
  b: () => answer("both_bad"), u: () => answer("cannot_judge"), x: () => answer("invalid"),
  k: skip, z: undo, m: setRaw, f: flagKey,
  r: () => at("reasons") && openDrawer("reasons"),
  n: () => openDrawer("notes"),
  s: () => { state.sync = !state.sync; say(state.sync ? "Answers scroll together." : "Answers scroll apart.", true); },
  g: () => openDialog("guide"),
  "?": () => openDialog("help"),
  arrowleft: () => middle(0), arrowright: () => middle(1),
  arrowdown: () => setup.has_tie && answer("tie"),
};

function isTyping(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (isTyping(event.target)) event.target.blur();
    openDrawer(null, false);
    return;
  }
  if (isTyping(event.target) || !at("single").checked) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  const key = event.key.toLowerCase();
  if (!state.shown && !["z", "?", "g"].includes(key)) return;
  state.by = "key";
  if (digit && !event.shiftKey) {
    event.preventDefault();
    if (state.drawer === "reasons") toggleReason(digit - 1);
    else if (state.drawer === "flags") toggleFlag(digit - 1);
    else choose(Number(digit));
  } else if (letters[key]) {
    // Arrows scroll what has focus and is longer than its box.
    const scrolls = key.startsWith("arrow") && event.target.scrollWidth > event.target.clientWidth && event.target !== document.body;
    if (scrolls || (key === "arrowdown" && longer(event.target))) return;
    event.preventDefault();
    letters[key]();
  }
});

function longer(box) {
  return box.matches?.(".text, .prompt") && box.scrollHeight > box.clientHeight + 1;
}

function openDialog(id) {
  at(id)?.showModal();
}

function wire() {
  all(".choice").forEach((button, number) => button.addEventListener("click", () => { state.by = "pointer"; choose(number + 1); }));
  for (const button of all(".other[data-outcome]")) button.addEventListener("click", () => { state.by = "pointer"; answer(button.dataset.outcome); });
  at("skip")?.addEventListener("click", skip);
  at("undo").addEventListener("click", undo);
  at("raw").addEventListener("click", setRaw);
  at("again").addEventListener("click", fill);
  for (const button of all("[data-drawer]")) button.addEventListener("click", () => openDrawer(button.dataset.drawer));
  for (const chip of all("[data-reason]")) chip.addEventListener("click", () => toggleReason(Number(chip.dataset.reason)));
  for (const chip of all("[data-flag]")) chip.addEventListener("click", () => toggleFlag(Number(chip.dataset.flag)));
  for (const side of [0, 1]) {
    at(`flag-${side}`)?.addEventListener("click", () => { state.flagSide = side; showDraft(); });
    at(`text-${side}`).addEventListener("scroll", () => syncScroll(side), { passive: true });
  }
  at("note").addEventListener("input", () => { state.draft.note = at("note").value || null; draftChanged(); });
  at("open-help").addEventListener("click", () => openDialog("help"));
  at("close-help").addEventListener("click", () => at("help").close());
  at("open-guide")?.addEventListener("click", () => openDialog("guide"));
  at("close-guide")?.addEventListener("click", readGuide);
  at("single").checked = localStorage.getItem("heed.single") !== "off";
  at("single").addEventListener("change", () => localStorage.setItem("heed.single", at("single").checked ? "on" : "off"));
  at("logout").addEventListener("click", leaveSite);
}

function syncScroll(side) {
  if (!state.sync || document.activeElement === at(`text-${1 - side}`)) return;
  const [from, to] = [at(`text-${side}`), at(`text-${1 - side}`)];
  const share = from.scrollTop / Math.max(1, from.scrollHeight - from.clientHeight);
  to.scrollTop = share * (to.scrollHeight - to.clientHeight);
}

async function readGuide() {
  await request("POST", `/projects/${project}/guideline/acknowledge`, { version: setup.guideline }).catch(() => null);
  at("guide").close();
  fill();
}

async function leaveSite() {
  await outbox.flush();
  if (outbox.size) {
    at("help").close();
    trouble(`${outbox.size} answers wait in this browser for the server. Log out once they are sent.`);
    return;
  }
  await request("POST", "/auth/logout").catch(() => null);
  location.replace("/login");
}

wire();
await outbox.flush();
await fill();
document.body.dataset.ready = "yes";
