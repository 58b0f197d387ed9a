// One checkpoint: its tree by bytes, its layers, its tensors.

function checkpointPage(data) {
  const totals = data.totals;
  const odd = Number(totals.nan) + Number(totals.inf);
  section("facts", "Overview", tiles([
    ["tensors", figure(totals.tensors)], ["elements", figure(totals.elements)], ["in memory", bytes(totals.bytes)],
    [`${counted(totals.nan, "NaN")}, ${figure(totals.inf)} infinite`, odd ? figure(odd) : "none", odd ? "bad" : "good"],
    data.damage.length ? ["damaged tensors", figure(data.damage.length), "bad"] : ["damaged tensors", "none", "good"],
  ]), list(data.facts));
  if (data.damage.length) {
    section("damage", "Damage", h("p", {}, "These tensors could not be read; the others are shown."), table({
      caption: "Damaged tensors", rows: data.damage, filter: (row) => row[0], columns: [
        { label: "tensor", value: (row) => row[0], cell: (row) => row[0], kind: "name" },
        { label: "code", value: (row) => row[1], cell: (row) => row[1] },
        { label: "what is wrong", value: (row) => row[2], cell: (row) => row[2], kind: "words" },
      ],
    }));
  }
  const rows = data.tensors.map((row, place) => ({ ...Object.fromEntries(data.columns.map((name, i) => [name, row[i]])), histogram: data.histograms[place] }));
  const byName = new Map(rows.map((row) => [row.name, row]));
  const show = (name) => byName.has(name) && tensorDialog(byName.get(name));
  if (totals.tensors) {
    section("map", "Tree by bytes", h("p", { class: "note" }, "A box is as large as its bytes in memory, its colour is the dtype. Enter opens a part, Escape leads out of it, arrow keys lead to the next."),
      treeMap(data.map, totals.dtypes.map((row) => row[0]), show));
    section("dtypes", "Dtypes", barChart("Bytes by dtype", totals.dtypes.map(([name, , , size]) => ({ name, value: Number(size) })), bytes));
  }
  if (data.stacks.length) section("layers", "Layers", layersView(data.stacks));
  if (data.spectra.length) section("spectra", "Spectra", h("div", { class: "grid" }, data.spectra.map(spectrumView)));
  section("tensors", "Tensors", data.left ? h("p", { class: "note" }, `The largest ${figure(rows.length)}; ${figure(data.left)} smaller ones are left out of this table.`) : null, tensorTable(rows));
  if (data.metadata.length) section("metadata", "Metadata", entriesTable("Metadata", data.metadata));
}

const entriesTable = (caption, rows) => table({
  caption, rows, filter: (row) => row.join(" "), columns: [
    { label: "entry", value: (row) => row[0], cell: (row) => row[0], kind: "name" },
    { label: "value", value: (row) => row[1], cell: (row) => row[1], kind: "words" },
  ],
});

function tensorTable(rows) {
  const numeric = (label, key, text = figure) => ({ label, number: true, value: (row) => num(row[key]), cell: (row) => text(row[key]) });
  return table({
    caption: "Tensors", rows, filter: (row) => `${row.name} ${row.dtype}`, sorted: { column: 4, down: true }, columns: [
      { label: "name", value: (row) => row.name, kind: "name", cell: (row) => h("button", { type: "button", click: () => tensorDialog(row) }, row.name) },
      { label: "dtype", value: (row) => row.dtype, cell: (row) => row.dtype },
      { label: "shape", value: (row) => num(row.elements), cell: (row) => (row.shape.length ? row.shape.join(" × ") : "scalar") },
      numeric("elements", "elements"), numeric("bytes", "bytes", bytes),
      numeric("min", "min"), numeric("max", "max"), numeric("mean", "mean"), numeric("std", "std"), numeric("norm", "norm"),
      numeric("zeros", "zeros"),
      { label: "NaN, inf", number: true, value: (row) => num(row.nan) === null ? null : num(row.nan) + num(row.inf), cell: (row) => row.error ? h("span", { class: "bad" }, row.error) : num(row.nan) + num(row.inf) ? h("span", { class: "bad" }, figure(num(row.nan) + num(row.inf))) : "0" },
    ],
  });
}

function tensorDialog(row) {
  const dialog = h("dialog", { "aria-labelledby": "tensor-name", close: () => dialog.remove() },
    h("h2", { id: "tensor-name" }, row.name), h("div", { class: "of-tensor" }),
    h("button", { type: "button", click: () => dialog.close(), autofocus: true }, "Close"));
  const facts = [["dtype", row.dtype], ["shape", row.shape.join(" × ") || "scalar"], ["elements", figure(row.elements)], ["bytes", bytes(row.bytes)]];
  if (row.stored !== null) facts.push(["stored", `${bytes(row.stored)}, ${row.codec}`]);
  if (row.error) facts.push(["damaged", row.error]);
  else for (const key of ["min", "max", "mean", "std", "norm", "rms", "zeros", "subnormals", "nan", "inf"]) facts.push([key, figure(row[key])]);
  const inside = dialog.children[1];
  inside.append(list(facts));
  document.body.append(dialog);
  if (row.histogram) inside.prepend(histogramChart("Histogram of a sample of its elements; what lies beyond the ends counts in the last bars", num(row.histogram[0]), num(row.histogram[1]), row.histogram[2]));
  dialog.showModal();
}

const FIGURES = [
  { label: "root mean square", of: (cell) => num(cell[2]), type: "log" }, { label: "l2 norm", of: (cell) => num(cell[3]), type: "log" },
  { label: "greatest magnitude", of: (cell) => num(cell[4]), type: "log" }, { label: "share of zeros", of: (cell) => num(cell[5]), type: "linear" },
];

function layersView(stacks) {
  const place = h("div");
  let stack = stacks[0], what = FIGURES[0];
  function show() {
    const cells = stack.cells.map((cell) => ({
      y: stack.layers[cell[0]], x: stack.kinds[cell[1]], value: what.of(cell), mark: Number(cell[6]) ? `${counted(cell[6], "element")} NaN or infinite` : "",
    }));
    const left = stack.left[0] + stack.left[1] ? h("p", { class: "note" }, `${figure(stack.left[0])} layers and ${figure(stack.left[1])} kinds more are left out.`) : null;
    const title = `${what.label}, by layer and kind; framed: NaN or infinite elements`;
    place.replaceChildren(...[left,
      heatMap({ title, words: `Heat map of ${stack.layers.length} layers of ${stack.name} and ${stack.kinds.length} kinds: ${what.label}. The table below has the figures.`, columns: stack.kinds, rows: stack.layers, cells, label: what.label, type: what.type }),
      normLines(stack), stack.distributions ? distributions(stack) : null].filter(Boolean));
  }
  const choices = [
    stacks.length > 1 ? choice("Stack", stacks.map((one) => ({ label: `${one.name} (${one.layers.length} layers)`, one })), ({ one }) => { stack = one; show(); }) : null,
    choice("Show", FIGURES, (one) => { what = one; show(); }),
  ];
  show();
  return h("div", {}, h("div", { class: "tools" }, choices), place);
}

// the norm of each layer, all of its kinds together
function normLines(stack) {
  const sums = new Array(stack.layers.length).fill(0);
  for (const cell of stack.cells) sums[cell[0]] += (num(cell[3]) ?? 0) ** 2;
  return lineChart("l2 norm of all of a layer", "layer", sums.map((sum, place) => [place, Math.sqrt(sum)]), { height: 180 });
}

function distributions(stack) {
  const { layers, low: from, high: to } = stack.distributions, [low, high] = [num(from), num(to)];
  const cells = layers.flatMap((shares, row) => (shares ?? []).map((share, place) => {
    const step = (high - low) / shares.length;
    return { from: low + place * step, to: low + (place + 1) * step, layer: stack.layers[row], share };
  }));
  const left = 12 + 6.4 * d3.max(stack.layers, (name) => Math.min(name.length, 34));
  return chart("Distribution of the elements of each layer, of a sample; what lies beyond the ends counts in the last columns",
    `Histograms of ${counted(stack.layers.length, "layer")}, one a row, between ${figure(low)} and ${figure(high)}.`, (width) => Plot.plot({
      ...PLAIN, width, height: 76 + 12 * Math.max(4, stack.layers.length), marginLeft: left, padding: 0,
      x: { label: "value", domain: [low, high] }, y: { label: null, domain: stack.layers },
      color: { scheme: SCHEME, type: "sqrt", label: "share", legend: true, ticks: 4, width: 260, marginLeft: 14, marginRight: 24, tickFormat: "%" },
      marks: [Plot.barX(cells, { x1: "from", x2: "to", y: "layer", fill: "share", inset: 0, tip: false })],
    }));
}

function spectrumView(one) {
  const shape = one.shape.join(" × ");
  if (one.refused) return h("figure", {}, h("figcaption", {}, `${one.name} (${shape})`), h("p", { class: "bad" }, `No spectrum: ${one.refused}.`));
  const title = `${one.name} (${shape}): effective rank ${figure(one.effective)} of ${figure(one.count)}, stable rank ${figure(one.stable)}`;
  return lineChart(title, "singular value", one.values.map(([place, value]) => [place, num(value)]), { log: true });
}
