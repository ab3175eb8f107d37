// Show the cards that hold the wanted words, are of the wanted split and have the wanted problem. Without this script the page shows all.
const controls = document.querySelector("#controls");
const cards = [...document.querySelectorAll(".card")];
const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
const chips = [...controls.querySelectorAll("button")];
const search = controls.querySelector("input");
const splits = controls.querySelector("select");
const count = controls.querySelector("output");

const show = () => {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const kind = chips.find((chip) => chip.getAttribute("aria-pressed") === "true")?.dataset.kind ?? "";
  for (const card of cards) {
    const kinds = card.dataset.kinds.split(" ").filter(Boolean);
    const ofKind = kind === "" || (kind === "none" ? kinds.length === 0 : kinds.includes(kind));
    const ofSplit = !splits || splits.value === "" || splits.value === card.dataset.split;
    card.hidden = !(ofKind && ofSplit && wanted.every((word) => words.get(card).includes(word)));
  }
  const shown = cards.filter((card) => !card.hidden).length;
  count.textContent = shown === cards.length ? `${shown} pictures` : `${shown} of ${cards.length} pictures`;
};

for (const chip of chips) {
  chip.addEventListener("click", () => {
    for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
    show();
  });
}
controls.addEventListener("input", show);
controls.hidden = cards.length === 0;
show();
