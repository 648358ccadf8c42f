"use strict";
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    } catch {
      button.textContent = "select it and copy by hand";
    }
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        if (!("value" in cell.dataset)) return cell.textContent.trim();
        return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null); // what has no value stays last
        const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}

const element = (name, text) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
};

const origin = (node) => {
  const item = element("li", node.text);
  if (node.sha256) item.append(" ", element("code", node.sha256.slice(0, 12)));
  if (node.of && node.of.length) {
    const list = element("ul");
    list.append(...node.of.map(origin));
    item.append(list);
  }
  return item;
};

const search = document.getElementById("search");
if (search) {
  const slices = JSON.parse(document.getElementById("slices").textContent);
  const hits = document.getElementById("hits");
  const found = document.getElementById("found");
  const most = 50;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = words.length
      ? slices.filter((slice) => words.every((word) => `${slice.name} ${slice.file}`.toLowerCase().includes(word)))
      : [];
    hits.replaceChildren(
      ...matching.slice(0, most).map((slice) => {
        const details = element("details");
        const summary = element("summary");
        summary.append(element("strong", slice.name), ` ${slice.form}`);
        const list = element("ul");
        list.append(origin(slice.origin));
        const place = element("p", `${slice.file}, bytes ${slice.begin} to ${slice.end - 1}, SHA-256 `);
        place.append(element("code", slice.sha256));
        details.append(summary, place, list);
        details.open = matching.length === 1;
        return details;
      }),
    );
    found.textContent = words.length ? `${matching.length} found${matching.length > most ? `, the first ${most} shown` : ""}` : "";
  });
}

// The lineage: each model below its parents, a line to each; a click, or Enter, shows what is known of it.
const models = document.getElementById("models");
if (models) {
  const nodes = JSON.parse(models.textContent);
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const [width, height, gap, rise] = [190, 44, 20, 56];
  const most = 23; // characters of a name
  const short = (name) => (name.length > most ? `${name.slice(0, most / 2)}…${name.slice(-most / 2)}` : name);
  const rows = [];
  for (const node of nodes) { // parents come first
    node.row = Math.max(-1, ...node.of.map((parent) => byName.get(parent).row)) + 1;
    (rows[node.row] ??= []).push(node);
  }
  const widest = Math.max(...rows.map((row) => row.length));
  const all = [widest * (width + gap), rows.length * (height + rise)];
  rows.forEach((row, number) => row.forEach((node, place) => {
    node.x = ((place + 0.5) * all[0]) / row.length - width / 2;
    node.y = number * (height + rise) + 8;
  }));
  const drawn = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const picture = drawn("svg", { role: "group", "aria-label": "Lineage" });
  let zoom = 1;
  const show = () => {
    picture.setAttribute("viewBox", `0 0 ${all[0]} ${all[1]}`);
    picture.setAttribute("width", zoom === 0 ? "100%" : Math.round(all[0] / zoom));
  };
  for (const node of nodes) for (const parent of node.of.map((name) => byName.get(name))) {
    const [x, y, X, Y] = [parent.x + width / 2, parent.y + height, node.x + width / 2, node.y];
    picture.append(drawn("path", { d: `M${x} ${y}C${x} ${(y + Y) / 2} ${X} ${(y + Y) / 2} ${X} ${Y}`, class: "edge" }));
  }
  const panel = document.getElementById("node");
  for (const node of nodes) {
    const group = drawn("g", { tabindex: 0, role: "button", "aria-label": `${node.name}, ${node.by}`, class: "model" });
    group.append(
      drawn("title", {}, node.name),
      drawn("rect", { x: node.x, y: node.y, width, height, rx: 6 }),
      drawn("text", { x: node.x + 8, y: node.y + 19 }, short(node.name)),
      drawn("text", { x: node.x + 8, y: node.y + 36, class: "by" }, node.by),
    );
    const choose = () => {
      picture.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
      group.classList.add("chosen");
      const list = element("dl");
      for (const [label, value] of [["made of", node.of.join(", ") || "nothing: it is a source"], ...node.details]) {
        const found = element("dd");
        found.append(element("code", value));
        list.append(element("dt", label), found);
      }
      panel.replaceChildren(element("h3", node.name), list);
    };
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
    });
    picture.append(group);
  }
  document.querySelectorAll("button[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    const factor = Number(button.dataset.zoom);
    zoom = factor === 0 ? 0 : (zoom || 1) * factor;
    show();
  }));
  show();
  document.getElementById("graph").append(picture);
}
