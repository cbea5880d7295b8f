// Filtering. A word is looked for in protectors first - name, class, declared budget, tags - and, where no protector has
// it, in countermeasures. A prefix says which is meant. Reference rows stay: without them the others cannot be read.

const PREFIXES = ["protector", "countermeasure", "budget", "tag", "dataset", "victim"];

const rowTexts = (row) => ({ protector: row.name, budget: `${row.class} ${row.declared}`, tag: row.tags.join(" ") });
const columnTexts = (column) => ({ countermeasure: column.name, tag: column.tags.join(" ") });

function holds(texts, prefix, word) {
  const among = prefix ? [texts[prefix]] : Object.values(texts);
  return among.some((text) => text !== undefined && text.toLowerCase().includes(word));
}

// Returns what a panel shows: names of its rows and columns, or null where all of the panel is left out.
function chosen(panel) {
  if (state.dataset && panel.dataset !== state.dataset) return null;
  if (state.victim && panel.victim !== state.victim) return null;
  let rows = panel.rows.filter((row) => !row.reference);
  let columns = panel.columns;
  if (state.class) rows = rows.filter((row) => row.class === state.class);
  const [kind, tag] = state.tag.split(/:(.*)/s);
  if (kind === "protector") rows = rows.filter((row) => row.tags.includes(tag));
  if (kind === "countermeasure") columns = columns.filter((column) => column.tags.includes(tag));
  for (const text of state.q.toLowerCase().split(/\s+/).filter(Boolean)) {
    const [, prefix, rest] = text.match(/^(?:(\w+):)?(.*)$/s);
    const known = PREFIXES.includes(prefix);
    const word = known ? rest : text;
    const which = known ? prefix : "";
    if (which === "dataset" || which === "victim") {
      if (!panel[which].toLowerCase().includes(word)) return null;
      continue;
    }
    const inRows = panel.rows.some((row) => !row.reference && holds(rowTexts(row), which, word));
    const inColumns = panel.columns.some((column) => holds(columnTexts(column), which, word));
    if (inRows || !inColumns) rows = rows.filter((row) => holds(rowTexts(row), which, word));
    else columns = columns.filter((column) => holds(columnTexts(column), which, word));
  }
  return { rows: new Set(rows.map((row) => row.name)), columns: new Set(columns.map((column) => column.name)) };
}

function count(choices) {
  const shown = choices.filter(Boolean);
  const total = (of) => unique(data.panels.flatMap(of)).length;
  const left = (names) => unique(shown.flatMap((choice) => [...names(choice)])).length;
  const rows = total((panel) => panel.rows.filter((row) => !row.reference).map((row) => row.name));
  const said = `${left((c) => c.rows)} of ${rows} protectors`;
  if (state.view === "scatter" || state.view === "curves") return said; // what they draw is of all countermeasures
  const columns = total((panel) => panel.columns.map((column) => column.name));
  return `${said}, ${left((c) => c.columns)} of ${columns} countermeasures`;
}
