// A row by itself, and beside another one: differences of the same columns and seeds.

// Columns that both rows have, with accuracies of the seeds that both have there, or means where they share fewer than two;
// ``whole`` are the means over all seeds.
function pairs(panel, first, second) {
  return panel.columns.map((column) => [column, cellOf(panel, first, column.name), cellOf(panel, second, column.name)])
    .filter(([, a, b]) => a && b)
    .map(([column, a, b]) => {
      const common = Object.keys(a.seeds).filter((seed) => seed in b.seeds);
      const seeds = common.length > 1 ? common : [];
      const whole = [a, b].map((cell) => mean(Object.values(cell.seeds)));
      const [ofA, ofB] = [a, b].map((cell, i) => (seeds.length ? seeds.map((seed) => cell.seeds[seed]) : [whole[i]]));
      return { column, seeds, whole, a: ofA, b: ofB };
    });
}

// The difference in one column with its 95 % interval: over seeds where there are two, else of the test set, as if both
// victims failed on unrelated images.
function difference(panel, pair) {
  const values = pair.a.map((a, i) => a - pair.b[i]);
  const middle = mean(values), n = values.length;
  const of = (percent) => (percent * (100 - percent)) / panel.images;
  const test = 1.96 * Math.sqrt(of(mean(pair.a)) + of(mean(pair.b)));
  const seeds = n > 1 ? quantile(n - 1) * Math.sqrt(values.reduce((s, v) => s + (v - middle) ** 2, 0) / (n - 1) / n) : 0;
  return { middle, half: Math.hypot(test, seeds), n };
}

// The mean difference of recovered shares over the columns that count. Variance of the paired bootstrap over seeds and
// columns, in closed form; as for ranks.
function meanDifference(panel, found) {
  const counted = found.filter((pair) => pair.column.counts && pair.column.defined);
  const shared = counted.length ? counted[0].seeds.filter((seed) => counted.every((pair) => pair.seeds.includes(seed))) : [];
  const share = (pair, accuracy) => 100 * accuracy / (pair.column.clean - panel.chance);
  const table = counted.map((pair) => (shared.length > 1
    ? shared.map((seed) => share(pair, pair.a[pair.seeds.indexOf(seed)] - pair.b[pair.seeds.indexOf(seed)]))
    : [share(pair, pair.whole[0] - pair.whole[1])]));
  const k = table.length;
  if (k < 4) return null;
  const s = table[0].length;
  const sum = (values) => values.reduce((x, y) => x + y, 0);
  const total = sum(table.map(sum));
  const columns = sum(table.map((column) => sum(column) ** 2));
  const seeds = sum(table[0].map((_, i) => sum(table.map((column) => column[i])) ** 2));
  const cells = sum(table.map((column) => sum(column.map((value) => value ** 2))));
  const [a, b] = [(s - 1) / s, (k - 1) / k];
  const second = (a * b * total ** 2 + a * columns + b * seeds + cells) / (s * k) ** 2;
  const variance = Math.max(second - (total / (s * k)) ** 2, 0) * k / (k - 1);
  return { middle: total / (s * k), half: quantile(k - 1) * Math.sqrt(variance), columns: k, seeds: s };
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

function comparison(panel, first, second) {
  const found = pairs(panel, first, second);
  const whole = meanDifference(panel, found);
  const parts = [];
  if (whole) {
    const certain = Math.abs(whole.middle) > whole.half;
    const better = whole.middle < 0 ? first.name : second.name;
    parts.push(element("p", `${signed(whole.middle)} ± ${whole.half.toFixed(1)} points of recovered share`, "accuracy"));
    parts.push(element("p", certain ? `${better} protects better at 95 %.` : "The two cannot be told apart at 95 %.", "recovers"));
    parts.push(element("p", `Mean of ${whole.columns} columns, ${whole.seeds > 1 ? `${whole.seeds} seeds in common; paired bootstrap over seeds and columns` : "fewer than two seeds in common; paired bootstrap over columns"}.${first.class === second.class ? "" : ` Their perturbation classes differ: ${first.class} and ${second.class}.`}`, "certainty"));
  } else {
    parts.push(element("p", "Fewer than four columns in common: no mean difference is given.", "note"));
  }
  const table = element("table", "", "differences");
  const head = table.createTHead().insertRow();
  for (const text of ["countermeasure", first.name, second.name, "difference, 95 %"]) {
    const cell = element("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  head.append(element("td")); // above the bars, which draw the column beside them
  const largest = Math.max(...found.map((pair) => Math.abs(difference(panel, pair).middle)), 1);
  const body = table.createTBody();
  for (const pair of found) {
    const { middle, half } = difference(panel, pair);
    const line = body.insertRow();
    const label = element("th", "");
    label.scope = "row";
    label.append(named(pair.column.name));
    line.append(label, element("td", mean(pair.a).toFixed(1)), element("td", mean(pair.b).toFixed(1)));
    line.append(element("td", `${signed(middle)} ± ${half.toFixed(1)}`, Math.abs(middle) > half ? "certain" : ""));
    const cell = element("td", "", "gauge");
    const gauge = element("i", "", middle < 0 ? "first" : "second");
    gauge.style.width = `${50 * Math.abs(middle) / largest}%`;
    gauge.style[middle < 0 ? "right" : "left"] = "50%";
    cell.append(gauge);
    line.append(cell);
  }
  parts.push(table);
  parts.push(element("p", `Accuracies in percent, ${first.name} minus ${second.name}: below zero the first protects better. Bold: the interval does not hold zero. With fewer than two seeds in common the interval is of the test set alone.`, "small"));
  return parts;
}

function rowDetails(panel, row) {
  const others = panel.rows.filter((other) => other !== row).map((other) => [other.name, other.name]);
  const select = chooser("Compare with ", [["", "nothing"], ...others], rowOf(panel, state.with) ? state.with : "", (value) => change({ with: value }));
  select.className = "with";
  const second = state.with ? rowOf(panel, state.with) : null;
  if (second) {
    const first = chooser("Compare ", panel.rows.filter((other) => other !== second).map((other) => [other.name, other.name]), row.name, (value) => change({ row: value }));
    first.className = "with";
    return [first, select, ...comparison(panel, row, second)];
  }
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const facts = [
    ["perturbation class", row.class],
    ["declared", row.declared],
    ["tags", row.tags.join(", ") || "–"],
    ["rank in its class", row.rank],
    ["recovered share, mean", row.share === null ? "–" : `${number(row.share, 1)} %${row.low === null ? "" : ` (95 % ${number(row.low, 1)} to ${number(row.high, 1)})`}`],
    ["recovered share, worst", row.worst === null ? "–" : `${number(row.worst, 1)} %`],
    ["RMS, gray levels of 255", number(row.rms, 2)],
    ["PSNR", row.psnr === null ? "∞" : `${number(row.psnr, 1)} dB`],
    ["time to protect", `${row.seconds.toFixed(1)} s on ${row.devices.join("; ")}`],
  ];
  const cells = panel.columns.filter((column) => column.counts).map((column) => [column, cellOf(panel, row, column.name)]).filter(([, cell]) => cell);
  const broken = cells.filter(([, cell]) => cell.share !== null && cell.share >= data.broken).sort((a, b) => b[1].share - a[1].share);
  const holds = cells.filter(([, cell]) => cell.share !== null && cell.share < data.broken).sort((a, b) => a[1].share - b[1].share);
  const links = (of) => {
    const made = element("ul", "", "cells");
    for (const [column, cell] of of) {
      const item = element("li");
      const control = button(`${column.name}: ${cell.share.toFixed(0)} %`, () => change({ cell: cell.keys[0], row: "", with: "" }));
      control.classList.add(level(cell.share));
      item.append(control);
      made.append(item);
    }
    return made;
  };
  return [
    select,
    list(facts),
    ...pictureOf(row),
    ...(broken.length ? [element("h3", `Broken by ${broken.length}: recovered share`), links(broken)] : []),
    ...(holds.length ? [element("h3", `Holds against ${holds.length}`), links(holds)] : []),
  ];
}
