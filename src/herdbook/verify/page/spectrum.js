
// The spectrum of a matrix that is chosen from the list, and where each rule cuts it.
const spectra = document.getElementById("spectra-data");
if (spectra) {
  const matrices = JSON.parse(spectra.textContent);
  const list = document.getElementById("matrix");
  for (const model of new Set(matrices.map((one) => one.model))) {
    const group = element("optgroup");
    group.label = model;
    matrices.forEach((one, number) => {
      if (one.model !== model) return;
      const option = element("option", `${one.name}: ${one.rank} of ${one.count}`);
      option.value = number;
      group.append(option);
    });
    list.append(group);
  }
  const [width, height, left, bottom, decades] = [480, 230, 56, 22, 8];
  const share = (number) => `${(100 * number).toFixed(2)} %`;
  const show = () => {
    const one = matrices[Number(list.value)];
    const top = Math.log10(Math.max(...one.points.map((point) => point[1]), Number.MIN_VALUE));
    const least = Math.min(...one.points.filter((point) => point[1] > 0).map((point) => Math.log10(point[1])));
    const low = Math.max(Math.min(least, top - 0.5), top - decades);
    const x = (rank) => left + ((rank - 1) / Math.max(1, one.count - 1)) * (width - left - 14);
    const y = (value) => {
      const place = value > 0 ? Math.max(low, Math.log10(value)) : low;
      return 10 + ((top - place) / (top - low)) * (height - bottom - 10);
    };
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": `Spectrum of ${one.name}` });
    for (let power = Math.ceil(low); power <= top; power += 1) {
      const at = y(10 ** power);
      picture.append(
        drawn("line", { x1: left, x2: width - 14, y1: at, y2: at, class: "grid" }),
        drawn("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, 10 ** power < 0.001 ? `1e${power}` : String(+(10 ** power).toPrecision(1))),
      );
    }
    for (const [rule, rank] of Object.entries(one.cuts)) {
      const line = drawn("line", { x1: x(rank), x2: x(rank), y1: 10, y2: height - bottom, class: "rule" });
      line.append(drawn("title", {}, `${rule}: ${rank}`));
      picture.append(line);
    }
    picture.append(
      drawn("line", { x1: x(one.rank), x2: x(one.rank), y1: 10, y2: height - bottom, class: "cut" }),
      drawn("path", { d: `M${one.points.map(([rank, value]) => `${x(rank).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`, class: "values" }),
      drawn("text", { x: left, y: height - 6 }, "1"),
      drawn("text", { x: width - 14, y: height - 6, "text-anchor": "end" }, `${one.count} singular values`),
    );
    const rules = Object.entries(one.cuts).map(([rule, rank]) => `${rule} would keep ${rank}`);
    const words = `${one.rule} kept ${one.rank} of ${one.count} (the bold line): energy ${share(one.energy)}, change ${share(one.change)}.`;
    document.getElementById("spectrum").replaceChildren(picture, element("p", [words, ...rules.map((rule) => `${rule}.`)].join(" ")));
  };
  list.addEventListener("change", show);
  show();
}
