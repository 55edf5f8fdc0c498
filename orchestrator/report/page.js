"use strict";
// Order of a table: by name, or by the first number of a text; what has none comes last.
function valueOf(text) {
  if (text.startsWith("<")) return 0;
  const found = text.replaceAll(",", "").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
}

function compare(a, b, sign) {
  if (a === "-" || b === "-") return (a === "-") - (b === "-");
  const x = valueOf(a), y = valueOf(b);
  if (x !== null && y !== null && x !== y) return sign * (x - y);
  return sign * a.localeCompare(b, undefined, { numeric: true });
}

function sort(table, column, head) {
  const before = head.getAttribute("aria-sort");
  const next = { none: "descending", descending: "ascending", ascending: "none" }[before];
  for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", next);
  const groups = [...table.groups];  // a line and those that say more about it stay together
  const sign = next === "ascending" ? 1 : -1;
  if (next !== "none") groups.sort((a, b) => compare(a[0].cells[column].textContent, b[0].cells[column].textContent, sign));
  table.tBodies[0].append(...groups.flat());
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  table.groups = [];
  for (const row of table.tBodies[0].rows) {
    if (row.classList.contains("more")) table.groups.at(-1).push(row);
    else table.groups.push([row]);
  }
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, column, head));
  });
}

// What a mark says, where the pointer or the arrow keys are; the other cells step back.
const MARK = ".role-mark [aria-label]";
const tip = document.getElementById("tip");

function leave(chart) {
  tip.hidden = true;
  chart.classList.remove("asked");
  for (const mark of chart.querySelectorAll(".other, .here")) mark.classList.remove("other", "here");
}

function middle(mark) {
  const box = mark.getBoundingClientRect();
  return { y: box.top + box.height / 2, height: box.height };
}

function tell(chart, mark) {
  leave(chart);
  const said = mark.getAttribute("aria-label"), cell = said.split(" · ")[0];
  const heights = [];  // of the cell's marks, by which its intervals are known
  for (const other of chart.querySelectorAll(MARK)) {
    if (other.getAttribute("aria-label").split(" · ")[0] !== cell) other.classList.add("other");
    else heights.push(middle(other).y);
  }
  for (const line of chart.querySelectorAll(".mark-rule.role-mark line")) {
    const { y, height } = middle(line);
    if (height < 4 && !heights.some((own) => Math.abs(own - y) < 6)) line.classList.add("other");
  }
  mark.classList.add("here");
  chart.classList.add("asked");
  tip.textContent = said;
  tip.hidden = false;
  const box = mark.getBoundingClientRect();
  const left = Math.min(box.left + box.width / 2 + 10, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  tip.style.top = `${(above > 50 ? above : box.bottom + 10) + scrollY}px`;
}

for (const chart of document.querySelectorAll(".chart")) {
  const marks = () => [...chart.querySelectorAll(MARK)].filter((mark) => mark.getClientRects().length);
  let place = -1;
  chart.addEventListener("pointerover", (event) => {
    const mark = event.target.closest(MARK);
    if (mark) tell(chart, mark); else leave(chart);
  });
  chart.addEventListener("pointerleave", () => leave(chart));
  chart.addEventListener("blur", () => leave(chart));
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") leave(chart);
    if (!step) return;
    event.preventDefault();
    const all = marks();
    if (!all.length) return;
    place = (place + step + all.length) % all.length;
    tell(chart, all[place]);
  });
}

// Light, dark, or as the system has it.
const theme = document.getElementById("theme"), root = document.documentElement;
const themes = ["auto", "light", "dark"];

function show(name) {
  if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
  theme.lastElementChild.textContent = name;
}

function remembered() {
  try { return localStorage.getItem("theme"); } catch { return null; }  // a page may be denied its storage
}

theme.hidden = false;
show(themes.includes(remembered()) ? remembered() : "auto");
theme.addEventListener("click", () => {
  const next = themes[(themes.indexOf(theme.lastElementChild.textContent) + 1) % themes.length];
  show(next);
  try { localStorage.setItem("theme", next); } catch { /* then it lasts as long as the page */ }
});

// On paper nothing is folded up.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) folded.dataset.folded = folded.open = true;
});
addEventListener("afterprint", () => {
  for (const folded of document.querySelectorAll("details[data-folded]")) { folded.open = false; delete folded.dataset.folded; }
});
