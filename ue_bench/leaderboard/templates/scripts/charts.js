// Drawings: protection against what it costs, and curves over a number. A table says the same, so they are pictures.

const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "plus"];

const COSTS = {
  rms: { name: "perturbation, RMS in gray levels (of 255)", of: (row) => row.rms, log: true },
  psnr: { name: "perturbation, PSNR in dB", of: (row) => row.psnr },
  seconds: { name: "time to protect the training set, seconds", of: (row) => row.seconds, log: true },
};
const GAINS = {
  share: { name: "recovered share, mean, %", of: (row) => row.share },
  worst: { name: "recovered share, worst countermeasure, %", of: (row) => row.worst },
};

function ticks(low, high, about = 6) {
  const raw = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(10)));
  return found;
}

// A frame with axes. Returns the drawing and the functions that place values in it.
function frame(title, x, y, width = 960, height = 420, margin = 24) {
  const box = { left: 56, right: width - margin, top: 16, bottom: height - 48 };
  const scale = (axis, from, to) => {
    const [low, high] = axis.log ? [Math.log10(axis.low), Math.log10(axis.high)] : [axis.low, axis.high];
    return (value) => from + (to - from) * ((axis.log ? Math.log10(value) : value) - low) / (high - low || 1);
  };
  const place = { x: scale(x, box.left, box.right), y: scale(y, box.bottom, box.top) };
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title, class: "chart" });
  const shown = (axis) => axis.ticks ?? (axis.log
    ? Array.from({ length: 12 }, (_, i) => 10 ** (i - 3)).flatMap((one) => (axis.high / axis.low < 200 ? [1, 2, 5] : [1]).map((m) => Number((m * one).toPrecision(3)))).filter((v) => v >= axis.low && v <= axis.high)
    : ticks(axis.low, axis.high));
  for (const at of shown(x)) {
    picture.append(drawn("line", { x1: place.x(at), x2: place.x(at), y1: box.top, y2: box.bottom, class: "rule" }));
    picture.append(drawn("text", { x: place.x(at), y: box.bottom + 18, "text-anchor": "middle" }, String(at)));
  }
  for (const at of shown(y)) {
    picture.append(drawn("line", { x1: box.left, x2: box.right, y1: place.y(at), y2: place.y(at), class: "rule" }));
    picture.append(drawn("text", { x: box.left - 8, y: place.y(at) + 4, "text-anchor": "end" }, String(at)));
  }
  picture.append(drawn("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle", class: "axis" }, x.name));
  const side = { x: 14, y: (box.top + box.bottom) / 2, "text-anchor": "middle", class: "axis" };
  picture.append(drawn("text", { ...side, transform: `rotate(-90 ${side.x} ${side.y})` }, y.name));
  return { picture, place, box };
}

function marker(shape, x, y, r = 6) {
  const points = {
    square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
    triangle: [[0, -1.2], [1.15, 0.9], [-1.15, 0.9]],
    diamond: [[0, -1.35], [1.2, 0], [0, 1.35], [-1.2, 0]],
    cross: [[-1, -0.5], [-0.5, -1], [0, -0.5], [0.5, -1], [1, -0.5], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5], [-0.5, 1], [-1, 0.5], [-0.5, 0]],
    plus: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
  }[shape];
  if (!points) return drawn("circle", { cx: x, cy: y, r });
  return drawn("polygon", { points: points.map(([a, b]) => `${x + a * r},${y + b * r}`).join(" ") });
}

// Where a label covers least of what is there already: points and labels before it.
function labelPlace(text, x, y, taken, box) {
  const width = 6.6 * text.length + 4, height = 14;
  const spots = [[10, -7], [-10 - width, -7], [-width / 2, -24], [-width / 2, 11], [8, -20], [8, 6], [-8 - width, -20], [-8 - width, 6],
    [-width / 2, -40], [-width / 2, 27], [8, -36], [8, 22], [-8 - width, -36], [-8 - width, 22]];
  const cost = ([dx, dy]) => {
    const at = { left: x + dx, right: x + dx + width, top: y + dy, bottom: y + dy + height };
    const out = Math.max(0, box.left - at.left) + Math.max(0, at.right - box.right) + Math.max(0, box.top - at.top) + Math.max(0, at.bottom - box.bottom);
    const over = taken.map((t) => (t.weight ?? 1) * Math.max(0, Math.min(at.right, t.right) - Math.max(at.left, t.left)) * Math.max(0, Math.min(at.bottom, t.bottom) - Math.max(at.top, t.top)));
    return 100 * out + over.reduce((a, b) => a + b, 0);
  };
  const [dx, dy] = spots.reduce((best, spot) => (cost(spot) < cost(best) ? spot : best));
  taken.push({ left: x + dx, right: x + dx + width, top: y + dy, bottom: y + dy + height });
  return { x: x + dx + 2, y: y + dy + 11 };
}

function chooser(label, values, value, act) {
  const made = element("label", label);
  const select = element("select");
  for (const [name, text] of values) select.append(option(name, text));
  select.value = value;
  select.addEventListener("change", () => act(select.value));
  made.append(select);
  return made;
}

// One tab stop for the points of a drawing, arrows between them.
function roving(controls) {
  controls.forEach((one, i) => {
    one.setAttribute("tabindex", i === 0 ? "0" : "-1");
    one.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter" || event.key === " ") one.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      else if (!step) return;
      event.preventDefault();
      const next = controls[i + step];
      if (!step || !next) return;
      for (const other of controls) other.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}

function scatter(section, panel, choice) {
  const cost = COSTS[state.x], gain = GAINS[state.y];
  const rows = panel.rows.filter((row) => choice.rows.has(row.name) && gain.of(row) !== null && cost.of(row) !== null && (!cost.log || cost.of(row) > 0));
  const choosers = element("div", "", "choosers");
  choosers.append(
    chooser("Against ", Object.entries(COSTS).map(([name, one]) => [name, one.name]), state.x, (value) => change({ x: value })),
    chooser("Protection as ", Object.entries(GAINS).map(([name, one]) => [name, one.name]), state.y, (value) => change({ y: value })),
  );
  if (!rows.length) return [choosers, element("p", "No protector that is shown has both numbers.")];
  const xs = rows.map(cost.of);
  const [least, most] = [Math.min(...xs), Math.max(...xs)];
  const pad = (most - least || most || 1) * 0.08;
  const x = cost.log ? { name: `${cost.name} (log scale)`, log: true, low: least / (most / least) ** 0.1 / 1.1, high: most * (most / least) ** 0.1 * 1.1 }
    : { name: cost.name, low: Math.max(0, least - pad), high: most + pad };
  const y = { name: gain.name, low: Math.min(0, ...rows.map(gain.of)), high: Math.max(105, ...rows.map((row) => gain.of(row) + 3)) };
  const { picture, place, box } = frame(`Protection against ${cost.name}`, x, y);
  picture.append(drawn("line", { x1: box.left, x2: box.right, y1: place.y(data.broken), y2: place.y(data.broken), class: "limit" }));
  picture.append(drawn("text", { x: box.right - 4, y: place.y(data.broken) - 6, "text-anchor": "end", class: "limit" }, `broken: ${data.broken} %`));
  const classes = unique(rows.map((row) => row.class)).sort();
  const taken = rows.map((row) => ({ left: place.x(cost.of(row)) - 7, right: place.x(cost.of(row)) + 7, top: place.y(gain.of(row)) - 7, bottom: place.y(gain.of(row)) + 7, weight: 4 }));
  const points = rows.map((row) => {
    const [px, py] = [place.x(cost.of(row)), place.y(gain.of(row))];
    const kind = classes.indexOf(row.class) % SHAPES.length;
    const spread = state.y === "share" && row.low !== null ? `, 95 % ${row.low.toFixed(0)} to ${row.high.toFixed(0)}` : "";
    const said = `${row.name}: ${gain.of(row).toFixed(0)} % recovered${spread}; ${cost.of(row).toPrecision(3)}; ${row.class}`;
    const made = drawn("g", { class: `point c${kind}`, role: "button", "aria-label": said }, drawn("title", {}, said));
    if (spread) made.append(drawn("line", { x1: px, x2: px, y1: place.y(row.low), y2: place.y(Math.min(row.high, y.high)), class: "spread" }));
    made.append(marker(SHAPES[kind], px, py));
    const at = labelPlace(row.name, px, py, taken, box);
    made.append(drawn("text", at, row.name));
    made.addEventListener("click", () => change({ row: row.name, panel: panel.number, cell: "", with: "" }));
    picture.append(made);
    return made;
  });
  roving(points);
  const key = element("ul", "", "key");
  classes.forEach((name, i) => {
    const line = element("li");
    const sample = drawn("svg", { width: 18, height: 18, class: `chart point c${i % SHAPES.length}`, "aria-hidden": "true" });
    sample.append(marker(SHAPES[i % SHAPES.length], 9, 9));
    line.append(sample, name);
    key.append(line);
  });
  const devices = unique(rows.flatMap((row) => row.devices));
  const note = state.x === "seconds" ? `Measured on ${devices.join("; ")}.` : "Measured on the stored 8-bit images.";
  return [choosers, picture, key, element("p", `Lower is better protection. ${note}`, "small")];
}

// Curves: columns that differ in one number, and panels that differ in the fraction protected.

function curvesOf(panel) {
  const found = panel.families.map((family, i) => ({
    id: `family:${i}`, name: `${family.name}: ${family.parameter}`, axis: `${family.parameter} of ${family.name}`,
    value: (row) => family.points.map(([x, column]) => [x, cellOf(panel, row, panel.columns[column].name)]),
  }));
  const alike = data.panels.filter((other) => JSON.stringify(other.same) === JSON.stringify(panel.same));
  const fractions = unique(alike.map((other) => other.fraction));
  if (fractions.length >= 3 && alike[0] === panel) {
    for (const { name } of panel.columns) {
      found.push({
        id: `fraction:${name}`, name: `fraction protected, ${name}`, axis: "fraction of the training set that is protected",
        value: (row) => alike.map((other) => [other.fraction, rowOf(other, row.name) && cellOf(other, rowOf(other, row.name), name)]),
      });
    }
  }
  return found;
}

function curveView(section, panel, choice) {
  const all = curvesOf(panel);
  const curve = all.find((one) => one.id === state.curve) ?? all[0];
  const accuracy = (cell) => mean(Object.values(cell.seeds));
  const lines = panel.rows.filter((row) => row.reference || choice.rows.has(row.name)).map((row) => ({
    row, points: curve.value(row).filter(([, cell]) => cell).map(([x, cell]) => [x, accuracy(cell)]).sort((a, b) => a[0] - b[0]),
  })).filter((line) => line.points.length > 1);
  const choosers = element("div", "", "choosers");
  choosers.append(chooser("Curve ", all.map((one) => [one.id, one.name]), curve.id, (value) => change({ curve: value })));
  if (!lines.length) return [choosers, element("p", "No protector that is shown has two points of this curve.")];
  const xs = lines.flatMap((line) => line.points.map(([x]) => x));
  const ys = lines.flatMap((line) => line.points.map(([, y]) => y));
  const x = { name: curve.axis, low: Math.min(...xs), high: Math.max(...xs), ticks: unique(xs).length <= 12 ? unique(xs).sort((a, b) => a - b) : undefined };
  const y = { name: "accuracy, %", low: 0, high: Math.max(...ys, 20) * 1.05 };
  const { picture, place, box } = frame(curve.name, x, y, 960, 420, 190);
  picture.append(drawn("line", { x1: box.left, x2: box.right, y1: place.y(panel.chance), y2: place.y(panel.chance), class: "limit" }));
  const ends = lines.map((line) => ({ line, y: place.y(line.points[line.points.length - 1][1]) })).sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i && end.y < ends[i - 1].y + 14) end.y = ends[i - 1].y + 14; });
  lines.forEach((line, i) => {
    const path = line.points.map(([px, py]) => `${place.x(px)},${place.y(py)}`).join(" ");
    const group = drawn("g", { class: `curve c${i % 6}${line.row.reference ? " reference" : ""}` });
    group.append(drawn("polyline", { points: path }));
    for (const [px, py] of line.points) group.append(marker(SHAPES[i % SHAPES.length], place.x(px), place.y(py), 4));
    group.append(drawn("text", { x: box.right + 10, y: ends.find((end) => end.line === line).y + 4 }, line.row.name));
    picture.append(group);
  });
  return [choosers, picture, element("p", "Accuracy on clean test images; dashed: chance. Lower is better protection.", "small")];
}
