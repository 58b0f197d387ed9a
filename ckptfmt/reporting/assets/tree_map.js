// The tree by bytes: buttons, of which one opens a part of it. Arrow keys lead from one to the next, Escape leads out.

const BOXES = 400; // at most
const LEAST = 1800; // square pixels of a box, on average, for whose sake a part is opened

function treeMap(root, dtypes, open) {
  const fill = (dtype) => `var(--fill-${Math.min(dtypes.indexOf(dtype), 7)})`;
  let trail = [root];
  const crumbs = h("div", { class: "crumbs" });
  const map = h("div", { class: "map", role: "group", "aria-label": "Tree map: parts of the tree by their bytes" });
  const said = h("p", { class: "note", role: "status" });

  const words = (node) => `${node.name || "everything"}: ${bytes(node.bytes)}, ${counted(node.tensors, "tensor")}, ${node.dtype}`;

  function enter(node) {
    trail.push(node);
    show(true);
  }

  function leave(steps) {
    trail = trail.slice(0, Math.max(1, trail.length - steps));
    show(true);
  }

  function button(box, node, isGroup) {
    const [wide, tall] = [box.x1 - box.x0, box.y1 - box.y0];
    const made = h("button", {
      type: "button", tabindex: "-1", title: words(node), "aria-label": `${words(node)}${node.parts ? ", opens it" : ""}`,
      class: isGroup ? "group" : null, click: () => (node.parts ? enter(node) : node.tensor && open(node.tensor)),
    }, wide > 34 && tall > 15 ? `${node.name}${wide > 130 ? ` · ${bytes(node.bytes)}` : ""}` : "");
    const style = made.style;
    [style.left, style.top, style.width, style.height] = [box.x0, box.y0, wide, tall].map((side) => `${side}px`);
    if (!isGroup) style.background = fill(node.dtype);
    return made;
  }

  function show(takesFocus = false) {
    const node = trail[trail.length - 1], width = map.clientWidth, height = map.clientHeight;
    if (!width) return;
    const tree = d3.hierarchy(opened(node, width * height)).sum((one) => (one.children ? 0 : Math.max(one.part.bytes, 1))).sort((a, b) => b.value - a.value);
    d3.treemap().size([width, height]).paddingInner(1).paddingOuter(1).paddingTop((one) => (one.depth > 0 && one.children ? 17 : 1)).round(true)(tree);
    const boxes = tree.descendants().filter((one) => one.depth > 0 && one.x1 - one.x0 > 2 && one.y1 - one.y0 > 2);
    boxes.sort((a, b) => a.depth - b.depth);
    const inOrder = tree.leaves().length === 1 && !node.parts ? [tree] : boxes;
    map.replaceChildren(...inOrder.map((one) => button(one, one.data.part, Boolean(one.children))));
    const first = map.querySelector("button");
    if (first) first.tabIndex = 0;
    if (takesFocus && first) first.focus();
    crumbs.replaceChildren(...trail.map((one, place) =>
      h("button", { type: "button", disabled: place === trail.length - 1, click: () => leave(trail.length - 1 - place) }, one.name || "everything")));
    said.textContent = `Shown: ${words(node)}.`;
  }

  map.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave(1);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = [...map.querySelectorAll("button")], at = all.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = all[(at + step + all.length) % all.length];
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  new ResizeObserver(() => show()).observe(map);
  return h("div", {}, crumbs, map, said, legend(dtypes));
}

// a part of the tree, opened as far as boxes stay large enough to be seen: the largest first
function opened(node, area) {
  const root = { part: node }, waiting = [root];
  let boxes = 1;
  while (waiting.length && boxes < BOXES) {
    const one = waiting.splice(d3.maxIndex(waiting, (other) => other.part.bytes), 1)[0];
    const parts = one.part.parts ?? [];
    if (!parts.length || (one !== root && (area * one.part.bytes) / (node.bytes || 1) < LEAST * parts.length)) continue;
    one.children = parts.map((part) => ({ part }));
    boxes += parts.length;
    waiting.push(...one.children);
  }
  return root;
}

const legend = (dtypes) => h("ul", { class: "legend" }, dtypes.slice(0, 8).map((name, place) => {
  const patch = h("i");
  patch.style.background = `var(--fill-${place})`;
  return h("li", {}, patch, place === 7 && dtypes.length > 8 ? "others" : name);
}));
