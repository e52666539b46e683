// The chosen image: its nearest images, and the regions nearest to a patch of it.

const state = { model: data.models[0], image: 0, at: null };
const watchers = { model: [], image: [] };
const KEPT = data.models.length === 1 ? 16 : 8;

function sameness(a, b) {
  if (!labels || labels[a] < 0 || labels[b] < 0) return "";
  return labels[a] === labels[b] ? "same" : "other";
}

function codesOf(model) {
  if (!model.codes) {
    model.codes = new Int8Array(bytes(stored(`codes-${model.number}`)).buffer);
    const rest = bytes(stored(`rest-${model.number}`));
    model.norms = new Float64Array(rest.length);
    for (let j = 0, p = 0; j < rest.length; j++) {
      let sum = (rest[j] / 255 / model.step) ** 2; // two parts that the codes leave out are taken to be at right angles
      for (const end = p + model.dims; p < end; p++) sum += model.codes[p] * model.codes[p];
      model.norms[j] = sum;
    }
  }
  return model.codes;
}

// Squared distance, in steps, of cell a of the set to cell b: as codes tell it, and what they leave out.
function away(model, a, b) {
  if (a === b) return 0;
  const { codes, norms, dims } = model;
  let product = 0;
  for (let p = a * dims, q = b * dims, end = p + dims; p < end; p++, q++) product += codes[p] * codes[q];
  return norms[a] + norms[b] - 2 * product;
}

const cosineOf = (model, distance) => 1 - (distance * model.step * model.step) / 2;

// Of every other image the region nearest to a cell of this one; the nearest of these first.
function nearestRegions(model, image, cell, kept) {
  codesOf(model);
  const cells = model.grid[0] * model.grid[1];
  const query = image * cells + cell;
  const found = [];
  for (let i = 0; i < count; i++) {
    if (i === image) continue;
    let best = Infinity, where = 0;
    for (let j = 0; j < cells; j++) {
      const distance = away(model, query, i * cells + j);
      if (distance < best) { best = distance; where = j; }
    }
    found.push({ image: i, cell: where, distance: best });
  }
  return found.sort((a, b) => a.distance - b.distance || a.image - b.image).slice(0, kept);
}

// A model may see less or more of an image than the thumbnail shows, around the same middle.
function cellAt(model, image, at) {
  const share = shareOf(model, image);
  const [row, column] = at.map((p, axis) => {
    const seen = Math.floor((0.5 + (p - 0.5) / share) * model.grid[axis]);
    return Math.min(Math.max(seen, 0), model.grid[axis] - 1);
  });
  return row * model.grid[1] + column;
}

// Left, top, width, height of a cell, in shares of the thumbnail.
function boxOf(model, image, cell) {
  const share = shareOf(model, image);
  const [high, wide] = model.grid;
  const row = Math.floor(cell / wide), column = cell % wide;
  return [0.5 + (column / wide - 0.5) * share, 0.5 + (row / high - 0.5) * share, share / wide, share / high];
}

const large = $("#large");

function drawLarge() {
  const size = large.clientWidth;
  const context = sharp(large, size, size);
  drawPart(context, state.image, [0, 0, 1, 1], [0, 0, size, size]);
  if (!state.at) return;
  const { model, image } = state;
  const cells = model.grid[0] * model.grid[1];
  const chosen = cellAt(model, image, state.at);
  codesOf(model);
  const distances = Array.from({ length: cells }, (_, j) => away(model, image * cells + chosen, image * cells + j));
  const farthest = Math.max(...distances, 1);
  distances.forEach((distance, j) => {
    const [x, y, w, h] = boxOf(model, image, j).map((share) => share * size);
    context.fillStyle = `rgba(12, 13, 16, ${0.72 * Math.sqrt(distance / farthest)})`;
    context.fillRect(x, y, w + 0.5, h + 0.5);
  });
  outline(context, boxOf(model, image, chosen).map((share) => share * size), 2);
}

function outline(context, [x, y, w, h], width) {
  for (const [line, ink] of [[width + 2, "rgba(0, 0, 0, .55)"], [width, "#fff"]]) {
    context.lineWidth = line;
    context.strokeStyle = ink;
    context.strokeRect(x, y, w, h);
  }
}

function regionButton(model, found) {
  const box = boxOf(model, found.image, found.cell);
  const reach = 0.5; // of the image's side is shown around the region
  const corner = [0, 1].map((axis) => Math.min(Math.max(box[axis] + box[axis + 2] / 2 - reach / 2, 0), 1 - reach));
  const canvas = make("canvas");
  const context = sharp(canvas, 56, 56);
  drawPart(context, found.image, [...corner, reach, reach], [0, 0, 56, 56]);
  const shown = box.map((share, k) => ((k < 2 ? share - corner[k] : share) * 56) / reach);
  outline(context, shown, 1.5);
  const told = `${labelOf(found.image) || data.names[found.image]}, cosine about ${cosineOf(model, found.distance).toFixed(2)}`;
  const button = make("button", {
    type: "button", class: `region ${sameness(state.image, found.image)}`, title: told, "aria-label": `region of ${told}`,
    "data-image": found.image, "data-y": box[1] + box[3] / 2, "data-x": box[0] + box[2] / 2, "data-cell": found.cell,
  }, canvas);
  return button;
}

function strip(model, children) {
  const name = make("span", { class: "whose", style: `--c:var(--model-${model.number % 6})`, title: model.name }, model.tag);
  return make("div", { class: "strip-of", "data-model": model.number }, name, make("div", { class: "strip" }, ...children));
}

function showSimilar() {
  const strips = data.models.map((model) => {
    const start = state.image * model.k;
    const pictures = Array.from(model.neighbours.subarray(start, start + Math.min(KEPT, model.k)), (i, place) => {
      const picture = thumb(i, sameness(state.image, i));
      picture.title += `\ncosine ${(model.cosines[start + place] / 1e4).toFixed(3)}`;
      return picture;
    });
    return strip(model, pictures);
  });
  $("#similar").replaceChildren(...strips);
}

function showRegions() {
  const at = state.at;
  $("#regions").hidden = !at;
  $("#hint").hidden = Boolean(at);
  if (!at) return;
  const strips = data.models.map((model) => {
    const cell = cellAt(model, state.image, at);
    return strip(model, nearestRegions(model, state.image, cell, KEPT).map((found) => regionButton(model, found)));
  });
  $("#regions .strips").replaceChildren(...strips);
}

function select(image, at = null) {
  state.image = image;
  state.at = at;
  $("#chosen-name").textContent = data.names[image];
  $("#chosen-label").textContent = labelOf(image);
  showSimilar();
  showRegions();
  drawLarge();
  for (const watcher of watchers.image) watcher(image);
}

function choose(model) {
  state.model = model;
  for (const radio of document.querySelectorAll(".choose button")) {
    radio.setAttribute("aria-pressed", String(Number(radio.dataset.model) === model.number));
  }
  for (const watcher of watchers.model) watcher(model);
  drawLarge();
}

document.addEventListener("click", (event) => {
  const clicked = event.target.closest("[data-image]");
  if (!clicked) return;
  const { image, x, y } = clicked.dataset;
  select(Number(image), x === undefined ? null : [Number(y), Number(x)]);
});

large.addEventListener("click", (event) => {
  const box = large.getBoundingClientRect();
  select(state.image, [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]);
});

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
large.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const { grid } = state.model;
  const at = state.at || [0.5, 0.5];
  select(state.image, at.map((p, axis) => Math.min(Math.max(p + step[axis] / grid[axis], 0.01), 0.99)));
});
