// The ways in (one-time code, login, invitation) and out.

const root = document.getElementById("enter");
const said = document.getElementById("said");
const form = document.getElementById("form");
const logout = document.getElementById("logout");

// The code stands behind the #, which no browser sends; it leaves the address bar at once.
const code = location.hash.slice(1);
if (code) history.replaceState(null, "", location.pathname);

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (document.body.dataset.csrf) headers["X-CSRF-Token"] = document.body.dataset.csrf;
  const answer = await fetch(`/api/v1/auth/${path}`, {
    method: "POST", headers, body: body === null ? undefined : JSON.stringify(body),
  });
  const value = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Error(value.detail ?? "This did not work.");
  return value;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`.replace("..", ".");
}

async function enter(path, body) {
  said.className = "";
  said.textContent = "One moment.";
  try {
    const value = await post(path, body);
    location.replace(value.next);
  } catch (error) {
    said.className = "trouble";
    said.textContent = error instanceof TypeError ? "The server does not answer." : sentence(error.message);
  }
}

if (root?.dataset.mode === "start") {
  if (code) enter("start", { code });
  else said.textContent = "Open the whole address that the terminal shows, with the part behind the #.";
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(form));
  if (root.dataset.mode === "login") enter("login", fields);
  else enter("invite/accept", { ...fields, code });
});

logout?.addEventListener("click", async () => {
  await post("logout", null).catch(() => {});
  location.replace("/login");
});
