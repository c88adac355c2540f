// What every part of the work screen uses: its set-up, its elements, and ways to tell a person.

export const setup = JSON.parse(document.getElementById("setup").textContent);
export const at = (id) => document.getElementById(id);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Make an element; children that are strings become text, never markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** What a place of the screen is called: a letter where there are several. */
export function placeName(place, count) {
  return count > 1 ? String.fromCharCode(65 + place) : "the answer";
}

export function press(button, on) {
  button?.setAttribute("aria-pressed", String(on));
}

export function isTyping(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

let flashTimer = 0;

/** Tell a screen reader; with `seen` also the eye. */
export function say(words, seen = false) {
  at("spoken").textContent = words;
  if (seen) flash(words);
}

export function flash(words) {
  say(words);
  let box = at("flash");
  if (!box) {
    box = element("p", { id: "flash", class: "flash", "aria-hidden": "true" });
    document.body.append(box);
  }
  box.textContent = words;
  box.classList.add("on");
  clearTimeout(flashTimer);
  flashTimer = setTimeout(() => box.classList.remove("on"), 1600);
}

export function trouble(words) {
  at("trouble").textContent = words;
  at("trouble").hidden = false;
}

export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
