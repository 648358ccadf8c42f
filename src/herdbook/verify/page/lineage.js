
// The lineage: each model below its parents, a line to each; a click, or Enter, shows what is known of it. A line that passes
// other rows has a place of its own in each of them, so that none runs behind a model.
const models = document.getElementById("models");
if (models) {
  const nodes = JSON.parse(models.textContent);
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const [width, height, gap, rise, thin] = [190, 44, 20, 56, 12];
  const most = 23; // characters of a name
  const short = (name) => (name.length > most ? `${name.slice(0, most / 2)}…${name.slice(-most / 2)}` : name);
  for (const node of nodes) { // parents come first
    node.of = node.of.map((name) => byName.get(name));
    node.row = Math.max(-1, ...node.of.map((parent) => parent.row)) + 1;
    node.width = width;
  }
  for (const node of [...nodes].reverse()) { // as far down as its children allow
    const children = nodes.filter((other) => other.of.includes(node));
    if (children.length) node.row = Math.min(...children.map((child) => child.row)) - 1;
  }
  const rows = [];
  for (const node of nodes) (rows[node.row] ??= []).push(node);
  const lines = []; // each is a parent, its places in the rows between, and a child
  for (const node of nodes) for (const parent of node.of) {
    const line = [parent];
    for (let row = parent.row + 1; row < node.row; row += 1) {
      const place = { row, width: thin };
      rows[row].push(place);
      line.push(place);
    }
    lines.push([...line, node]);
  }
  const near = new Map(rows.flat().map((item) => [item, { above: [], below: [] }]));
  for (const line of lines) line.slice(1).forEach((item, number) => {
    near.get(item).above.push(line[number]);
    near.get(line[number]).below.push(item);
  });
  const widths = rows.map((row) => row.reduce((sum, item) => sum + item.width + gap, 0));
  const all = [Math.max(...widths), rows.length * (height + rise) - rise + 16];
  const arrange = () => rows.forEach((row, number) => {
    let x = (all[0] - widths[number] + gap) / 2;
    for (const item of row) {
      item.x = x;
      item.y = number * (height + rise) + 8;
      x += item.width + gap;
    }
  });
  const middle = (item) => item.x + item.width / 2;
  const sort = (row, side) => {
    const wish = new Map(row.map((item) => {
      const others = near.get(item)[side].map(middle);
      return [item, others.length ? others.reduce((a, b) => a + b) / others.length : middle(item)];
    }));
    row.sort((a, b) => wish.get(a) - wish.get(b));
  };
  arrange();
  for (let round = 0; round < 4; round += 1) {
    for (const row of rows) { sort(row, "above"); arrange(); }
    for (const row of [...rows].reverse()) { sort(row, "below"); arrange(); }
  }
  const picture = drawn("svg", { role: "group", "aria-label": "Lineage" });
  const room = document.getElementById("graph").clientWidth;
  let zoom = all[0] > room && all[0] <= 2 * room ? 0 : 1; // 0: as wide as the page, if it stays legible
  const show = () => {
    picture.setAttribute("viewBox", `0 0 ${all[0]} ${all[1]}`);
    picture.setAttribute("width", zoom === 0 ? "100%" : Math.round(all[0] / zoom));
  };
  for (const line of lines) {
    let path = `M${middle(line[0])} ${line[0].y + height}`;
    line.slice(1).forEach((item, number) => {
      const [x, y, X, Y] = [middle(line[number]), line[number].y + height, middle(item), item.y];
      path += `C${x} ${(y + Y) / 2} ${X} ${(y + Y) / 2} ${X} ${Y}`;
      if (!item.name) path += `V${Y + height}`;
    });
    picture.append(drawn("path", { d: path, class: "edge" }));
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
      const parents = node.of.map((parent) => parent.name).join(", ");
      for (const [label, value] of [["made of", parents || "nothing: it is a source"], ...node.details]) {
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
