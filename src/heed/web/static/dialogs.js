// The dialogs over the page: keys, guideline, and the way out.

import { at, setup, trouble } from "./page.js";

export function openDialog(id) {
  at(id)?.showModal();
}

/** Whether single keys are on. */
export const singleKeys = () => at("single").checked;

export function wireDialogs({ request, outbox, fill }) {
  const project = encodeURIComponent(setup.project);

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

  at("open-help").addEventListener("click", () => openDialog("help"));
  at("close-help").addEventListener("click", () => at("help").close());
  at("open-guide")?.addEventListener("click", () => openDialog("guide"));
  at("close-guide")?.addEventListener("click", readGuide);
  at("single").checked = localStorage.getItem("heed.single") !== "off";
  at("single").addEventListener("change", () => localStorage.setItem("heed.single", singleKeys() ? "on" : "off"));
  at("logout").addEventListener("click", leaveSite);
}
