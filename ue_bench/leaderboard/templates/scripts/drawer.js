// The panel behind a cell or a row.

const dialog = document.getElementById("detail");
const dialogTitle = document.getElementById("detail-title");
const dialogBody = document.getElementById("detail-body");

function list(pairs) {
  const made = element("dl");
  for (const [label, value] of pairs) made.append(element("dt", label), element("dd", value));
  return made;
}

async function copy(text, control, source) {
  const before = control.textContent;
  try {
    await navigator.clipboard.writeText(text);
    control.textContent = "Copied";
    setTimeout(() => { control.textContent = before; }, 1500);
  } catch {
    if (source) getSelection().selectAllChildren(source); // no clipboard here: leave it selected
  }
}

function commandLine(text) {
  const code = element("code");
  text.split(/ (?=--)/).forEach((part, i) => code.append(i ? " " : "", element("span", part)));
  const made = element("pre");
  made.append(code);
  const control = button("Copy", () => copy(text, control, code), "copy");
  return [made, control];
}

// The accuracy over training: on test images, on training batches, and where its peak and its end are.
function trainingCurve(curve, chance) {
  const [epochs, test, train] = curve;
  const known = train.filter((value) => value !== null);
  const y = { name: "accuracy, %", low: 0, high: Math.max(...test, ...known, 20) > 60 ? 100 : Math.max(...test, ...known, 20) * 1.1 };
  const x = { name: "epoch", low: Math.min(0, ...epochs), high: Math.max(...epochs) };
  const { picture, place, box } = frame("Accuracy over training", x, y, 540, 220);
  const line = (values, name) => drawn("polyline", { class: name, points: values.map((v, i) => (v === null ? "" : `${place.x(epochs[i])},${place.y(v)}`)).join(" ") });
  picture.append(drawn("line", { x1: box.left, x2: box.right, y1: place.y(chance), y2: place.y(chance), class: "limit" }));
  if (known.length) picture.append(line(train, "train"));
  picture.append(line(test, "test"));
  const best = test.indexOf(Math.max(...test)), last = test.length - 1;
  for (const [i, name] of best === last ? [[last, "last and peak"]] : [[best, "peak"], [last, "last"]]) {
    const [px, py] = [place.x(epochs[i]), place.y(test[i])];
    picture.append(drawn("circle", { cx: px, cy: py, r: 4, class: "test" }));
    const end = px > box.right - 90 ? "end" : "middle";
    picture.append(drawn("text", { x: end === "end" ? px : px, y: py - 9, "text-anchor": end, class: "strong" }, `${name} ${test[i].toFixed(1)}`));
  }
  picture.setAttribute("role", "img");
  const said = known.length ? "Solid: test images. Thin: training batches. Dashed: chance." : "Solid: test images. Dashed: chance.";
  return [picture, element("p", said, "small")];
}

// Training images of a row: clean, protected, and ten times the difference, where the board was built with pictures.
function pictureOf(row) {
  if (!row?.picture) return [];
  const image = element("img");
  image.src = row.picture;
  image.alt = `Training images under ${row.name}: clean, protected, and ten times their difference around gray`;
  return [element("h3", "Training images"), image, element("p", "Above: clean. Middle: protected. Below: ten times the difference, around gray.", "small")];
}

function shareLine(share) {
  const made = element("p", "", "recovers");
  const mark = element("span", share >= data.broken ? "broken" : "holds", share >= data.broken ? "bad" : "good");
  made.append(`${share.toFixed(0)} % of the clean accuracy above chance is recovered: `, mark);
  return made;
}

function cellDetails(cell) {
  const panel = data.panels[cell.panel];
  const parts = [
    element("p", cell.accuracy, "accuracy"),
    ...(cell.share === null ? [] : [shareLine(cell.share)]),
    element("p", cell.certainty, "certainty"),
    ...cell.notes.map((note) => element("p", note, "note")),
    element("h3", "Run it again"),
    ...(cell.command ? commandLine(cell.command) : []),
    element("p", cell.needs, cell.command ? "certainty" : "note"),
  ];
  const curve = cell.curves.findIndex(Boolean);
  if (curve >= 0) parts.push(element("h3", `Training${cell.keys.length > 1 ? `, seed ${Object.keys(cell.seeds)[curve]}` : ""}`), ...trainingCurve(cell.curves[curve], panel.chance));
  parts.push(...pictureOf(rowOf(panel, cell.protector)));
  parts.push(element("h3", "What was measured"));
  parts.push(list([["protector", cell.protector], ["countermeasure", cell.countermeasure], ...panel.facts]));
  if (cell.parameters.length) parts.push(element("h3", "Parameters"), list(cell.parameters.map(([kind, text]) => [kind, data.texts[text]])));
  parts.push(element("h3", cell.keys.length > 1 ? "Results, one a seed" : "Result"));
  cell.results.forEach((values, i) => {
    const one = element("details");
    one.open = i === 0;
    one.append(element("summary", `Seed ${values[data.labels.indexOf("seed")]}: ${values[data.labels.indexOf("accuracy, last epoch")]}`));
    if (cell.files[i]) {
      const link = element("a", cell.files[i]);
      link.href = encodeURI(cell.files[i]);
      const line = element("p", "", "file");
      line.append("File: ", link);
      one.append(line);
    }
    one.append(list(data.labels.map((label, j) => [label, values[j]])));
    if (i && cell.curves[i]) one.append(...trainingCurve(cell.curves[i], panel.chance));
    parts.push(one);
  });
  return parts;
}

function gapDetails(gap) {
  const failed = gap.failures.length > 0;
  return [
    element("p", failed ? "failed" : "no result yet", "accuracy"),
    ...(failed ? gap.failures.map((text) => element("p", text, "note"))
      : [element("p", "Nobody has run this cell, or its result is not in this folder.", "certainty")]),
    ...(gap.command ? [element("h3", failed ? "Try it again" : "Run it"), ...commandLine(gap.command)] : []),
  ];
}

function openDialog(title, parts) {
  dialogTitle.textContent = title;
  dialogBody.replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

// Returns whether there was something to show.
function showDetail() {
  if (state.cell) {
    const cell = Object.values(data.cells).find((one) => one.keys.includes(state.cell));
    if (cell) openDialog(`${cell.protector} against ${cell.countermeasure}`, cellDetails(cell));
    return Boolean(cell);
  }
  if (state.row) {
    const panel = data.panels.find((one) => one.number === state.panel && rowOf(one, state.row)) ?? data.panels.find((one) => rowOf(one, state.row));
    if (panel) openDialog(state.with && rowOf(panel, state.with) ? `${state.row} beside ${state.with}` : state.row, rowDetails(panel, rowOf(panel, state.row)));
    return Boolean(panel);
  }
  return false;
}

dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // the backdrop
dialog.addEventListener("close", () => change({ cell: "", row: "", with: "" }));
