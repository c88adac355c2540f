// Marks on a text, each of a kind and with a comment.
//
// Offsets count UTF-16 units of the stored text. What is shown differs from it: line ends are one
// sign, and hidden signs are words such as U+202E. So each shown text node knows where it stands in
// the stored text, and marks are painted over the text (CSS highlights), never put into it.

import { all, at, element, press, say, setup } from "./page.js";

const MOST_SHOWN = 80;

export function make(shell) {
  let nodes = []; // shown text nodes: { node, starts } with the place of each unit, and the end
  let words = []; // { start, end }
  let sentences = [];
  let [anchor, head] = [-1, -1]; // words that the arrows chose
  let chosen = null; // { start, end } of the stored text
  let current = -1; // the mark that comments and Backspace are about

  const text = () => shell.work().candidates[0].text;
  const marks = () => shell.draft().spans;

  // --- the shown text and the stored one ----------------------------------------------------

  function mapText() {
    nodes = [];
    let place = 0;
    const walker = document.createTreeWalker(at("text-0"), NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const starts = [];
      if (node.parentElement.closest(".sign")) {
        starts.push(...Array(node.data.length).fill(place));
        place += String.fromCodePoint(parseInt(node.data.slice(2), 16)).length;
      } else {
        for (let unit = 0; unit < node.data.length; unit += 1) {
          starts.push(place);
          place += text()[place] === "\r" && text()[place + 1] === "\n" ? 2 : 1;
        }
      }
      nodes.push({ node, starts: [...starts, place] });
    }
    words = pieces("word").filter((piece) => /[\p{L}\p{N}\p{S}\p{P}]/u.test(text().slice(piece.start, piece.end)));
    sentences = pieces("sentence");
  }

  function pieces(granularity) {
    const found = [...new Intl.Segmenter(undefined, { granularity }).segment(text())];
    return found
      .map(({ segment, index }) => ({ start: index, end: index + segment.trimEnd().length }))
      .filter(({ start, end }) => end > start);
  }

  /** Where a point of the shown text stands in the stored one. */
  function stored(node, offset) {
    if (node.nodeType !== Node.TEXT_NODE) {
      const next = node.childNodes[offset];
      const after = nodes.find((one) => next && (one.node === next || next.contains(one.node)));
      return after ? after.starts[0] : nodes.at(-1)?.starts.at(-1) ?? 0;
    }
    return nodes.find((one) => one.node === node)?.starts[offset] ?? null;
  }

  /** The shown range of a stored one; null where nothing of it is shown. */
  function shownRange({ start, end }) {
    const range = new Range();
    const first = nodes.find(({ starts }) => start >= starts[0] && start < starts.at(-1));
    const final = nodes.findLast(({ starts }) => end > starts[0] && end <= starts.at(-1));
    if (!first || !final) return null;
    range.setStart(first.node, first.starts.findIndex((place) => place >= start));
    range.setEnd(final.node, final.starts.findIndex((place) => place >= end));
    return range;
  }

  // --- choosing words -------------------------------------------------------------------------

  function choose(from, to) {
    if (!words.length) return;
    [anchor, head] = [from, to].map((word) => Math.max(0, Math.min(word, words.length - 1)));
    const [first, final] = [Math.min(anchor, head), Math.max(anchor, head)];
    take({ start: words[first].start, end: words[final].end });
    getSelection().removeAllRanges();
    if (!CSS.highlights) getSelection().addRange(shownRange(chosen));
    shownRange(chosen)?.startContainer.parentElement.scrollIntoView?.({ block: "nearest" });
    say(text().slice(chosen.start, chosen.end));
  }

  function take(range) {
    chosen = range;
    current = marks().findIndex((mark) => mark.start === range?.start && mark.end === range?.end);
    showDraft();
  }

  function step(event, by) {
    if (event.shiftKey && anchor >= 0) choose(anchor, head + by);
    else choose(...Array(2).fill(head < 0 ? 0 : head + by));
  }

  function sentence(by) {
    const from = chosen?.start ?? -1;
    const next = by > 0
      ? sentences.find((one) => one.start > from)
      : sentences.findLast((one) => one.start < from);
    if (!next) return;
    const inside = [...words.keys()].filter((word) => words[word].start >= next.start && words[word].end <= next.end);
    if (inside.length) choose(inside[0], inside.at(-1));
  }

  function selected() {
    const selection = getSelection();
    if (selection.isCollapsed || !selection.rangeCount) return;
    const range = selection.getRangeAt(0);
    if (!at("text-0").contains(range.startContainer) || !at("text-0").contains(range.endContainer)) return;
    const [start, end] = [stored(range.startContainer, range.startOffset), stored(range.endContainer, range.endOffset)];
    if (start === null || end === null || end <= start || (start === chosen?.start && end === chosen?.end)) return;
    anchor = head = words.findIndex((word) => word.end > start);
    take({ start, end });
  }

  // --- marks ----------------------------------------------------------------------------------

  function mark(number) {
    const kind = setup.span_kinds[number];
    if (!kind) return;
    if (!chosen) {
      say("Choose words first: with the arrows, or by selecting them.", true);
      return;
    }
    const { start, end } = chosen;
    const same = (one) => one.start === start && one.end === end && one.kind === kind.name;
    if (marks().some(same)) {
      keep(marks().filter((one) => !same(one)));
      say(`Mark removed: ${kind.says}.`);
    } else {
      const made = { place: 0, start, end, kind: kind.name, quote: text().slice(start, end), comment: null };
      keep([...marks(), made]);
      current = marks().indexOf(made);
      showDraft();
      say(`Marked: ${kind.says}. c comments on it.`);
    }
  }

  function keep(found) {
    shell.draft().spans = found.sort((a, b) => a.start - b.start || a.end - b.end || (a.kind < b.kind ? -1 : 1));
    current = -1;
    shell.changed();
  }

  function go(by) {
    if (!marks().length) return;
    const next = current < 0 ? (by > 0 ? 0 : marks().length - 1) : (current + by + marks().length) % marks().length;
    const { start, end, kind } = marks()[next];
    chosen = { start, end };
    anchor = head = words.findIndex((word) => word.end > start);
    current = next;
    showDraft();
    say(`${says(kind)}: ${text().slice(start, end)}`);
  }

  const says = (name) => setup.span_kinds.find((kind) => kind.name === name)?.says ?? name;

  function remove() {
    const number = current < 0 ? marks().length - 1 : current;
    if (number < 0) return;
    keep(marks().filter((_, other) => other !== number));
    say("Mark removed.", true);
  }

  function comment() {
    const number = current < 0 ? marks().length - 1 : current;
    if (number < 0) say("There is no mark yet to comment on.", true);
    else at(`comment-${number}`).focus();
  }

  function rowOf(one, number) {
    const quote = one.quote.length > MOST_SHOWN ? `${one.quote.slice(0, MOST_SHOWN)}…` : one.quote;
    const box = element("textarea", { id: `comment-${number}`, rows: "1", maxlength: "10000", "aria-label": `Comment on mark ${number + 1}`, placeholder: "Comment" });
    box.value = one.comment ?? "";
    box.addEventListener("focus", () => { current = number; showCurrent(); });
    box.addEventListener("input", () => { one.comment = box.value || null; shell.changed(false); });
    const gone = element("button", { type: "button", class: "quiet", "aria-label": `Remove mark ${number + 1}` }, "Remove");
    gone.addEventListener("click", () => { current = number; remove(); });
    const head = element("div", { class: "mark-head" }, element("span", { class: `mark-kind k${kindNumber(one.kind)}` }, says(one.kind)), element("span", { class: "grow" }), gone);
    return element("li", { class: "mark-row" }, head, element("q", {}, quote), box);
  }

  const kindNumber = (name) => setup.span_kinds.findIndex((kind) => kind.name === name) % 5;

  function showCurrent() {
    all(".mark-row").forEach((row, number) => row.classList.toggle("now", number === current));
    for (const button of all(".kind")) press(button, marks().some((one) => one.start === chosen?.start && one.end === chosen?.end && one.kind === setup.span_kinds[button.dataset.kind].name));
  }

  function showDraft() {
    // A comment that is being written keeps its field.
    if (!document.activeElement?.id?.startsWith("comment-")) at("marks").replaceChildren(...marks().map(rowOf));
    at("no-marks").hidden = marks().length > 0;
    showCurrent();
    if (!CSS.highlights) return; // the list says it all
    CSS.highlights.clear();
    for (let number = 0; number < 5; number += 1) {
      const found = marks().filter((one) => kindNumber(one.kind) === number).map(shownRange).filter(Boolean);
      if (found.length) CSS.highlights.set(`k${number}`, new Highlight(...found));
    }
    const range = chosen && shownRange(chosen);
    if (range) {
      const over = new Highlight(range);
      over.priority = 1;
      CSS.highlights.set("chosen", over);
    }
  }

  function submit() {
    if (!marks().length) {
      say("Nothing is marked; 0 says that there is nothing to mark.", true);
      return;
    }
    shell.answer("marked", { spans: marks(), text_sha256: shell.work().candidates[0].sha256 }, marks().length === 1 ? "1 mark" : `${marks().length} marks`);
  }

  function clean() {
    if (marks().length) say("There are marks; Enter sends them, Backspace removes one.", true);
    else shell.answer("marked", { spans: [], text_sha256: null }, "Nothing to mark");
  }

  return {
    fields: { spans: [], text_sha256: null },
    moves: true,
    view: "raw",
    show() {
      mapText();
      [anchor, head, chosen, current] = [-1, -1, null, -1];
    },
    showDraft,
    digit: (number) => (number === 0 ? clean() : mark(number - 1)),
    enter: submit,
    keys: {
      arrowleft: (event) => step(event, -1), arrowright: (event) => step(event, 1),
      arrowup: () => sentence(-1), arrowdown: () => sentence(1),
      "[": () => go(-1), "]": () => go(1), c: comment, backspace: remove,
    },
    wire() {
      document.addEventListener("selectionchange", selected);
      for (const button of all(".kind")) {
        button.addEventListener("pointerdown", (event) => event.preventDefault()); // the selection stays
        button.addEventListener("click", () => { shell.byPointer(); mark(Number(button.dataset.kind)); });
      }
      at("clean").addEventListener("click", () => { shell.byPointer(); clean(); });
      at("done").addEventListener("click", () => { shell.byPointer(); submit(); });
      at("marks").addEventListener("focusout", () => setTimeout(showDraft));
    },
  };
}
