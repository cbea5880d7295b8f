// The table turned: countermeasures as rows, with what they break.

function turned(section, panel, choice) {
  const table = element("table", "", "turned");
  const source = section.querySelector("table.measured");
  const rows = bodyRows(source).filter((row) => !row.hidden);
  const heads = headers(source);

  table.style.setProperty("--columns", rows.length);
  const head = table.createTHead().insertRow();
  head.className = "heads";
  head.append(
    sortHead("name", "Countermeasure", "text", "name"),
    sortHead("breaks", "Breaks", "number", "broken", `protectors of which it recovers at least ${data.broken} %`),
    sortHead("share", "Recovers", "number", "share", "mean share over the protectors shown, references apart"),
    ...rows.map((row) => sortHead(`p:${row.dataset.name}`, named(row.dataset.name), "number", "cm")),
  );

  const body = table.createTBody();
  heads.forEach((original, i) => {
    const column = panel.columns.find((one) => `cm:${one.name}` === original.dataset.key);
    if (!column || original.hidden) return;
    const line = body.insertRow();
    line.dataset.name = column.name;
    const label = element("th", "", "name");
    label.scope = "row";
    label.dataset.v = column.name;
    label.append(named(column.name));
    if (column.owned) label.append(" ", element("small", column.owned));
    line.append(label);
    const shares = rows.map((row) => rowOf(panel, row.dataset.name)).filter((row) => !row.reference)
      .map((row) => cellOf(panel, row, column.name)?.share ?? null).filter((share) => share !== null);
    const broken = shares.filter((share) => share >= data.broken).length;
    const addCell = (text, value, className, title) => {
      const made = element("td", text, className);
      made.dataset.v = value;
      made.dataset.label = title;
      line.append(made);
    };
    addCell(shares.length ? `${broken} of ${shares.length}` : "–", shares.length ? broken : "", "broken", "breaks");
    addCell(shares.length ? `${mean(shares).toFixed(0)} %` : "–", shares.length ? mean(shares) : "", "share", "recovers");
    for (const row of rows) {
      const copy = row.cells[i].cloneNode(true);
      copy.classList.remove("worst");
      copy.dataset.label = row.dataset.name;
      line.append(copy);
    }
  });
  sortAsChosen(table, "share", true); // what breaks most comes first
  sorts(table, sortBy);
  grid(table);
  const frame = element("div", "", "scroll");
  table.setAttribute("aria-label", "Countermeasures as rows");
  frame.append(table);
  return [frame];
}
