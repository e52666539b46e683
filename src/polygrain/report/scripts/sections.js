// The map, the wall of all images, the groups, and what is odd.

for (const holder of document.querySelectorAll(".choose")) {
  if (data.models.length < 2) continue;
  for (const model of data.models) {
    const button = make("button", { type: "button", "data-model": model.number, title: model.name }, model.tag);
    button.addEventListener("click", () => choose(model));
    holder.append(button);
  }
}

// Map
const map = $("#plane canvas");
const tip = $("#tip");
let hues = labels ? "label" : "group";
let highlighted = null;
let asPictures = false;

const kindOf = (i) => (hues === "label" ? labels[i] : state.model.groupOf[i]);

function spot(i) {
  const { places } = state.model;
  const pad = 16;
  const spread = (value, length) => pad + (value / 65535) * (length - 2 * pad);
  return [spread(places[2 * i], map.clientWidth), spread(places[2 * i + 1], map.clientHeight)];
}

function drawMap() {
  const { model } = state;
  $("#plane .figures").textContent = model.mapTold;
  map.hidden = !model.places;
  if (!model.places) return;
  const context = sharp(map, map.clientWidth, map.clientHeight);
  const radius = count > 2500 ? 2.2 : count > 800 ? 3 : 4;
  const taken = new Set();
  const muted = style("--muted");
  const order = [...Array(count).keys()].sort((a, b) => (kindOf(a) === highlighted) - (kindOf(b) === highlighted));
  for (const i of order) {
    const [x, y] = spot(i);
    const faint = highlighted !== null && kindOf(i) !== highlighted;
    context.globalAlpha = faint ? 0.12 : 0.85;
    const ink = kindOf(i) < 0 ? muted : colour(kindOf(i));
    const cell = `${Math.floor(x / 20)},${Math.floor(y / 20)}`;
    if (asPictures && !faint && !taken.has(cell)) {
      taken.add(cell);
      context.globalAlpha = 1;
      drawPart(context, i, [0, 0, 1, 1], [x - 13, y - 13, 26, 26]);
      context.lineWidth = 1.5;
      context.strokeStyle = ink;
      context.strokeRect(x - 13, y - 13, 26, 26);
    }
    if (asPictures && !faint) continue;
    context.fillStyle = ink;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  }
  context.globalAlpha = 1;
  const [x, y] = spot(state.image);
  for (const [line, ink] of [[4, style("--paper")], [2, style("--ink")]]) {
    context.lineWidth = line;
    context.strokeStyle = ink;
    context.beginPath();
    context.arc(x, y, asPictures ? 17 : radius + 4, 0, 7);
    context.stroke();
  }
}

function drawLegend() {
  const kinds = new Map();
  for (let i = 0; i < count; i++) kinds.set(kindOf(i), (kinds.get(kindOf(i)) || 0) + 1);
  const sorted = [...kinds].filter(([kind]) => kind >= 0).sort((a, b) => b[1] - a[1]).slice(0, 24).sort((a, b) => a[0] - b[0]);
  const entries = sorted.map(([kind, size]) => {
    const name = hues === "label" ? data.classes[kind] : `group ${kind + 1}`;
    const entry = make("button", { type: "button", "aria-pressed": String(kind === highlighted), title: `${size} images` },
      make("i", { style: `--c:${colour(kind)}` }), name);
    entry.addEventListener("click", () => { highlighted = highlighted === kind ? null : kind; drawLegend(); drawMap(); });
    return entry;
  });
  if (kinds.size > sorted.length) entries.push(make("span", {}, `and ${kinds.size - sorted.length} more`));
  $("#plane .legend").replaceChildren(...entries);
}

function pointed(event) {
  const box = map.getBoundingClientRect();
  const at = [event.clientX - box.left, event.clientY - box.top];
  let best = 18 ** 2, found = null;
  for (let i = 0; i < count; i++) {
    if (highlighted !== null && kindOf(i) !== highlighted) continue;
    const [x, y] = spot(i);
    const distance = (x - at[0]) ** 2 + (y - at[1]) ** 2;
    if (distance < best) { best = distance; found = i; }
  }
  return found;
}

map.addEventListener("mousemove", (event) => {
  const i = state.model.places ? pointed(event) : null;
  tip.hidden = i === null;
  if (i === null) return;
  tip.replaceChildren(thumb(i, "", "div"), make("b", {}, labelOf(i)), make("span", {}, data.names[i]));
  const wide = tip.offsetWidth;
  tip.style.left = `${Math.min(event.clientX + 16, document.documentElement.clientWidth - wide - 8)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8))}px`;
});
map.addEventListener("mouseleave", () => { tip.hidden = true; });
map.addEventListener("click", (event) => { const i = pointed(event); if (i !== null) select(i); });
map.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || !state.model.places) return;
  event.preventDefault();
  const from = spot(state.image);
  let best = Infinity, found = state.image;
  for (let i = 0; i < count; i++) {
    const to = spot(i);
    const along = (to[0] - from[0]) * step[1] + (to[1] - from[1]) * step[0];
    const across = Math.abs((to[0] - from[0]) * step[0]) + Math.abs((to[1] - from[1]) * step[1]);
    if (along > 0.5 && along + 2 * across < best) { best = along + 2 * across; found = i; }
  }
  select(found);
});
for (const input of document.querySelectorAll("#plane input")) {
  if (input.value === "label" && !labels) input.closest("label").remove();
  input.checked = input.value === hues;
  input.addEventListener("change", () => {
    if (input.name === "hues") { hues = input.value; highlighted = null; drawLegend(); }
    else asPictures = input.checked;
    drawMap();
  });
}

// Wall
const wall = $("#wall");
wall.append(...Array.from({ length: count }, (_, i) => thumb(i)));
for (const picture of wall.children) picture.tabIndex = -1;
wall.firstChild.tabIndex = 0;
wall.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const shown = [...wall.children].filter((picture) => !picture.hidden);
  const abreast = shown.findIndex((picture) => picture.offsetTop > shown[0].offsetTop);
  const to = shown[shown.indexOf(document.activeElement) + step[1] + step[0] * Math.max(abreast, 1)];
  if (to) to.focus();
});
wall.addEventListener("focusin", (event) => {
  for (const picture of wall.querySelectorAll("[tabindex='0']")) picture.tabIndex = -1;
  event.target.tabIndex = 0;
});
$("#search").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const [i, picture] of [...wall.children].entries()) {
    picture.hidden = !`${labelOf(i)} ${data.names[i]}`.toLowerCase().includes(wanted);
  }
});

// Groups
const PREVIEW = 13;

function showGroups(model) {
  const cards = model.members.map((members, g) => {
    const told = labels ? ` · ${majority(members)}` : "";
    const head = make("h3", {}, `Group ${g + 1} `, make("small", {}, `${members.length} images${told}`));
    const sheet = make("div", { class: "sheet" }, ...Array.from(members.slice(0, PREVIEW), (i) => thumb(i)));
    const card = make("div", { class: "group" }, head, sheet);
    if (members.length > PREVIEW) {
      const more = make("button", { type: "button", class: "more", "aria-expanded": "false" }, "show all");
      more.addEventListener("click", () => {
        const open = more.getAttribute("aria-expanded") === "false";
        more.setAttribute("aria-expanded", String(open));
        more.textContent = open ? "show fewer" : "show all";
        sheet.replaceChildren(...Array.from(open ? members : members.slice(0, PREVIEW), (i) => thumb(i)));
      });
      head.append(more);
    }
    return card;
  });
  $("#contacts").replaceChildren(...cards);
}

function majority(members) {
  const counts = new Map();
  for (const i of members) counts.set(labelOf(i), (counts.get(labelOf(i)) || 0) + 1);
  const [[name, most]] = [...counts].sort((a, b) => b[1] - a[1]);
  return `${Math.round((100 * most) / members.length)} % ${name || "without label"}`;
}

// Near copies and outliers
function showOdd(model) {
  $("#near-copies-and-outliers .figures").textContent =
    `The nearest neighbour of an image is, as a rule (median), ${model.typical.toFixed(1)}° away.`;
  const pairs = model.duplicates.map(([a, b, angle]) => make("figure", {}, make("div", {}, thumb(a), thumb(b)),
    make("figcaption", {}, make("b", {}, `${angle.toFixed(1)}°`), ...[a, b].map((i) => make("span", {}, data.names[i])))));
  const lone = model.outliers.map(([i, angle]) => make("figure", {}, thumb(i),
    make("figcaption", {}, make("b", {}, `${angle.toFixed(1)}°`), make("span", {}, data.names[i]))));
  $("#copies").replaceChildren(...pairs);
  $("#outliers").replaceChildren(...lone);
}

watchers.model.push(drawMap, drawLegend, showGroups, showOdd);
watchers.image.push(drawMap);
pictured.then(() => {
  choose(state.model);
  select(0);
  performance.mark("ready");
});
let resized = null;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { drawMap(); drawLarge(); }, 100);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
