// Without this script every sample is shown; with it, the one that is picked.
for (const select of document.querySelectorAll("select[data-picks]")) {
  const figures = document.querySelectorAll(`[data-pick="${select.dataset.picks}"]`);
  const show = () => figures.forEach((figure) => { figure.hidden = figure.dataset.kind !== select.value; });
  select.addEventListener("change", show);
  show();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((it) => { it.open = true; }));
