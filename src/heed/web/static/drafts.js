// Unfinished answers: in the browser at once, on the server soon, brought back after a reload or an undo.

import { Away } from "./api.js";
import { say, setup } from "./page.js";

const SAVE_MS = 600;

/** `empty` is the draft of nothing said; `page` has what is on screen and how the server is asked. */
export function makeDrafts(empty, page) {
  const store = `heed.${setup.person}.${setup.project}`;
  const key = (item) => `${store}.draft.${item}`;
  const asideKey = (item) => `${store}.aside.${item}`;
  let timer = 0;

  /** The fields of a draft that this page knows and that say something. */
  function given(body) {
    return Object.fromEntries(Object.entries(body ?? {}).filter(([name, value]) => name in empty && value !== null));
  }

  function load(work) {
    const kept = JSON.parse(localStorage.getItem(key(work.item)) ?? "null");
    const newer = kept && (kept.lease !== work.lease || kept.version >= work.draft_version);
    return { ...structuredClone(empty), ...given(newer ? kept.body : work.draft) };
  }

  function keep(work, draft) {
    try {
      localStorage.setItem(key(work.item), JSON.stringify({ lease: work.lease, version: work.draft_version, body: draft }));
    } catch {
      say("This browser’s storage is full; the server alone keeps the draft.");
    }
    clearTimeout(timer);
    timer = setTimeout(() => save(work), SAVE_MS);
  }

  async function save(work) {
    if (page.shown() !== work || page.away()) return;
    const body = structuredClone(page.draft());
    try {
      const value = await page.request("PUT", `/leases/${work.lease}/draft`, body, { "If-Match": `"${work.draft_version}"` });
      work.draft_version = value.version;
      say("Draft saved.");
    } catch (error) {
      // Otherwise the browser has it, and the next change tries again.
      if (error.status === 409) await takeNewer(work, body);
      else if (error instanceof Away) work.unsure = body;
    }
  }

  async function takeNewer(work, body) {
    const value = await page.claim().catch(() => null);
    const newer = value?.work.find((one) => one.lease === work.lease);
    if (!newer || page.shown() !== work) return;
    const own = work.unsure && same(given(newer.draft), given(work.unsure));
    Object.assign(work, { draft: newer.draft, draft_version: newer.draft_version });
    if (own) {
      await save(work); // it came from here: the server had stored it, and its word was lost
      return;
    }
    forget(work.item);
    setAside(work, body);
    page.replaced(load(work));
    say("This draft was changed in another tab. That version is shown.", true);
  }

  function forget(item) {
    localStorage.removeItem(key(item));
  }

  /** Keep what an answer leaves out, such as a text beside "can’t judge". */
  function setAside(work, body) {
    try {
      sessionStorage.setItem(asideKey(work.item), JSON.stringify(body));
    } catch {
      // Storage is full; the answer itself is kept elsewhere.
    }
  }

  /** An undone item with what its answer had left out. */
  function withAside(work) {
    const aside = JSON.parse(sessionStorage.getItem(asideKey(work.item)) ?? "null");
    sessionStorage.removeItem(asideKey(work.item));
    return aside ? { ...work, draft: { ...aside, ...said(work.draft) } } : work;
  }

  /** Fields that are not as in an empty draft. */
  function said(body) {
    return Object.fromEntries(Object.entries(given(body)).filter(([name, value]) => !same(value, empty[name])));
  }

  return { load, keep, forget, setAside, withAside, said, stop: () => clearTimeout(timer) };
}

/** Whether two values of JSON are the same; what is missing is as null. */
function same(a, b) {
  if (!a || !b || typeof a !== "object" || typeof b !== "object") return (a ?? null) === (b ?? null);
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every((name) => same(a[name], b[name]));
}
