// A table that is sorted by its headings, filtered and turned over by the keyboard as by the mouse.
//
// columns: {label, value: row => what it is sorted by, cell: row => what is shown, number, kind}

function table({ caption, columns, rows, size = 25, filter = null, sorted = null }) {
  let order = sorted ?? { column: null, down: false }, page = 0, wanted = "";
  const body = h("tbody");
  const said = h("span", { role: "status", class: "note" });
  const turn = (step) => h("button", { type: "button", click: () => { page += step; show(); } }, step < 0 ? "Before" : "Next");
  const back = turn(-1), on = turn(1);
  const headings = columns.map((column, place) => {
    const button = h("button", { type: "button", click: () => sort(place) }, column.label, h("span", { "aria-hidden": "true" }, ""));
    return h("th", { scope: "col", class: column.number ? "number" : null }, button);
  });

  function sort(place) {
    const again = order.column === place;
    order = { column: place, down: again ? !order.down : Boolean(columns[place].number) };
    page = 0;
    show();
  }

  function inOrder(found) {
    if (order.column === null) return found;
    const value = columns[order.column].value, sign = order.down ? -1 : 1;
    const keyed = found.map((row) => [value(row), row]);
    const there = keyed.filter(([key]) => key !== null && key !== undefined && !Number.isNaN(key));
    const lacking = keyed.filter(([key]) => key === null || key === undefined || Number.isNaN(key));
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    there.sort(([a], [b]) => sign * compare(a, b));
    return [...there, ...lacking].map(([, row]) => row);
  }

  function show() {
    const found = inOrder(wanted && filter ? rows.filter((row) => filter(row).toLowerCase().includes(wanted)) : rows);
    page = Math.max(0, Math.min(page, Math.ceil(found.length / size) - 1));
    const shown = found.slice(page * size, (page + 1) * size);
    body.replaceChildren(...shown.map((row) => h("tr", {}, columns.map((column) =>
      h("td", { class: column.number ? "number" : column.kind }, column.cell(row) ?? "")))));
    headings.forEach((heading, place) => {
      const is = order.column === place;
      if (is) heading.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
      heading.firstChild.lastChild.textContent = is ? (order.down ? " ▾" : " ▴") : "";
    });
    back.disabled = page === 0;
    on.disabled = (page + 1) * size >= found.length;
    said.textContent = found.length ? `${figure(page * size + 1)} to ${figure(page * size + shown.length)} of ${figure(found.length)}` : "none";
  }

  const input = h("input", { type: "search", input: () => { wanted = input.value.toLowerCase(); page = 0; show(); } });
  const tools = h("div", { class: "tools" },
    filter && rows.length > 10 ? h("label", {}, "Filter ", input) : null,
    rows.length > size ? [back, on] : null, said);
  const whole = h("div", {}, tools, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}: table` },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, headings)), body)));
  whole.search = (text) => { input.value = text; wanted = text.toLowerCase(); page = 0; show(); };
  show();
  return whole;
}
