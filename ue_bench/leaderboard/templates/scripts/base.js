"use strict";

// Every value from the results is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const panels = [...document.querySelectorAll("section.panel")];

const svgSpace = document.querySelector("svg").namespaceURI; // an address that is never asked for

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(svgSpace, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(text, act, className = "") {
  const made = element("button", text, className);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function option(value, text = value) {
  const made = element("option", text);
  made.value = value;
  return made;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const unique = (values) => [...new Set(values)];

// Factor of a two-sided 95 % interval: Student's t.
const quantile = (degrees) => data.quantiles[Math.min(degrees, data.quantiles.length) - 1];

const cellOf = (panel, row, column) => data.cells[row.cells[column]];
const rowOf = (panel, name) => panel.rows.find((row) => row.name === name);

// A name as the page shows it: it may break where the parts of a selector meet.
function named(selector) {
  const made = element("span");
  for (const piece of selector.split(/(?=\[)|(?<=[,+\-=])/)) made.append(piece, document.createElement("wbr"));
  return made;
}

// What the reader has chosen. The address holds all of it that is not as at first.

const FIRST = { q: "", class: "", tag: "", dataset: "", victim: "", view: "table", printed: "", sort: "", group: "1",
                x: "rms", y: "share", curve: "", under: "", cell: "", row: "", with: "", hide: [] };
const state = { ...FIRST };
