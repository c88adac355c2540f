// A run's page while the run goes on: drawn anew when its files change; samples sent to labelling.

import { makeApi, Refused } from "./api.js";

const EVERY_MS = 3000;
const run = document.body.dataset.run;
const api = makeApi(document.body.dataset.csrf);
const said = document.getElementById("live-said");
let version = document.body.dataset.version;
let away = false;

function say(text, trouble = false) {
  said.textContent = text;
  said.classList.toggle("trouble", trouble);
}

/** What a reader has set: sliders and open folds, by their order on the page. */
function settings() {
  const sliders = [...document.querySelectorAll(".slider input[type=range]")].map((range) => ({
    value: range.value, last: range.value === range.max, moved: range.hasAttribute("aria-valuetext"),
  }));
  const folds = [...document.querySelectorAll("main details")].map((fold) => fold.open);
  return { sliders, folds };
}

function restore({ sliders, folds }) {
  document.querySelectorAll(".slider input[type=range]").forEach((range, index) => {
    const before = sliders[index];
    if (!before?.moved) return;
    range.value = before.last ? range.max : before.value;
    range.dispatchEvent(new Event("input"));
  });
  document.querySelectorAll("main details").forEach((fold, index) => { fold.open = folds[index] ?? fold.open; });
}

async function redraw() {
  const answer = await fetch(location.href);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const before = settings();
  for (const name of ["header.top", "main"]) {
    document.querySelector(name).replaceWith(fresh.querySelector(name));
  }
  document.getElementById("live-state").textContent = fresh.getElementById("live-state").textContent;
  version = fresh.body.dataset.version;
  window.armSliders(document);
  armSending();
  restore(before);
}

function armSending() {
  for (const form of document.querySelectorAll("form.send")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form);
    });
  }
}

async function send(form) {
  const box = form.closest(".samples");
  const steps = box.dataset.updates.split("|").map(Number);
  const range = box.querySelector(".slider input[type=range]");
  const body = { step: steps[range ? Number(range.value) : steps.length - 1], against: steps[0], project: form.elements.project.value || null };
  form.querySelector("button").disabled = true;
  try {
    const found = await api("POST", `/runs/${box.dataset.run}/items`, body);
    const left = Object.entries(found.left_out).map(([why, count]) => `${count} left out (${why})`).join(", ");
    say(`${found.added} pairs are in ${found.project}${found.known ? `, ${found.known} were there` : ""}${left ? `; ${left}` : ""}.`);
    for (const option of form.querySelectorAll("option[value='']")) if (found.added) option.textContent = `new: ${found.project} is made`;
  } catch (error) {
    say(error instanceof Refused ? error.message : "The server does not answer; nothing was sent.", true);
  } finally {
    form.querySelector("button").disabled = false;
  }
}

async function look() {
  if (!document.hidden) {
    try {
      const now = await api("GET", `/runs/${run}/state`);
      if (away) say("");
      away = false;
      if (now.version !== version) await redraw();
    } catch {
      away = true;
      say("The server does not answer. What you see is as of the last look.", true);
    }
  }
  setTimeout(look, EVERY_MS);
}

armSending();
setTimeout(look, EVERY_MS);
