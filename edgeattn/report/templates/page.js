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
// On paper, the identity and some of the artifacts that did not pass are shown.
addEventListener("beforeprint", () => {
  document.querySelectorAll(".identity, .printed > details").forEach((it) => { it.open = true; });
});
// A link to what is folded unfolds it.
const unfold = () => document.querySelector(`${location.hash || "main"} > details`)?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
