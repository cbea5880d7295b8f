"use strict";

// Every value from the results is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Sorting: within each group of rows, so that reference rows stay on top. Missing values stay at the end.

function compare(a, b, kind, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return direction * (kind === "number" ? Number(a) - Number(b) : a.localeCompare(b, "en"));
}

function sort(table, header) {
  const headers = [...header.parentElement.children];
  const column = headers.indexOf(header);
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of headers) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => row.children[column].dataset.v;
  for (const body of table.tBodies) {
    const rows = [...body.rows];
    rows.sort((a, b) => compare(value(a), value(b), header.dataset.kind, descending ? -1 : 1));
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table")) {
  for (const header of table.querySelectorAll("th[aria-sort]")) {
    header.querySelector("button").addEventListener("click", () => sort(table, header));
  }
}

// Filtering. Reference rows stay: without them the others cannot be read.

const filter = document.getElementById("filter");

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.querySelectorAll("tbody:not(.reference) tr")];
  for (const row of rows) {
    const name = row.dataset.name.toLowerCase();
    row.hidden = !words.every((word) => name.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}

if (filter) {
  filter.parentElement.hidden = false;
  filter.addEventListener("input", applyFilter);
  applyFilter(); // a reloaded page may come back with text in the field
}

// The panel behind a cell.

const dialog = document.getElementById("detail");

function list(pairs) {
  const made = element("dl");
  for (const [label, value] of pairs) made.append(element("dt", label), element("dd", value));
  return made;
}

function copyButton(source) {
  const button = element("button", "Copy", "copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // no clipboard here: leave it selected
    }
  });
  return button;
}

function commandLine(text) {
  const code = element("code");
  text.split(/ (?=--)/).forEach((option, i) => code.append(i ? " " : "", element("span", option)));
  const made = element("pre");
  made.append(code);
  return made;
}

function details(cell) {
  const command = commandLine(cell.command);
  const parts = [
    element("p", cell.accuracy, "accuracy"),
    element("p", cell.certainty, "certainty"),
    ...cell.notes.map((note) => element("p", note, "note")),
    element("h3", "Run it again"),
    ...(cell.command ? [command, copyButton(command)] : []),
    element("p", cell.needs, cell.command ? "certainty" : "note"),
    element("h3", "What was measured"),
    list([["protector", cell.protector], ["countermeasure", cell.countermeasure], ...data.panels[cell.panel]]),
    element("h3", "Results"),
  ];
  cell.results.forEach((values, i) => {
    const one = element("details");
    one.open = i === 0;
    one.append(element("summary", `Seed ${values[data.labels.indexOf("seed")]}`));
    one.append(list(data.labels.map((label, j) => [label, values[j]])));
    parts.push(one);
  });
  return parts;
}

function show(key) {
  const found = Object.values(data.cells).find((cell) => cell.keys.includes(key));
  if (!found) return;
  document.getElementById("detail-title").textContent = `${found.protector} against ${found.countermeasure}`;
  document.getElementById("detail-body").replaceChildren(...details(found));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#cell=${encodeURIComponent(key)}`); // a link to this very cell
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-cell]");
  if (button) show(button.dataset.cell);
  if (event.target === dialog) dialog.close(); // the backdrop
});

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));

function fromAddress() {
  const match = location.hash.match(/^#cell=(.+)$/);
  if (match) show(decodeURIComponent(match[1]));
}

addEventListener("hashchange", fromAddress);
fromAddress();
