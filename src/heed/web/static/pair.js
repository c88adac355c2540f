// Which of two is better, and by how much: one key an answer.

import { all, at, say, setup } from "./page.js";

export function make(shell) {
  let sync = false;

  function choose(number) {
    const button = all(".choice")[number - 1];
    if (!button) return;
    const { side, level } = button.dataset;
    const words = button.querySelector(".says").textContent.trim().replace(/\s+/g, " ");
    if (side === "") shell.answer("tie");
    else shell.answer("prefer", { side: Number(side), level: Number(level) }, words);
  }

  function middle(side) {
    const level = Math.ceil(setup.levels / 2);
    choose(all(".choice").findIndex((one) => one.dataset.side === String(side) && Number(one.dataset.level) === level) + 1);
  }

  function showDraft(draft) {
    for (const button of all(".choice")) {
      const { side, level } = button.dataset;
      const chosen = side === "" ? draft.outcome === "tie" : draft.outcome === "prefer" && Number(side) === draft.side && Number(level) === draft.level;
      button.classList.toggle("before", chosen);
    }
  }

  function scrolled(event) {
    const from = event.target;
    const to = at(`text-${from.id === "text-0" ? 1 : 0}`);
    if (!sync || !from.matches?.(".text") || document.activeElement === to) return;
    const share = from.scrollTop / Math.max(1, from.scrollHeight - from.clientHeight);
    to.scrollTop = share * (to.scrollHeight - to.clientHeight);
  }

  return {
    fields: { side: null, level: null },
    showDraft,
    digit: choose,
    keys: {
      s: () => { sync = !sync; say(sync ? "Answers scroll together." : "Answers scroll apart.", true); },
      arrowleft: () => middle(0), arrowright: () => middle(1),
      arrowdown: () => setup.has_tie && shell.answer("tie"),
    },
    wire() {
      all(".choice").forEach((button, number) => button.addEventListener("click", () => { shell.byPointer(); choose(number + 1); }));
      at("panes").addEventListener("scroll", scrolled, { passive: true, capture: true });
    },
  };
}
