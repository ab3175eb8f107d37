// Filter and order the cards of each gallery. Without this script the page shows all of them, in the order given.
for (const gallery of document.querySelectorAll("[data-gallery]")) {
  const cards = [...gallery.querySelectorAll(".card")];
  const controls = gallery.querySelector("[data-controls]");
  const [order, which] = controls.querySelectorAll("select");
  const search = controls.querySelector("input");
  const count = controls.querySelector("output");
  const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const score = (card) => (card.dataset.score === "None" ? -1 : Number(card.dataset.score));
  const orders = {
    given: (a, b) => a.dataset.place - b.dataset.place,
    sure: (a, b) => score(b) - score(a),
    unsure: (a, b) => score(a) - score(b),
  };

  const show = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) {
      const matches = wanted.every((word) => words.get(card).includes(word));
      card.hidden = !matches || Boolean(which && which.value && card.dataset.verdict !== which.value);
    }
    cards[0].parentElement.append(...[...cards].sort(orders[order.value]));
    const shown = cards.filter((card) => !card.hidden).length;
    count.textContent = shown === cards.length ? `${shown} pictures` : `${shown} of ${cards.length} pictures`;
  };

  order.hidden = cards.every((card) => card.dataset.score === "None");
  controls.hidden = cards.length < 4;
  controls.addEventListener("input", show);
  show();
}
