// Two checkpoints: what differs, where, and how far.

function comparisonPage(data) {
  const totals = data.totals;
  const side = (place) => h("div", {}, h("h3", {}, place ? "After" : "Before"), list([["Path", data.paths[place]], ["Tensors take", bytes(totals.bytes[place])], ...data.facts[place]]));
  section("facts", "Overview",
    h("p", { class: data.equal ? "good" : null }, data.equal ? "The two are equal." : "The two differ."),
    tiles([["changed", figure(totals.changed)], ["added", figure(totals.added)], ["removed", figure(totals.removed)], ["renamed", figure(totals.renamed)], ["equal values", figure(totals.same)]]),
    h("div", { class: "grid" }, side(0), side(1)));
  if (data.movers.length) {
    section("movers", "Biggest movers", h("p", { class: "note" }, "The relative change of a tensor is the l2 norm of its differences over the l2 norm of what it was."),
      barChart("Tensors with the greatest relative change", data.movers.filter(([, value]) => Number.isFinite(num(value))).map(([name, value]) => ({ name, value: num(value) }))));
  }
  if (data.stacks.length) section("layers", "Layers", changeView(data.stacks));
  const rows = data.changed.map((row) => Object.fromEntries(data.columns.map((name, i) => [name, row[i]])));
  if (rows.length) section("changed", "Changed", changedTable(rows));
  const tensors = (title, found) => found.length && section(title.toLowerCase(), title, table({
    caption: title, rows: found, filter: (row) => row[0], columns: [
      { label: "name", value: (row) => row[0], cell: (row) => row[0], kind: "name" },
      { label: "dtype", value: (row) => row[1], cell: (row) => row[1] },
      { label: "shape", value: (row) => (row[2] ?? []).reduce((a, b) => a * b, 1), cell: (row) => (row[2] ?? []).join(" × ") },
      { label: "bytes", number: true, value: (row) => num(row[3]), cell: (row) => bytes(row[3]) },
    ],
  }));
  tensors("Added", data.added);
  tensors("Removed", data.removed);
  if (data.renamed.length) {
    section("renamed", "Renamed", h("p", { class: "note" }, "The same bits under another name."), table({
      caption: "Renamed", rows: data.renamed, filter: (row) => row.join(" "), columns: [
        { label: "before", value: (row) => row[0], cell: (row) => row[0], kind: "name" }, { label: "after", value: (row) => row[1], cell: (row) => row[1], kind: "name" },
      ],
    }));
  }
  if (data.metadata.length) {
    section("metadata", "Metadata", table({
      caption: "Metadata that differ", rows: data.metadata, columns: ["entry", "kind", "before", "after"].map((label, i) => (
        { label, value: (row) => row[i], cell: (row) => row[i], kind: i === 1 ? null : "words" })),
    }));
  }
}

function changedTable(rows) {
  const numeric = (label, key) => ({ label, number: true, value: (row) => num(row[key]), cell: (row) => figure(row[key]) });
  const text = (label, key, kind) => ({ label, kind, value: (row) => row[key], cell: (row) => row[key] });
  return table({
    caption: "Changed", rows, filter: (row) => `${row.name} ${row.kind}`, columns: [
      text("name", "name", "name"), text("what", "kind"), numeric("relative change", "change"),
      numeric("different", "different"), numeric("elements", "elements"), numeric("NaN", "nan"),
      numeric("max difference", "max_difference"), numeric("max relative", "max_relative"), text("before", "before", "words"), text("after", "after", "words"),
    ],
  });
}

function changeView(stacks) {
  const place = h("div");
  const show = (stack) => {
    const cells = stack.cells.map(([row, column, value, mark]) => ({ y: stack.layers[row], x: stack.kinds[column], value: num(value), mark }));
    const found = cells.map((cell) => cell.value).filter((value) => Number.isFinite(value));
    const most = d3.max(found) || 1;
    place.replaceChildren(heatMap({
      title: `Relative change by layer and kind; framed: shape, dtype or type changed`, label: "relative change", type: "sqrt", domain: [0, most],
      words: `Heat map of ${stack.layers.length} layers of ${stack.name} and ${stack.kinds.length} kinds: relative change from 0 to ${figure(most)}. The table below has the figures.`,
      columns: stack.kinds, rows: stack.layers, cells,
    }));
  };
  show(stacks[0]);
  const choose = stacks.length > 1 ? choice("Stack", stacks.map((one) => ({ label: `${one.name} (${one.layers.length} layers)`, one })), ({ one }) => show(one)) : null;
  return h("div", {}, choose ? h("div", { class: "tools" }, choose) : null, place);
}
