// Drawings by Observable Plot, drawn anew where the width changes. Each has words that say what it shows.

const SCHEME = "viridis";
const PLAIN = { style: { background: "transparent", color: "inherit", fontSize: "12px" } };

// draw: width => a drawing; words: what it shows, for those who do not see it
function chart(title, words, draw, ...more) {
  const place = h("div", { class: "scroll" });
  let last = 0;
  const show = () => {
    const width = Math.floor(place.clientWidth);
    if (!width || width === last) return;
    last = width;
    const drawing = draw(width);
    const image = drawing.tagName === "svg" ? drawing : drawing.querySelector(":scope > svg:last-of-type") ?? drawing;
    drawing.querySelectorAll("[aria-label], [aria-description]").forEach((part) => ["aria-label", "aria-description"].forEach((name) => part.removeAttribute(name)));
    image.setAttribute("role", "img"); // Plot names groups within, which have no role that may have a name
    image.setAttribute("aria-label", words);
    if (image !== drawing) drawing.querySelectorAll("svg").forEach((other) => other !== image && other.setAttribute("aria-hidden", "true"));
    place.replaceChildren(drawing);
  };
  new ResizeObserver(show).observe(place);
  return h("figure", {}, h("figcaption", {}, title), place, ...more);
}

// where an axis has its figures: for bytes at round numbers of their unit
function ticksOf([low, high], number, unit) {
  if (unit !== bytes && unit !== rate) return d3.ticks(low, high, number);
  const size = 1024 ** Math.floor(Math.log2(Math.max(high, 1)) / 10);
  return d3.ticks(low / size, high / size, number).map((tick) => tick * size);
}

const rate = (value) => `${bytes(value)}/s`;

// the same figures as a table, for those who would rather read them; it is made when it is opened
function asTable(make) {
  const details = h("details", { toggle: () => details.open && details.children.length === 1 && details.append(make()) },
    h("summary", {}, "As a table"));
  return details;
}

// two ends that differ, as a scale needs
const spread = ([low, high], type) => (low === undefined ? [1, 2] : low < high ? [low, high] : type === "log" ? [low / 2, low * 2] : [low, low + (Math.abs(low) || 1)]);

// cells: {x, y, value}; the columns and rows in order
function heatMap({ title, words, columns, rows, cells, label, type = "linear", domain }) {
  const longest = (names) => d3.max(names, (name) => Math.min(name.length, 34)) ?? 0;
  const short = (name) => (name.length > 34 ? `…${name.slice(-33)}` : name);
  const values = cells.map((cell) => cell.value).filter((value) => Number.isFinite(value) && (type !== "log" || value > 0));
  const left = 12 + 6.4 * longest(rows), bottom = 14 + 4.6 * longest(columns);
  const [low, high] = domain ?? spread(d3.extent(values), type);
  const draw = (width) => Plot.plot({
    ...PLAIN, width: Math.max(width, left + 20 + 22 * columns.length), height: 46 + bottom + 15 * Math.max(rows.length, 3),
    marginLeft: left, marginBottom: bottom, marginTop: 8, padding: 0.04,
    x: { domain: columns, tickRotate: -42, label: null, tickFormat: short }, y: { domain: rows, label: null, tickFormat: short },
    color: { type, scheme: SCHEME, label, legend: values.length > 0, ticks: type === "log" ? [low, Math.sqrt(low * high), high] : d3.ticks(low, high, 4), width: 260, marginLeft: 14, marginRight: 24, domain: [low, high], tickFormat: (value) => figure(Number(value.toPrecision(2))), clamp: true },
    marks: [
      Plot.cell(cells.filter((cell) => Number.isFinite(cell.value) && (type !== "log" || cell.value > 0)), { x: "x", y: "y", fill: "value" }),
      Plot.cell(cells.filter((cell) => cell.mark), { x: "x", y: "y", fill: "none", stroke: "var(--bad)", strokeWidth: 2, inset: 1 }),
      Plot.tip(cells, Plot.pointer({ x: "x", y: "y", title: (cell) => `${cell.y}\n${cell.x}\n${label}: ${figure(cell.value)}${cell.mark ? `\n${cell.mark}` : ""}`, fill: "var(--raised)", stroke: "var(--line)" })),
    ],
  });
  return chart(title, words, draw, asTable(() => table({
    caption: title, rows: cells, filter: (cell) => `${cell.y} ${cell.x}`,
    columns: [
      { label: "layer", value: (cell) => cell.y, cell: (cell) => cell.y },
      { label: "kind", value: (cell) => cell.x, cell: (cell) => cell.x },
      { label, number: true, value: (cell) => cell.value, cell: (cell) => figure(cell.value) },
    ],
  })));
}

// shares of elements between two ends
function histogramChart(title, low, high, shares, height = 170) {
  const step = (high - low) / shares.length;
  const bars = shares.map((share, place) => ({ from: low + place * step, to: low + (place + 1) * step, share }));
  const peak = bars[d3.maxIndex(shares)];
  return chart(title, `Histogram from ${figure(low)} to ${figure(high)}; most elements, ${percent(peak.share)}, lie between ${figure(peak.from)} and ${figure(peak.to)}.`, (width) => Plot.plot({
    ...PLAIN, width, height, marginLeft: 52, x: { label: "value" }, y: { label: "share", tickFormat: "%", grid: true },
    marks: [
      Plot.rectY(bars, { x1: "from", x2: "to", y: "share", fill: "var(--accent)", inset: 0.5 }),
      Plot.ruleY([0]),
    ],
  }));
}

// places on an axis of steps: none between two steps
function wholeTicks(points, width) {
  const [first, last] = d3.extent(points, ([x]) => x), most = Math.max(3, Math.floor(width / 90));
  return Number.isInteger(first) && last - first < most ? d3.range(first, last + 1) : most;
}

// points: [x, y] in order; gaps where y is no number
function lineChart(title, label, points, { dots = [], log = false, height = 200, unit = figure, zero = false } = {}) {
  const finite = points.filter(([, y]) => Number.isFinite(y));
  const ends = d3.extent(finite, ([, y]) => y), reach = zero ? [Math.min(0, ends[0]), ends[1]] : ends, isLog = log && ends[0] > 0;
  const words = finite.length
    ? `${title} over ${label}: from ${unit(finite[0][1])} to ${unit(finite[finite.length - 1][1])}, least ${unit(ends[0])}, greatest ${unit(ends[1])}, ${counted(points.length, "point")}.`
    : `${title}: no numbers.`;
  return chart(title, words, (width) => Plot.plot({
    ...PLAIN, width, height, marginLeft: 78, x: { label, tickFormat: figure, ticks: wholeTicks(points, width) },
    y: isLog ? { label: null, grid: true, type: "log", ticks: 4, tickFormat: unit } : { label: null, grid: true, ticks: ticksOf(spread(reach), 5, unit), tickFormat: unit, domain: finite.length ? spread(reach) : undefined },
    marks: [
      Plot.line(points, { x: "0", y: (point) => (Number.isFinite(point[1]) ? point[1] : NaN), stroke: "var(--accent)", strokeWidth: 1.6 }),
      finite.length < 60 ? Plot.dot(finite, { x: "0", y: "1", r: 2, fill: "var(--accent)" }) : null,
      Plot.dot(dots, { x: "0", y: "1", r: 4, stroke: "var(--warm)", strokeWidth: 2, fill: "none" }),
      Plot.tip(finite, Plot.pointerX({ x: "0", y: "1", title: (point) => `${label} ${figure(point[0])}\n${unit(point[1])}`, fill: "var(--raised)", stroke: "var(--line)" })),
    ],
  }));
}

// how many characters all names begin with, up to the last of a part
function shared(names) {
  const [first, last] = d3.extent(names);
  let length = 0;
  while (first && length < first.length && first[length] === last[length]) length += 1;
  return first ? first.slice(0, length).search(/[^./]*$/) : 0;
}

// a name that has room for so many characters: without what all begin with, and then without its end
function within(name, common, most) {
  if (name.length <= most) return name;
  const rest = name.slice(common);
  return rest.length < most ? `…${rest}` : `…${rest.slice(0, most - 2)}…`;
}

// rows: {name, value}, the greatest first
function barChart(title, rows, unit = figure) {
  const names = rows.map((row) => row.name), longest = d3.max(names, (name) => name.length) ?? 0;
  const common = shared(names);
  return chart(title, `${title}: ${rows.slice(0, 5).map((row) => `${row.name} ${unit(row.value)}`).join(", ")}.`, (width) => {
    const most = Math.min(longest, 44, Math.floor((0.5 * width - 16) / 6.8)); // characters of a name that have room
    return Plot.plot({
      ...PLAIN, width, height: 40 + 20 * rows.length, marginLeft: 16 + 6.8 * most, marginRight: 70,
      x: { label: null, tickFormat: unit, grid: true, ticks: ticksOf([0, d3.max(rows, (row) => row.value) || 1], Math.max(2, Math.floor(width / 150)), unit) },
      y: { label: null, domain: names, tickFormat: (name) => within(name, common, most) },
      marks: [
        Plot.barX(rows, { y: "name", x: "value", fill: "var(--accent)" }),
        Plot.text(rows, { y: "name", x: "value", text: (row) => unit(row.value), textAnchor: "start", dx: 4, fill: "currentColor" }),
        Plot.ruleX([0]),
      ],
    });
  });
}
