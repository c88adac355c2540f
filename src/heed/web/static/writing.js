// A reply in a person's own words: written from nothing, or an answer made better.

import { at, say, setup } from "./page.js";

export function make(shell) {
  const reply = at("reply");
  const edits = setup.kind === "edit";

  // As a text field has it: its lines end in one sign, whatever ended them before.
  const original = () => (edits ? shell.work().candidates[0].text.replace(/\r\n?/g, "\n") : "");

  function submit() {
    const text = reply.value;
    if (!text.trim()) say("There is no text yet; w goes to it.", true);
    else if (!edits) shell.answer("written", { text }, "Written");
    else if (text === original()) say("The text is as it was; y says that it is good so.", true);
    else shell.answer("edited", { text }, "Edited");
  }

  function approve() {
    if (!edits) return;
    if (reply.value !== original()) say("You have changed the text; Enter sends it.", true);
    else shell.answer("unchanged", {}, "Good as it is");
  }

  function showState() {
    const words = reply.value.trim() ? reply.value.trim().split(/\s+/).length : 0;
    const change = edits && reply.value === original() ? ", as it was" : "";
    at("reply-state").textContent = `${words === 1 ? "1 word" : `${words} words`}${change}`;
  }

  return {
    fields: { text: null },
    show() {
      reply.value = shell.draft().text ?? original();
      reply.scrollTop = 0;
      showState();
    },
    showDraft: showState,
    enter: submit,
    keys: {
      w: () => { reply.focus(); reply.setSelectionRange(reply.value.length, reply.value.length); },
      y: approve,
    },
    wire() {
      reply.addEventListener("input", () => { shell.draft().text = reply.value; shell.changed(false); });
      at("done").addEventListener("click", () => { shell.byPointer(); submit(); });
      at("approve")?.addEventListener("click", () => { shell.byPointer(); approve(); });
    },
  };
}
