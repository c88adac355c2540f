// The work screen of every kind of work: one item at a time, by keys, nothing lost.
//
// What one kind asks for lives in a module of its own, which `setup.script` names. It makes an object:
// `fields` of an empty draft, `dress(pane, place)`, `show()` for a new item, `showDraft(draft)`,
// `digit(number)`, `enter()`, `keys`, `wire()`; `moves` where arrows move and do not answer; `view`
// where texts are shown one way only.

import { makeApi, Away } from "./api.js";
import { openDialog, singleKeys, wireDialogs } from "./dialogs.js";
import { makeDrafts } from "./drafts.js";
import { makeExtras } from "./extras.js";
import { Outbox } from "./outbox.js";
import { all, at, clock, flash, isTyping, press, say, setup, trouble } from "./page.js";
import { makePanes, paint, showRest } from "./show.js";

const GUARD_MS = 250;
const BEAT_MS = 30000;
const ACTIVE_MS = 30000;
const IDLE_MS = 300000;
const RETRY_MS = 1500;
const LOOK_MS = 5000;
const MOST_REVISIONS = 10000;

const project = encodeURIComponent(setup.project);
const request = makeApi(setup.csrf);
const names = { both_bad: "Both bad", all_bad: "All bad", cannot_judge: "Can’t judge", invalid: "Broken item", tie: "Equal" };
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
  active: 0, // seconds in use for this item
  began: 0,
  revisions: 0,
  input: Date.now(),
};

const { make } = await import(`./${setup.script}.js`);
const kind = make({
  work: () => state.shown,
  draft: () => state.draft,
  changed: draftChanged,
  answer,
  byPointer: () => { state.by = "pointer"; },
});
const extras = makeExtras({ draft: () => state.draft, count: () => state.shown.candidates.length, changed: draftChanged });
const empty = { outcome: null, ...kind.fields, flags: [], reasons: [], note: null };
const drafts = makeDrafts(empty, {
  request, claim,
  shown: () => state.shown,
  draft: () => state.draft,
  away: () => outbox.away,
  replaced: (draft) => { state.draft = draft; kind.show?.(); showDraft(); },
});

// --- what is on its way ---------------------------------------------------------------------

const outbox = new Outbox(`${store}.outbox`, send, { changed: showSaved, lost: answerRefused });
outbox.sent = (entry) => {
  drafts.forget(entry.item);
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
    box.textContent = `saved ${clock(new Date())}`;
  }
}

// --- items ----------------------------------------------------------------------------------

function claim() {
  return request("POST", `/projects/${project}/leases`, { count: setup.depth });
}

async function fill() {
  if (state.filling) return;
  state.filling = true;
  try {
    // What this browser has not delivered yet is no more work, though the server thinks so.
    const value = await claim();
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
  state.draft = drafts.load(work);
  state.active = work.active ?? 0;
  state.revisions = work.revisions ?? 0;
  state.began = Date.now();
  makePanes(work.candidates.length, kind.dress);
  repaint();
  for (const pane of [at("prompt"), ...all(".text, .panes")]) pane.scrollTop = 0;
  if (document.documentElement.scrollHeight > innerHeight) scrollTo(0, 0);
  extras.begin();
  kind.show?.();
  showDraft();
}

function repaint() {
  paint(state.shown, kind.view ?? (state.raw ? "raw" : "html"));
}

let lookTimer;

function rest() {
  const reason = outbox.away ? "away" : outbox.size ? "saving" : state.nothing?.reason ?? "all_done";
  showRest(reason, state.nothing, state.progress.done);
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

function draftChanged(rethought = true) {
  if (rethought) state.revisions += 1;
  drafts.keep(state.shown, state.draft);
  showDraft();
}

function showDraft() {
  kind.showDraft(state.draft);
  for (const button of all(".other[data-outcome]")) button.classList.toggle("before", button.dataset.outcome === state.draft.outcome);
  extras.show();
}

// --- answering ------------------------------------------------------------------------------

function answer(outcome, fields = {}, words = names[outcome]) {
  const work = state.shown;
  if (!work || performance.now() < state.guardUntil) return;
  drafts.stop();
  const { flags, reasons } = state.draft;
  const said = { outcome, flags, reasons, note: state.draft.note?.trim() || null, ...fields };
  if (Object.keys(drafts.said(state.draft)).some((name) => !(name in said))) drafts.setAside(work, state.draft);
  leave({
    id: crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    lease: work.lease, item: work.item, answer: said,
    timing: { active_seconds: state.active, open_seconds: (Date.now() - state.began) / 1000, revisions: Math.min(state.revisions, MOST_REVISIONS) },
    client: { page: setup.page, keys: "default", view: state.raw || kind.view === "raw" ? "raw" : "rendered", by: state.by },
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
    drafts.forget(value.work.item);
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
  work = drafts.withAside(work);
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

// --- keys and buttons -----------------------------------------------------------------------

function setRaw() {
  if (kind.view) return;
  state.raw = !state.raw;
  press(at("raw"), state.raw);
  if (state.shown) repaint();
  say(state.raw ? "Text as written." : "Text rendered.");
}

const keys = {
  u: () => answer("cannot_judge"), x: () => answer("invalid"),
  k: skip, z: undo, m: setRaw, f: extras.flagKey,
  r: () => at("reasons") && extras.openDrawer("reasons"),
  n: () => extras.openDrawer("notes"),
  g: () => openDialog("guide"),
  "?": () => openDialog("help"),
  ...Object.fromEntries(all(".other[data-outcome][data-key]").map((button) => [button.dataset.key, () => answer(button.dataset.outcome)])),
  ...kind.keys,
};

addEventListener("keydown", (event) => {
  if (event.altKey || document.querySelector("dialog[open]")) return;
  const key = event.key.toLowerCase();
  const sends = key === "enter" && kind.enter && state.shown;
  if (event.ctrlKey || event.metaKey) {
    if (!sends || event.repeat) return;
    event.preventDefault();
    state.by = "key";
    kind.enter();
    return;
  }
  if (event.repeat && !(kind.moves && key.startsWith("arrow"))) return;
  if (key === "escape") {
    if (isTyping(event.target)) event.target.blur();
    extras.openDrawer(null, false);
    return;
  }
  if (isTyping(event.target) || !singleKeys()) return;
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
  if (!state.shown && !["z", "?", "g"].includes(key)) return;
  state.by = "key";
  if (digit && !event.shiftKey) {
    event.preventDefault();
    if (!extras.digit(Number(digit)) && performance.now() >= state.guardUntil) kind.digit?.(Number(digit));
  } else if (sends) {
    if (event.target.closest("button, a, summary")) return; // Enter presses what has the focus
    event.preventDefault();
    kind.enter();
  } else if (keys[key]) {
    if (!kind.moves && scrolls(key, event.target)) return;
    event.preventDefault();
    keys[key](event);
  }
});

/** Whether an arrow scrolls what has the focus and is longer than its box. */
function scrolls(key, box) {
  if (!key.startsWith("arrow") || box === document.body) return false;
  const longer = box.matches?.(".text, .prompt") && box.scrollHeight > box.clientHeight + 1;
  return key === "arrowdown" ? longer : box.scrollWidth > box.clientWidth;
}

function wire() {
  for (const button of all(".other[data-outcome]")) button.addEventListener("click", () => { state.by = "pointer"; answer(button.dataset.outcome); });
  at("skip")?.addEventListener("click", skip);
  at("undo").addEventListener("click", undo);
  at("raw")?.addEventListener("click", setRaw);
  at("again").addEventListener("click", fill);
  wireDialogs({ request, outbox, fill });
  extras.wire();
  kind.wire?.();
}

wire();
await outbox.flush();
await fill();
document.body.dataset.ready = "yes";
