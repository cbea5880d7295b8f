// What is shown, as CSV, JSON, LaTeX and Markdown: rows and columns that are left out here are left out there.

function shownTables() {
  if (state.view === "victims") {
    return across.filter((section) => !section.hidden).map((section, i) => {
      const group = data.groups[Number(section.dataset.group)];
      return { panel: { dataset: group.dataset, title: `${group.title}, ${underText(group.under)}` }, table: section.querySelector("table.victims") };
    });
  }
  return panels.filter((section) => !section.hidden).map((section) => ({
    panel: data.panels[Number(section.dataset.panel)],
    table: section.querySelector(state.view === "turned" ? "table.turned" : "table.measured"),
  })).filter(({ table }) => table);
}

function shownText(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (node.nodeType !== Node.ELEMENT_NODE || node.matches(".printed, .bar")) return "";
  const text = [...node.childNodes].map(shownText).join("");
  return node.tagName === "SMALL" ? ` ${text}` : text;
}

const tidy = (text) => text.replace(/\s+/g, " ").trim();

// The lines of a table: names of columns, and for every row its group and, by column, value, text and printed number.
function matrix(table) {
  const heads = headers(table).map((head, i) => ({ head, i })).filter(({ head }) => !head.hidden);
  const names = heads.map(({ head }) => head.dataset.key.replace(/^(cm|p|v):/, "").replace(/^name$/, table.className.includes("turned") ? "countermeasure" : "protector"));
  const labels = heads.map(({ head }) => tidy(head.textContent));
  const rows = bodyRows(table).filter((row) => !row.hidden).map((row) => ({
    group: row.parentElement.dataset.class ?? "",
    of: (row.home ?? row.parentElement).dataset.class ?? "",
    cells: heads.map(({ head, i }) => {
      const cell = row.cells[i];
      const value = cell.dataset.v;
      const printed = cell.querySelector(".printed")?.dataset.v;
      const number = head.dataset.kind === "number" && value !== "" ? Number(value) : null;
      return { value: number === 1e9 ? Infinity : number ?? value, text: tidy(shownText(cell)), printed: printed === undefined ? null : Number(printed) };
    }),
  }));
  return { names, labels, rows };
}

// Rows as plain records. The names of columns of a countermeasure called like another column are told apart by a prefix.
function records() {
  return shownTables().flatMap(({ panel, table }) => {
    const { names, rows } = matrix(table);
    const keys = names.map((name, i) => (names.indexOf(name) < i ? `accuracy ${name}` : name));
    return rows.map((row) => {
      const record = { dataset: panel.dataset, setting: panel.title };
      if (row.of) record.class = row.of;
      keys.forEach((key, i) => {
        record[key] = row.cells[i].value === "" ? null : row.cells[i].value;
        if (row.cells[i].printed !== null) record[`${key} (printed: ${state.printed})`] = row.cells[i].printed;
      });
      return record;
    });
  });
}

function csvText() {
  const rows = records();
  const keys = unique(rows.flatMap(Object.keys));
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const line = (values) => values.map((value) => quoted(value === null || value === undefined ? "" : String(value))).join(",");
  return [line(keys), ...rows.map((row) => line(keys.map((key) => row[key])))].join("\n") + "\n";
}

function jsonText() {
  const finite = (_, value) => (value === Infinity ? null : value);
  return `${JSON.stringify({ board: data.board, view: state.view, rows: records() }, finite, 1)}\n`;
}

function latex(text) {
  const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "≥": "$\\geq$", "∞": "$\\infty$", "–": "--", "−": "$-$", "†": "$\\dagger$", "‡": "$\\ddagger$" };
  return text.replace(/[\\~^±≥∞–−†‡]|[&%$#_{}]/g, (sign) => signs[sign] ?? `\\${sign}`);
}

const withPrinted = (cell) => (cell.printed === null ? cell.text : `${cell.text} / ${cell.printed.toFixed(1)}`);

function latexText() {
  return shownTables().map(({ panel, table }) => {
    const { labels, rows } = matrix(table);
    const lines = [`% ${data.board}: ${panel.dataset}, ${panel.title}`.replaceAll("\n", " "), "% needs \\usepackage{booktabs}",
      `\\begin{tabular}{l${"r".repeat(labels.length - 1)}}`, "\\toprule", `${labels.map(latex).join(" & ")} \\\\`];
    let group = null;
    for (const row of rows) {
      if (row.group !== group) {
        lines.push("\\midrule");
        if (row.group && state.group) lines.push(`\\multicolumn{${labels.length}}{l}{\\emph{${latex(row.group)}}} \\\\`);
        group = row.group;
      }
      lines.push(`${row.cells.map((cell) => latex(withPrinted(cell))).join(" & ")} \\\\`);
    }
    return [...lines, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }).join("\n");
}

function markdownText() {
  const cell = (text) => text.replace(/([\\`*<>[\]|])/g, "\\$1").replaceAll("&", "&amp;");
  return shownTables().map(({ panel, table }) => {
    const { labels, rows } = matrix(table);
    const line = (texts) => `| ${texts.map(cell).join(" | ")} |`;
    const rule = `|:--|${"--:|".repeat(labels.length - 1)}`;
    return [cell(`${panel.dataset}: ${panel.title}`), "", line(labels), rule, ...rows.map((row) => line(row.cells.map(withPrinted))), ""].join("\n");
  }).join("\n");
}

function download(name, type, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function exportTools(menu) {
  const name = (ending) => `${data.board}-${{ turned: "countermeasures", victims: "victims" }[state.view] ?? "protectors"}.${ending}`;
  menu.append(
    button("CSV", () => download(name("csv"), "text/csv", csvText())),
    button("JSON", () => download(name("json"), "application/json", jsonText())),
    button("LaTeX", () => download(name("tex"), "text/x-tex", latexText())),
    button("Markdown", () => download(name("md"), "text/markdown", markdownText())),
  );
  const clip = button("Copy as Markdown", () => copy(markdownText(), clip, null));
  menu.append(clip, element("p", "Rows and columns as they are shown.", "small"));
}
