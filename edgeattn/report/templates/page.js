// Without this script every figure is shown; with it, the ones that are picked.
const pickers = [...document.querySelectorAll("select[data-picks]")];
const show = (name) => {
  const chosen = pickers.filter((it) => it.dataset.picks === name);
  for (const figure of document.querySelectorAll(`[data-map="${name}"]`)) {
    figure.hidden = chosen.some((it) => figure.dataset[it.dataset.axis] !== it.value);
  }
};
for (const select of pickers) {
  select.addEventListener("change", () => show(select.dataset.picks));
}
new Set(pickers.map((it) => it.dataset.picks)).forEach(show);
// On paper, the identity and the artifacts that did not pass are shown, with every sample of the
// head that was picked.
addEventListener("beforeprint", () => {
  document.querySelectorAll(".identity").forEach((it) => { it.open = true; });
  for (const figure of document.querySelectorAll("[data-map]")) {
    const head = pickers.find((it) => it.dataset.picks === figure.dataset.map && it.dataset.axis === "head");
    figure.hidden = head !== undefined && figure.dataset.head !== head.value;
  }
});
addEventListener("afterprint", () => new Set(pickers.map((it) => it.dataset.picks)).forEach(show));
// A link to what is folded unfolds it.
const unfold = () => document.querySelector(`${location.hash || "main"} > details`)?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
