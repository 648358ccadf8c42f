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

// On paper nothing can be unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

const drawn = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
