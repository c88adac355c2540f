// Without this script every table shows its first, last and chosen looks.
function armSliders(root) {
  for (const box of root.querySelectorAll(".samples")) {
    const steps = box.dataset.steps.split("|");
    const bar = box.querySelector(".slider");
    if (steps.length < 3) continue;
    const range = bar.querySelector("input");
    const shown = bar.querySelector("output");
    const rows = box.querySelectorAll("tr[data-step]");
    range.addEventListener("input", () => {
      const step = steps[Number(range.value)];
      shown.textContent = step;
      range.setAttribute("aria-valuetext", "update " + step);
      for (const row of rows) {
        row.hidden = row.dataset.step !== step && row.dataset.step !== steps[0];
      }
    });
    bar.querySelector(".overview").addEventListener("click", () => {
      for (const row of rows) row.hidden = !("shown" in row.dataset);
    });
    bar.hidden = false;
  }
}
armSliders(document);
