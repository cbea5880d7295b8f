// From the address to the page and back.

data.panels.forEach((panel, i) => { panel.number = i; });
state.panel = 0;

function readAddress() {
  const text = location.hash.slice(1);
  if (/^(panel|victims)-\d+$/.test(text) || /^(agreement|published)-/.test(text)) return false; // a place on the page
  const given = new URLSearchParams(text);
  Object.assign(state, FIRST, { hide: [], panel: 0 });
  for (const key of Object.keys(FIRST)) {
    if (key === "hide") state.hide = given.getAll("hide");
    else if (given.has(key)) state[key] = given.get(key);
  }
  state.panel = Number(given.get("panel")) || 0;
  if (state.group !== "1") state.group = "";
  return true;
}

function writeAddress() {
  const given = new URLSearchParams();
  for (const [key, first] of Object.entries(FIRST)) {
    if (key === "hide") state.hide.forEach((name) => given.append("hide", name));
    else if (state[key] !== first) given.set(key, state[key] || "0");
  }
  if (state.row && state.panel) given.set("panel", state.panel);
  const text = given.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

const DETAIL = ["cell", "row", "with", "panel"]; // what the panel at the side shows; the page behind it stays as it is

function change(some) {
  const changed = Object.keys(some).filter((key) => String(state[key]) !== String(some[key]));
  if (!changed.length) return;
  Object.assign(state, some);
  if (!changed.every((key) => DETAIL.includes(key))) update();
  else showSide();
  writeAddress();
}

function showSide() {
  if (!showDetail() && dialog.open) dialog.close();
}

const sortBy = (key, descending) => change({ sort: `${descending ? "-" : ""}${key}` });

const views = () => [
  ["table", "Heatmap"],
  ["turned", "Transposed"],
  ["scatter", "Scatter"],
  ...(data.panels.some((panel) => curvesOf(panel).length) ? [["curves", "Curves"]] : []),
  ...(data.groups.length ? [["victims", "Victims"]] : []),
];

const control = (id) => document.getElementById(id);

// What is chosen and not there: an old link, or one made by hand.
function mend() {
  if (!views().some(([name]) => name === state.view)) state.view = "table";
  if (!Object.hasOwn(COSTS, state.x)) state.x = FIRST.x;
  if (!Object.hasOwn(GAINS, state.y)) state.y = FIRST.y;
  for (const id of ["class", "tag", "dataset", "victim", "printed"]) {
    if (![...control(id).options].some((one) => one.value === state[id])) state[id] = "";
  }
}

// What is drawn is drawn anew. Returns what gives the focus back to the header or the list that had it.
function keepFocus() {
  const one = document.activeElement?.closest(".drawn th button, .drawn select");
  if (!one) return () => {};
  const section = one.closest("section");
  const key = one.closest("th")?.dataset.key;
  const at = [...section.querySelectorAll(".drawn select")].indexOf(one);
  return () => {
    const again = key === undefined ? section.querySelectorAll(".drawn select")[at]
      : [...section.querySelectorAll(".drawn th")].find((head) => head.dataset.key === key)?.querySelector("button");
    again?.focus();
  };
}

function update() {
  const refocus = keepFocus();
  mend();
  const choices = data.panels.map(chosen);
  panels.forEach((section, i) => {
    const panel = data.panels[i], choice = choices[i];
    const isCurved = state.view !== "curves" || curvesOf(panel).length > 0;
    section.hidden = !choice || !isCurved || state.view === "victims";
    if (section.hidden) return;
    const table = section.querySelector("table.measured");
    for (const row of bodyRows(table)) {
      row.hidden = !row.closest(".reference") && !choice.rows.has(row.dataset.name);
    }
    groupRows(table, state.group === "1");
    hideColumns(table, (key) => state.hide.includes(key) || (key.startsWith("cm:") && !choice.columns.has(key.slice(3))));
    sortAsChosen(table, "share", false);
    showPrinted(section, panel);
    table.settle();

    const isTable = state.view === "table";
    table.closest(".scroll").hidden = !isTable;
    const place = section.querySelector(".drawn");
    place.hidden = isTable;
    const drawings = { turned, scatter, curves: curveView };
    place.replaceChildren(...(isTable ? [] : drawings[state.view](section, panel, choice)));
  });
  showVictims(choices);
  refocus();
  const isChanged = Object.keys(FIRST).some((key) => !["cell", "row", "with", "x", "y", "curve", "under"].includes(key) && String(state[key]) !== String(FIRST[key]));
  control("reset").hidden = !isChanged;
  control("count").textContent = state.q || state.class || state.tag || state.dataset || state.victim ? count(choices) : "";
  showTools();
  showSide();
}

// Tools that change some views alone, and are there in those.
const TOOLS = { printed: ["table", "turned"], columns: ["table", "turned"], group: ["table", "victims"] };

// The tools show what is chosen, however it was chosen.
function showTools() {
  const field = control("filter");
  if (field.value !== state.q) field.value = state.q;
  for (const id of ["class", "tag", "dataset", "victim", "printed"]) control(id).value = state[id];
  control("group").checked = state.group === "1";
  for (const [name, of] of Object.entries(TOOLS)) {
    if (name !== "printed" || control("printed").options.length > 1) control(name).closest("label, details").hidden = !of.includes(state.view);
  }
  for (const one of document.querySelectorAll("#views input")) one.checked = one.value === state.view;
  for (const one of document.querySelectorAll("#columns input")) one.checked = !state.hide.includes(one.value);
}

function makeTools() {
  const fill = (id, values) => {
    control(id).append(...values.map((value) => option(value)));
    if (id === "dataset" || id === "victim") control(id).parentElement.hidden = values.length < 2;
    control(id).addEventListener("change", () => change({ [id]: control(id).value }));
  };
  const rows = data.panels.flatMap((panel) => panel.rows.filter((row) => !row.reference));
  const columns = data.panels.flatMap((panel) => panel.columns);
  fill("class", unique(rows.map((row) => row.class)).sort());
  fill("dataset", unique(data.panels.map((panel) => panel.dataset)));
  fill("victim", unique(data.panels.map((panel) => panel.victim)));
  fill("printed", unique(data.panels.flatMap((panel) => panel.printed.map((table) => table.source))));
  control("printed").parentElement.hidden = control("printed").options.length < 2;
  fill("tag", []);
  for (const [kind, name, of] of [["protector", "protectors", rows], ["countermeasure", "countermeasures", columns]]) {
    const group = element("optgroup");
    group.label = name;
    group.append(...unique(of.flatMap((one) => one.tags)).sort().map((tag) => option(`${kind}:${tag}`, tag)));
    if (group.children.length) control("tag").append(group);
  }
  control("tag").parentElement.hidden = control("tag").options.length < 2;

  for (const [value, text] of views()) {
    const label = element("label");
    const radio = element("input");
    radio.type = "radio";
    radio.name = "view";
    radio.value = value;
    radio.addEventListener("change", () => change({ view: value }));
    label.append(radio, element("span", text));
    control("views").append(label);
  }

  const menu = control("columns").querySelector("div");
  const heads = unique(panels.flatMap((section) => headers(section.querySelector("table.measured"))
    .map((head) => head.dataset.key))).filter((key) => key !== "name");
  const labels = new Map(panels.flatMap((section) => headers(section.querySelector("table.measured"))
    .map((head) => [head.dataset.key, tidy(head.textContent)])));
  const all = element("p", "", "all");
  all.append(button("All", () => change({ hide: [] })), button("None", () => change({ hide: heads })));
  menu.append(all);
  for (const key of heads) {
    const label = element("label", "", key.startsWith("cm:") ? "" : "other");
    const tick = element("input");
    tick.type = "checkbox";
    tick.value = key;
    tick.addEventListener("change", () => change({ hide: tick.checked ? state.hide.filter((one) => one !== key) : [...state.hide, key] }));
    label.append(tick, ` ${labels.get(key)}`);
    menu.append(label);
  }
  exportTools(control("export").querySelector("div"));

  control("filter").addEventListener("input", () => change({ q: control("filter").value }));
  control("group").addEventListener("change", () => change({ group: control("group").checked ? "1" : "" }));
  control("reset").addEventListener("click", () => change({ ...FIRST, hide: [] }));
  control("compare").addEventListener("click", () => {
    const section = [...across, ...panels].find((one) => !one.hidden);
    const names = section ? bodyRows(section.querySelector("table.victims, table.measured")).filter((row) => !row.hidden && !row.closest(".reference")).map((row) => row.dataset.name) : [];
    if (names.length > 1) change({ row: names[0], with: names[1], panel: Number(section.dataset.panel) });
  });
  for (const one of document.querySelectorAll(".menu")) {
    one.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      one.open = false;
      one.querySelector("summary").focus();
    });
  }
  document.addEventListener("click", (event) => {
    for (const one of document.querySelectorAll(".menu[open]")) if (!one.contains(event.target)) one.open = false;
  });
  control("tools").hidden = false;
}

document.addEventListener("click", (event) => {
  const place = event.target.closest("[data-panel]"); // a table, or a cell of one that holds several
  const panel = place && data.panels[Number(place.dataset.panel)];
  const cell = event.target.closest("[data-cell]");
  const row = event.target.closest("[data-row]");
  const gap = event.target.closest("[data-gap]");
  if (cell) change({ cell: cell.dataset.cell, row: "", with: "" });
  else if (row) change({ row: row.dataset.row, panel: panel.number, cell: "", with: "" });
  else if (gap) {
    const names = [gap.closest("tr").dataset.name, gap.closest("td").dataset.column ?? gap.closest("td").dataset.label];
    const found = panel.gaps.find((one) => names.includes(one.protector) && names.includes(one.countermeasure));
    if (found) openDialog(`${found.protector} against ${found.countermeasure}`, gapDetails(found));
  }
});

// A link to a table that the view or the filter leaves out brings it back.
function showPlace(place) {
  if (!place?.hidden) return;
  change({ view: place.classList.contains("across") ? "victims" : "table" });
  if (place.hidden) change({ ...FIRST, view: state.view, hide: [] });
  place.scrollIntoView();
}

if (panels.length) {
  for (const section of panels) {
    const table = section.querySelector("table.measured");
    sorts(table, sortBy);
    grid(table);
  }
  for (const table of document.querySelectorAll(".published table")) {
    sorts(table, (key, descending) => sortTable(table, key, descending));
    grid(table);
  }
  makeTools();
  addEventListener("hashchange", () => {
    if (readAddress()) update();
    else showPlace(control(location.hash.slice(1)));
  });
  readAddress();
  update();
}
