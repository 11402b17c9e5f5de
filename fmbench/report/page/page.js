"use strict";
// What the page can do beyond being read: sort and filter tables, enlarge figures, open every part for print.

const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

// Sort: a button in each header. A column of numbers is sorted as numbers, by the first number of each cell.
const NUMBER = /^[^\d\s-]{0,2}(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w:])/i;

function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = NUMBER.exec(text);
  return { text, number: number ? Number(number[1]) : NaN, empty: text === "" || text === "-" };
}

function sort(table, column) {
  const body = table.tBodies[0];
  const header = table.tHead.rows[0].cells[column];
  const down = header.getAttribute("aria-sort") === "ascending";
  const keys = new Map([...body.rows].map((row) => [row, key(row, column)]));
  const numeric = [...keys.values()].every((k) => k.empty || !Number.isNaN(k.number));
  const compare = (a, b) => (numeric ? a.number - b.number : a.text.localeCompare(b.text));
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    if (a.empty || b.empty) return a.empty - b.empty;
    return down ? compare(b, a) : compare(a, b);
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    if (header.textContent.trim() === "") return;
    const button = make("button", { type: "button" });
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, column));
  });
}

// Filter: rows of one data set and one method. A row without a data set or a method stays.
const prose = (text) => text.trim().replace(/, (.*)$/, " ($1)");
for (const table of document.querySelectorAll("table")) {
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  for (const row of table.tBodies[0].rows) {
    if (names[0] === "Method" && !row.dataset.method) row.dataset.method = prose(row.cells[0].textContent);
  }
}

const chosen = { dataset: "", method: "" };

function filter() {
  for (const element of document.querySelectorAll("[data-dataset], [data-method]")) {
    const out = Object.keys(chosen).some((name) => chosen[name] && element.dataset[name] && element.dataset[name] !== chosen[name]);
    element.toggleAttribute("data-out", out);
  }
}

function select(label, name) {
  const values = new Set([...document.querySelectorAll(`[data-${name}]`)].map((element) => element.dataset[name]));
  const box = make("select");
  box.append(make("option", { value: "", textContent: "all" }));
  for (const value of values) box.append(make("option", { value, textContent: value }));
  box.name = name;
  box.addEventListener("change", () => {
    chosen[name] = box.value;
    filter();
  });
  const whole = make("label", { textContent: `${label} ` });
  whole.append(box);
  return whole;
}

const filters = make("div", { className: "filters" });
filters.append(select("Data set", "dataset"), select("Method", "method"));
document.querySelector(".bar").append(filters);

// Enlarge a figure.
const dialog = make("dialog");
const close = make("button", { type: "button", textContent: "Close" });
const large = make("img");
dialog.append(close, large);
document.body.append(dialog);
dialog.addEventListener("click", () => dialog.close());
for (const image of document.querySelectorAll("figure img")) {
  const button = make("button", { type: "button", title: "Enlarge" });
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  });
}

// Print: open every folded part, and close it again.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
});
