// A run: its metrics over the steps, what is kept and why, and what saving took.

function runPage(data) {
  const totals = data.totals;
  const rows = data.steps.map((row) => Object.fromEntries(data.columns.map((name, i) => [name, row[i]])));
  const whole = rows.filter((row) => !row.error);
  const last = whole.filter((row) => row.step !== null).at(-1);
  section("facts", "Overview", tiles([
    ["checkpoints", figure(totals.checkpoints)], ["in all", bytes(totals.bytes)],
    totals.onDisk < totals.bytes ? ["on the disk, as they share", bytes(totals.onDisk)] : null,
    last ? ["last step", figure(last.step)] : null, totals.saves ? ["saves in the history", figure(totals.saves)] : null,
    totals.damaged ? ["damaged or not readable", figure(totals.damaged), "bad"] : ["damaged", "none", "good"],
  ]), list([["Path", data.path]]));
  if (data.damage.length) {
    section("damage", "Damage", table({
      caption: "Damaged checkpoints", rows: data.damage, filter: (row) => row[0], columns: ["name", "code", "what is wrong"].map((label, i) => (
        { label, value: (row) => row[i], cell: (row) => row[i], kind: ["name", null, "words"][i] })),
    }));
  }
  if (data.metrics.length) {
    section("metrics", "Metrics", h("p", { class: "note" }, "A ring is a step that is there now."),
      h("div", { class: "grid" }, data.metrics.map(({ name, points, kept }) => {
        const there = new Set(kept.map(Number)), found = points.map(([step, value]) => [num(step), num(value)]);
        return lineChart(name, "step", found, { dots: found.length > 1 ? found.filter(([step, value]) => there.has(step) && Number.isFinite(value)) : [] });
      })));
  }
  const costs = whole.filter((row) => row.step !== null && row.size !== null);
  const shown = [
    costs.length > 1 ? lineChart("Bytes of each checkpoint", "step", costs.map((row) => [num(row.step), row.size]), { unit: bytes, zero: true }) : null,
    data.pace.length > 1 ? lineChart("Seconds a step, between one save and the next", "step", data.pace.map(([step, pace]) => [num(step), num(pace)]), { unit: duration }) : null,
    ...saves(data.saves),
  ].filter(Boolean);
  if (shown.length) {
    section("cost", "Bytes and time", data.saves.length ? null : h("p", { class: "note" }, "How long each save took is known where the manager writes a history, on_commit=LogTo(\"…/history.jsonl\"); here times are those of the files."),
      h("div", { class: "grid" }, shown));
  }
  if (data.pauses.length) {
    section("pauses", "Pauses", h("p", { class: "note" }, "Between these steps far more time went by than usual: the run stood still, or was started anew."), table({
      caption: "Pauses", rows: data.pauses, columns: [
        { label: "after step", number: true, value: (row) => num(row[0]), cell: (row) => figure(row[0]) }, { label: "until step", number: true, value: (row) => num(row[1]), cell: (row) => figure(row[1]) },
        { label: "time", number: true, value: (row) => num(row[2]), cell: (row) => duration(num(row[2])) }, { label: "usual", number: true, value: (row) => num(row[3]), cell: (row) => duration(num(row[3])) },
      ],
    }));
  }
  section("steps", "Checkpoints", data.left ? h("p", { class: "note" }, `${figure(data.left)} later ones are left out of this table.`) : null, stepTable(rows));
}

function saves(found) {
  const known = found.filter((one) => one[2] !== null && num(one[2]) > 0);
  if (known.length < 2) return [];
  return [
    lineChart("Seconds of each save", "step", known.map(([step, , seconds]) => [num(step), num(seconds)]), { unit: duration }),
    lineChart("Bytes a second of each save", "step", known.map(([step, , seconds, size]) => [num(step), num(size) / num(seconds)]), { unit: rate }),
  ];
}

function stepTable(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.metrics)))].slice(0, 12);
  const columns = [
    { label: "name", value: (row) => row.name, cell: (row) => row.name, kind: "name" },
    { label: "step", number: true, value: (row) => num(row.step), cell: (row) => figure(row.step) },
    { label: "written (UTC)", value: (row) => num(row.time), cell: (row) => moment(num(row.time)) },
    { label: "bytes", number: true, value: (row) => num(row.size), cell: (row) => bytes(row.size) },
    ...names.map((name) => ({ label: name, number: true, value: (row) => num(row.metrics[name]), cell: (row) => figure(row.metrics[name]) })),
    { label: "kept because, or what is wrong", kind: "words", value: (row) => row.error ?? row.reasons.join(", "), cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : row.reasons.join(", ")) },
  ];
  return table({ caption: "Checkpoints", rows, columns, filter: (row) => `${row.name} ${row.reasons.join(" ")} ${row.error ?? ""}` });
}
