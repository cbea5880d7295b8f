// Numbers of a paper in the cells of the same row and column, below the measured ones and in their own colours.

function level(share) {
  return `h${Math.floor(Math.min(Math.max(share, 0), 100) / data.step)}`;
}

function printedShare(panel, table, column, accuracy) {
  const clean = table.clean[column];
  return clean === undefined || clean - panel.chance < data.least ? null : 100 * (accuracy - panel.chance) / (clean - panel.chance);
}

function showPrinted(section, panel) {
  const measured = section.querySelector("table.measured");
  for (const old of measured.querySelectorAll(".printed")) old.remove();
  const table = panel.printed.find((one) => one.source === state.printed);
  measured.classList.toggle("paired", Boolean(table));
  const said = section.querySelector(".said");
  said.hidden = !table;
  said.textContent = "";
  if (!table) return;
  said.append(element("strong", "Above: measured here. Below: printed. "));
  said.append(`${table.agreement || `${table.source}.`} Printed numbers are single runs of another protocol and victim, in no mean and no rank.`);
  const heads = headers(measured);
  for (const row of bodyRows(measured)) {
    const numbers = table.cells[row.dataset.name] ?? {};
    const title = `${table.source}: ${table.names[row.dataset.name]}`;
    heads.forEach((head, i) => {
      const column = head.dataset.key.replace(/^cm:/, "");
      if (!head.dataset.key.startsWith("cm:") || numbers[column] === undefined) return;
      const share = printedShare(panel, table, column, numbers[column]);
      const made = element("span", numbers[column].toFixed(1), `printed ${share === null ? "hx" : level(share)}`);
      made.title = title;
      made.dataset.v = numbers[column];
      row.cells[i].append(made);
    });
  }
}
