// The table: sorting, hidden rows and columns, and moving about in it by keys.

const headers = (table) => [...table.tHead.rows[table.tHead.rows.length - 1].cells];
const bodyRows = (table) => [...table.querySelectorAll("tbody tr[data-name]")];

// Sorting is within each group of rows, so that reference rows stay on top. Missing values stay at the end.

function compareValues(a, b, kind, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return direction * (kind === "number" ? Number(a) - Number(b) : a.localeCompare(b, "en"));
}

function sortTable(table, key, descending) {
  const heads = headers(table);
  const column = heads.findIndex((head) => head.dataset.key === key);
  if (column < 0) return;
  heads.forEach((head, i) => {
    if (head.hasAttribute("aria-sort")) {
      head.setAttribute("aria-sort", i !== column ? "none" : descending ? "descending" : "ascending");
    }
  });
  const kind = heads[column].dataset.kind;
  const value = (row) => row.cells[column].dataset.v;
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => row.dataset.name !== undefined);
    rows.sort((a, b) => compareValues(value(a), value(b), kind, descending ? -1 : 1));
    body.append(...rows);
  }
}

// Sorts a table as the reader has chosen, where it has that column, and else by ``first``.
function sortAsChosen(table, first, descending) {
  const [, minus, key] = state.sort.match(/^(-?)(.*)$/s);
  const known = headers(table).some((head) => head.dataset.key === key);
  sortTable(table, known ? key : first, known ? minus === "-" : descending);
}

function sorts(table, act) {
  for (const head of headers(table)) {
    const control = head.querySelector("button");
    if (control) control.addEventListener("click", () => {
      act(head.dataset.key, head.getAttribute("aria-sort") === "ascending");
    });
  }
}

// A header that sorts, of a table that scripts make.
function sortHead(key, label, kind, className, title = "") {
  const made = element("th", "", className);
  made.scope = "col";
  made.dataset.key = key;
  made.dataset.kind = kind;
  made.setAttribute("aria-sort", "none");
  const control = element("button");
  control.type = "button";
  if (title) control.title = title;
  control.append(label);
  made.append(control);
  return made;
}

// Groups: one body a perturbation class, or one for all.

function groupRows(table, grouped) {
  const groups = [...table.tBodies].filter((body) => !body.classList.contains("reference"));
  const rows = groups.flatMap((body) => [...body.rows].filter((row) => row.dataset.name !== undefined));
  for (const row of rows) {
    row.home ??= row.parentElement;
    const body = grouped ? row.home : groups[0];
    if (row.parentElement !== body) body.append(row);
  }
  for (const body of groups) {
    const head = body.querySelector(".class");
    head.hidden = !grouped || ![...body.rows].some((row) => row !== head && !row.hidden);
  }
}

// Returns the headers by which columns are hidden that the reader or the filter has left out.
function hideColumns(table, isHidden) {
  const heads = headers(table);
  const hidden = heads.map((head) => isHidden(head.dataset.key));
  heads.forEach((head, i) => { head.hidden = hidden[i]; });
  for (const row of bodyRows(table)) [...row.cells].forEach((cell, i) => { cell.hidden = hidden[i]; });
  let at = 0;
  for (const group of table.tHead.querySelector(".groups")?.cells ?? []) {
    group.span ??= group.colSpan;
    const left = hidden.slice(at, at + group.span).filter((gone) => !gone).length;
    group.hidden = left === 0;
    group.colSpan = Math.max(left, 1);
    at += group.span;
  }
  const shown = hidden.filter((gone) => !gone).length;
  for (const head of table.querySelectorAll("tr.class th")) head.colSpan = shown;
}

// Keys: a table is one tab stop, and arrows move between its buttons.

function grid(table) {
  const rows = () => [headers(table), ...bodyRows(table).filter((row) => !row.hidden).map((row) => [...row.cells])];
  const control = (cell) => (cell && !cell.hidden ? cell.querySelector("button") : null);
  const controls = () => rows().flat().map(control).filter(Boolean);

  function settle(target) {
    for (const other of table.querySelectorAll("button")) other.tabIndex = -1;
    const all = controls();
    const next = all.includes(target) ? target : all.find((one) => one.closest("tbody")) ?? all[0];
    if (next) next.tabIndex = 0;
  }

  function move(event) {
    const from = event.target.closest("th, td");
    const lines = rows();
    const y = lines.findIndex((line) => line.includes(from));
    if (y < 0) return;
    const x = lines[y].indexOf(from);
    const across = (line, start, step) => {
      for (let i = start; i >= 0 && i < line.length; i += step) if (control(line[i])) return control(line[i]);
      return null;
    };
    const down = (start, step) => {
      for (let i = start; i >= 0 && i < lines.length; i += step) if (control(lines[i][x])) return control(lines[i][x]);
      return null;
    };
    const whole = event.ctrlKey || event.metaKey;
    const steps = {
      ArrowRight: () => across(lines[y], x + 1, 1),
      ArrowLeft: () => across(lines[y], x - 1, -1),
      ArrowDown: () => down(y + 1, 1),
      ArrowUp: () => down(y - 1, -1),
      Home: () => across(lines[whole ? 1 : y], 0, 1),
      End: () => across(lines[whole ? lines.length - 1 : y], lines[y].length - 1, -1),
      PageDown: () => down(Math.min(y + 8, lines.length - 1), 1) ?? down(lines.length - 1, -1),
      PageUp: () => down(Math.max(y - 8, 1), 1),
    };
    const target = steps[event.key]?.();
    if (!(event.key in steps)) return;
    event.preventDefault();
    if (!target) return;
    settle(target);
    target.focus();
  }

  table.addEventListener("keydown", move);
  table.addEventListener("focusin", (event) => settle(event.target));
  settle(null);
  table.settle = () => settle(table.querySelector("button[tabindex='0']"));
}
