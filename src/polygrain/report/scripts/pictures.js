"use strict";
// What the page knows, and how it draws an image of the set.

const $ = (selector, within = document) => within.querySelector(selector);
const stored = (id) => document.getElementById(id).textContent;
const data = JSON.parse(stored("data"));
const { columns, rows, side } = data.sheet;
const count = data.names.length;

function bytes(text) {
  const characters = atob(text.trim());
  const found = new Uint8Array(characters.length);
  for (let i = 0; i < found.length; i++) found[i] = characters.charCodeAt(i);
  return found;
}

const numbers = (text, Kind) => new Kind(bytes(text).buffer);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const labels = data.labels ? numbers(data.labels, Int16Array) : null;
const labelOf = (i) => (labels && labels[i] >= 0 ? data.classes[labels[i]] : "");
const percent = (share) => `${(100 * share).toFixed(1)} %`;

// Models: lists of neighbours are short and unpacked at once, codes of regions at the first click.
for (const [m, model] of data.models.entries()) {
  model.number = m;
  model.neighbours = numbers(model.neighbours, Uint16Array);
  model.cosines = numbers(model.cosines, Int16Array);
  model.order = numbers(model.order, Uint16Array);
  model.groupOf = new Uint16Array(count);
  model.members = [];
  let start = 0;
  for (const [g, size] of model.sizes.entries()) {
    model.members.push(model.order.subarray(start, start + size));
    for (const i of model.members[g]) model.groupOf[i] = g;
    start += size;
  }
  if (model.map) model.places = numbers(model.map, Uint16Array);
  if (typeof model.share === "string") model.share = numbers(model.share, Float32Array);
}
const shareOf = (model, i) => (typeof model.share === "number" ? model.share : model.share[i]);

// Sheets of thumbnails: pictures for canvases, rules for everything else.
const sheets = [];
const rules = [];
for (let s = 0; s * columns * rows < count; s++) {
  const url = URL.createObjectURL(new Blob([bytes(stored(`sheet-${s}`))], { type: "image/webp" }));
  const picture = new Image();
  picture.src = url;
  sheets.push(picture);
  rules.push(`.s${s}{background-image:url("${url}")}`);
}
document.head.append(make("style", {}, rules.join("\n")));
const pictured = Promise.all(sheets.map((picture) => picture.decode()));

function place(i) {
  const sheet = Math.floor(i / (columns * rows));
  const at = i % (columns * rows);
  const filled = Math.min(columns * rows, count - sheet * columns * rows);
  return { sheet, row: Math.floor(at / columns), column: at % columns, high: Math.ceil(filled / columns) };
}

function thumb(i, extra = "", tag = "button") {
  const { sheet, row, column, high } = place(i);
  const element = make(tag, { class: `thumb s${sheet} ${extra}`, "data-image": i });
  if (tag === "button") element.type = "button";
  element.title = labelOf(i) ? `${labelOf(i)}\n${data.names[i]}` : data.names[i];
  element.setAttribute("aria-label", element.title.replace("\n", ", "));
  element.style.backgroundSize = `${100 * columns}% ${100 * high}%`;
  element.style.backgroundPosition = `${(100 * column) / (columns - 1)}% ${high > 1 ? (100 * row) / (high - 1) : 0}%`;
  return element;
}

// Draws a part of image i, given in shares of its sides, into a rectangle of a canvas.
function drawPart(context, i, part, into) {
  const { sheet, row, column } = place(i);
  const [left, top, width, height] = part;
  context.drawImage(
    sheets[sheet],
    (column + left) * side, (row + top) * side, width * side, height * side,
    into[0], into[1], into[2], into[3],
  );
}

// A canvas of this size on the page, sharp on any screen.
function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.imageSmoothingQuality = "high";
  return context;
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// One of many colours: ten that differ well, then as many as are wanted around the circle.
const TEN = ["#3b7dd8", "#e07b2e", "#2fa36b", "#c8443f", "#8f64b5", "#8c6a4f", "#d873a8", "#7d8a2e", "#2aa7b5", "#d9ac2b"];
const colour = (c) => (c < 10 ? TEN[c] : `hsl(${(c * 137.5) % 360} 58% ${45 + 12 * (c % 3)}%)`);
