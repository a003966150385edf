"use strict";
const images = JSON.parse(document.getElementById("images").textContent);
for (const image of document.querySelectorAll("img[data-image]")) {
  const jpeg = images[image.dataset.image];
  if (jpeg) image.src = "data:image/jpeg;base64," + jpeg;
}

for (const section of document.querySelectorAll(".lists")) {
  const form = section.querySelector("form"), list = section.querySelector("ol"), items = [...list.children];
  const orders = {
    worst: (a, b) => a.dataset.precision - b.dataset.precision,
    best: (a, b) => b.dataset.precision - a.dataset.precision,
    path: (a, b) => (a.dataset.path < b.dataset.path ? -1 : a.dataset.path > b.dataset.path ? 1 : 0),
  };
  const show = () => {
    const wanted = ["identity", "camera", "outcome"].map((name) => [name, form.elements[name].value]);
    let shown = 0;
    for (const item of items) {
      item.hidden = wanted.some(([name, value]) => value !== "" && item.dataset[name] !== value);
      shown += item.hidden ? 0 : 1;
    }
    list.append(...items.slice().sort(orders[form.elements.order.value]));
    form.querySelector("output").textContent = `${shown} shown`;
    section.querySelector(".nothing").hidden = shown > 0;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show(); // a browser that reloads a page keeps what was chosen
}

const themes = ["automatic", "light", "dark"], button = document.getElementById("theme");
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "automatic") + 1) % themes.length];
  document.documentElement.dataset.theme = next;
  button.textContent = `Theme: ${next}`;
});
