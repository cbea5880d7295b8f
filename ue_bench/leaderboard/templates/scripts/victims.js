// Victims beside one another: protectors as rows, under one countermeasure or in sum over all of them.

const across = [...document.querySelectorAll("section.across")];

// What a row comes to in the table of one victim, in place of one column.
const SUMS = {
  mean: { name: "recovered share, mean of countermeasures", of: (row) => row.share },
  worst: { name: "recovered share, worst countermeasure", of: (row) => row.worst },
};

// What can be shown: columns that the filter leaves, and sums.
function underOptions(group, choices) {
  const columns = unique(group.panels.flatMap((i) => (choices[i] ? data.panels[i].columns.filter((one) => choices[i].columns.has(one.name)) : [])).map((one) => one.name));
  return [...columns.map((name) => [`cm:${name}`, name]), ...Object.entries(SUMS).map(([key, sum]) => [key, sum.name])];
}

const underText = (under) => SUMS[under]?.name ?? `under ${under.slice(3)}`;

// The cell of one victim: of the column a copy of what its own table shows, of a sum a button that opens the row.
function victimCell(panel, name, under) {
  const row = rowOf(panel, name);
  const sum = SUMS[under];
  let made = element("td", "", "cell missing");
  let share = null;
  if (sum) {
    share = row ? sum.of(row) : null;
    made.dataset.v = share ?? "";
    if (share === null) made.textContent = "–";
    else {
      const control = button(`${share.toFixed(0)} %`, () => {}, level(share));
      control.dataset.row = name;
      control.setAttribute("aria-label", `${name}, ${panel.victim}: ${share.toFixed(0)} % recovered`);
      made.classList.remove("missing");
      made.append(control);
    }
  } else {
    const column = under.slice(3);
    const table = panels[panel.number].querySelector("table.measured");
    const at = headers(table).findIndex((head) => head.dataset.key === under);
    const original = row && at >= 0 ? bodyRows(table).find((one) => one.dataset.name === name)?.cells[at] : null;
    if (original) {
      made = original.cloneNode(true);
      made.hidden = false;
      made.classList.remove("worst");
      for (const printed of made.querySelectorAll(".printed")) printed.remove();
      const control = made.querySelector("button");
      if (control) control.setAttribute("aria-label", `${panel.victim}, ${control.getAttribute("aria-label")}`);
    } else {
      made.textContent = "–";
      made.dataset.v = "";
    }
    made.dataset.column = column;
    share = row ? cellOf(panel, row, column)?.share ?? null : null;
  }
  made.dataset.label = panel.victim;
  made.dataset.panel = panel.number;
  if (row?.victims.includes(panel.victim)) {
    made.classList.add("named");
    made.title = "a parameter of the protector names this network";
    (made.querySelector("button") ?? made).append(element("i", "◆", "mark"));
  }
  return { made, share };
}

// The whole table of a group. Returns nothing where the filter leaves none of its victims.
function victimView(group, choices) {
  const shown = group.panels.filter((i) => choices[i]);
  if (!shown.length) return null;
  const options = underOptions(group, choices);
  const isThere = (value) => options.some(([name]) => name === value);
  const under = [state.under, `cm:${group.plain}`].find(isThere) ?? options[0][0];
  const choosers = element("div", "", "choosers");
  choosers.append(chooser("Under ", options, under, (value) => change({ under: value === `cm:${group.plain}` ? "" : value })));

  const table = element("table", "", "victims");
  table.setAttribute("aria-label", `Victims beside one another, ${underText(under)}`);
  table.style.setProperty("--columns", shown.length);
  const head = table.createTHead();
  const above = head.insertRow();
  above.className = "groups";
  above.append(element("td"));
  for (const [span, text] of [[4, "What an adversary gets back, over victims"], [shown.length, SUMS[under] ? `${underText(under)}, %` : `Accuracy ${underText(under)}, %`]]) {
    const made = element("th", text);
    made.colSpan = span;
    made.scope = "colgroup";
    above.append(made);
  }
  const heads = head.insertRow();
  heads.className = "heads";
  heads.append(
    sortHead("name", "Protector", "text", "name"),
    sortHead("share", "Recovered", "number", "share", "mean recovered share over victims; the tick is the worst one"),
    sortHead("worst", "Worst", "number", "worst-share", "the victim that recovers most"),
    sortHead("spread", "Spread", "number", "broken", "points between the victim that recovers most and the one that recovers least"),
    sortHead("broken", "Broken by", "number", "broken", `victims that recover at least ${data.broken} %`),
    ...shown.map((i) => sortHead(`v:${data.panels[i].victim}`, named(data.panels[i].victim), "number", "cm")),
  );

  const names = unique(shown.flatMap((i) => data.panels[i].rows.map((row) => row.name)));
  const bodies = new Map();
  const classes = unique(shown.flatMap((i) => [...panels[i].querySelector("table.measured").tBodies].map((body) => body.dataset.class)));
  for (const name of classes) {
    const body = table.createTBody();
    body.className = name === "reference" ? "reference" : "ranked";
    body.dataset.class = name;
    bodies.set(name, body);
    if (name === "reference") continue;
    const line = body.insertRow();
    line.className = "class";
    const label = element("th");
    label.scope = "rowgroup";
    label.colSpan = 5 + shown.length;
    label.append(element("span", name));
    line.append(label);
  }
  for (const name of names) {
    const home = data.panels[shown.find((i) => rowOf(data.panels[i], name))];
    const row = rowOf(home, name);
    if (!row.reference && !shown.some((i) => choices[i].rows.has(name))) continue;
    const line = bodies.get(row.class).insertRow();
    line.dataset.name = name;
    const label = element("th", "", "name");
    label.scope = "row";
    label.dataset.v = name;
    label.dataset.panel = home.number;
    const control = button("", () => {});
    control.dataset.row = name;
    control.append(named(name));
    label.append(control);
    if (row.reference) label.append(element("small", "reference"));
    const cells = shown.map((i) => victimCell(data.panels[i], name, under));
    line.append(label, ...victimSums(cells, shown), ...cells.map((cell) => cell.made));
  }
  for (const body of bodies.values()) if (![...body.rows].some((row) => row.dataset.name !== undefined)) body.remove();
  groupRows(table, state.group === "1");
  sorts(table, sortBy);
  sortAsChosen(table, "share", false);
  grid(table);
  const frame = element("div", "", "scroll");
  frame.append(table);
  return { under, parts: [choosers, frame], named: Boolean(table.querySelector(".named")) };
}

// What the victims of a row come to: a mean of some of them would not compare with that of others.
function victimSums(cells, shown) {
  const add = (text, value, className, label) => {
    const made = element("td", text, className);
    made.dataset.v = value;
    made.dataset.label = label;
    return made;
  };
  const shares = cells.map((cell) => cell.share);
  const known = shares.filter((share) => share !== null);
  if (known.length < cells.length) {
    const first = add("", "", "missing", "recovered");
    first.append(element("small", known.length ? `${known.length} of ${cells.length} victims` : "–"));
    return [first, ...["worst", "spread", "broken by"].map((label) => add("–", "", "missing", label))];
  }
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const at = shares.indexOf(most);
  if (most > least) cells[at].made.classList.add("worst");
  const share = add(`${mean(known).toFixed(0)} %`, mean(known), "share", "recovered");
  const bar = element("i", "", "bar");
  bar.setAttribute("aria-hidden", "true");
  const inside = (value) => `${Math.min(Math.max(value, 0), 100).toFixed(0)}%`;
  bar.append(element("i"), element("b"));
  bar.firstChild.style.width = inside(mean(known));
  bar.lastChild.style.left = inside(most);
  share.append(bar);
  const worst = add(`${most.toFixed(0)} %`, most, "worst-share", "worst");
  const which = element("small");
  which.append(named(data.panels[shown[at]].victim));
  worst.append(which);
  const broken = known.filter((one) => one >= data.broken).length;
  return [share, worst, add((most - least).toFixed(0), most - least, "broken", "spread"), add(`${broken} of ${known.length}`, broken, "broken", "broken by")];
}

function showVictims(choices) {
  across.forEach((section, i) => {
    const view = state.view === "victims" ? victimView(data.groups[i], choices) : null;
    section.hidden = !view;
    section.querySelector(".drawn").replaceChildren(...(view?.parts ?? []));
    section.querySelector("li.named").hidden = !view?.named;
    data.groups[i].under = view?.under;
  });
}
