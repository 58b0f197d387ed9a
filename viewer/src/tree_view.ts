// The tree as it is seen: only the rows in sight are elements of the page. One tree of WAI-ARIA: arrows, Home, End, pages,
// letters; the row that is meant is told by aria-activedescendant, as rows come and go.

import { el, fill } from './dom.js';
import type { Branch, Row, Rows } from './rows.js';
import { bytes, shapeText, valueText, visible } from './text.js';
import type { ShownTensor } from './shown.js';

const HEIGHT = 26; // of a row, in pixels
const HIGHEST = 12_000_000; // pixels that browsers still place exactly
const BEYOND = 8; // rows that are there above and below what is seen
const WAIT = 600; // milliseconds between letters that are typed ahead

export interface Marks {
  /** A word on what is known of a tensor: damaged, whole. */
  markOf(tensor: ShownTensor): 'damaged' | 'whole' | null;
}

export class TreeView {
  readonly element: HTMLElement;
  readonly #canvas: HTMLElement;
  readonly #rowsBox: HTMLElement;
  #rows: Rows | null = null;
  #current = 0;
  #first = 0; // of the rows that are elements
  #selected: Branch | null = null;
  #typed = '';
  #typedAt = 0;
  #isDrawing = false;
  #flat: ShownTensor[] | null = null; // what a search has found, in the place of the tree

  constructor(readonly label: string, readonly chosen: (branch: Branch | ShownTensor) => void, readonly marks: Marks) {
    this.#rowsBox = el('div', { class: 'rows', role: 'presentation' });
    this.#canvas = el('div', { class: 'canvas', role: 'presentation' }, this.#rowsBox);
    this.element = el('div', {
      class: 'tree', role: 'tree', tabindex: 0, 'aria-label': label,
      onscroll: () => this.draw(), onkeydown: (event: KeyboardEvent) => this.#key(event),
      onclick: (event: MouseEvent) => this.#click(event), ondblclick: (event: MouseEvent) => this.#unfold(event),
    }, this.#canvas);
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  show(rows: Rows): void {
    [this.#rows, this.#flat, this.#current, this.#selected] = [rows, null, 0, null];
    this.element.scrollTop = 0;
    this.draw();
  }

  /** Show what a search has found; null: the tree again. */
  showFound(found: ShownTensor[] | null): void {
    if (found === this.#flat) return;
    this.#flat = found;
    this.#current = 0;
    this.element.scrollTop = 0;
    if (found === null && this.#selected !== null && this.#rows !== null) this.select(this.#selected);
    this.draw();
  }

  /** Whether what is asked for is still being looked for; told once other rows are there. */
  wait(isWaiting: boolean): void {
    this.#isWaiting = isWaiting;
    if (isWaiting) this.element.setAttribute('aria-busy', 'true');
    else this.draw();
  }

  #isWaiting = false;

  get length(): number {
    return this.#flat?.length ?? this.#rows?.length ?? 0;
  }

  /** Make a node the one that is meant, in sight. */
  select(branch: Branch): void {
    this.#selected = branch;
    if (this.#flat !== null || this.#rows === null) return;
    this.#current = this.#rows.numberOf(branch);
    this.#intoSight();
    this.draw();
  }

  draw(): void {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      this.#draw();
    });
  }

  /** Pixels that one row counts for in the height of all: fewer than its own where there are very many. */
  get #pitch(): number {
    return Math.min(HEIGHT, HIGHEST / Math.max(1, this.length));
  }

  #draw(): void {
    const rows = this.length;
    this.#current = Math.max(0, Math.min(this.#current, rows - 1));
    this.#canvas.style.height = `${Math.max(rows * this.#pitch, rows ? HEIGHT : 0)}px`;
    const top = this.element.scrollTop;
    const seen = Math.ceil(this.element.clientHeight / HEIGHT);
    const last = this.#pitch < HEIGHT ? Math.max(0, rows - seen) : rows;
    const first = Math.max(0, Math.min(last, Math.floor(top / this.#pitch)) - BEYOND);
    const stop = Math.min(rows, first + seen + 2 * BEYOND);
    const offset = this.#pitch < HEIGHT ? top - BEYOND * HEIGHT : first * HEIGHT;
    this.#rowsBox.style.transform = `translateY(${Math.max(0, offset)}px)`;
    this.#first = first;
    fill(this.#rowsBox, ...Array.from({ length: stop - first }, (_, i) => this.#row(first + i)));
    this.element.setAttribute('aria-busy', String(this.#isWaiting));
    if (rows) this.element.setAttribute('aria-activedescendant', this.#id(this.#current));
    else this.element.removeAttribute('aria-activedescendant');
  }

  #id = (number: number): string => `row-${number}`;

  #row(number: number): HTMLElement {
    const common = { id: this.#id(number), role: 'treeitem', 'data-row': number };
    const current = number === this.#current ? ' current' : '';
    if (this.#flat !== null) {
      const tensor = this.#flat[number]!;
      const is = this.#selected?.tensor === tensor;
      return el('div', { ...common, class: `row${current}`, 'aria-level': 1, 'aria-setsize': this.#flat.length, 'aria-posinset': number + 1, 'aria-selected': is },
        el('span', { class: 'name found' }, el('bdi', {}, visible(tensor.label))), this.#about(tensor));
    }
    const row = this.#rows?.at(number);
    if (!row) return el('div', { ...common, class: 'row' }, '…');
    const { branch, parent, position } = row;
    const place = { 'aria-level': parent.level + 1, 'aria-setsize': parent.count, 'aria-posinset': position + 1 };
    if (branch === null) {
      this.#ask(row);
      return el('div', { ...common, ...place, class: `row waiting${current}`, style: indent(parent.level), 'aria-selected': false }, '…');
    }
    const isFolder = branch.isFolder && branch.count > 0;
    return el('div', {
      ...common, ...place, class: `row${current}`, style: indent(parent.level),
      'aria-selected': branch === this.#selected, 'aria-expanded': isFolder ? branch.isOpen : null,
    }, el('span', { class: isFolder ? 'twisty' : 'leaf', 'aria-hidden': 'true' }), el('span', { class: 'name' }, branch.text), this.#facts(branch));
  }

  #facts(branch: Branch): HTMLElement {
    const { entry } = branch;
    if (entry?.tensor) return this.#about(entry.tensor);
    const tags = entry?.tags.length ? `${entry.tags.join(' ')} ` : '';
    if (entry?.kind === 'value') return el('span', { class: 'about value' }, `${tags}${valueText(entry.value)}`);
    const around = entry?.kind === 'list' ? ['[', ']'] : entry?.kind === 'tuple' ? ['(', ')'] : ['{', '}'];
    return el('span', { class: 'about' }, `${tags}${around[0]}${branch.count.toLocaleString('en-US')}${around[1]}`);
  }

  #about(tensor: ShownTensor): HTMLElement {
    const mark = this.marks.markOf(tensor);
    return el('span', { class: 'about' },
      mark && el('span', { class: `mark ${mark}` }, mark === 'damaged' ? 'damaged' : 'whole'),
      el('span', { class: 'dtype' }, tensor.dtype), ` ${shapeText(tensor.shape)}`, el('span', { class: 'size' }, bytes(tensor.nbytes)));
  }

  #ask({ parent, position }: Row): void {
    void this.#rows?.load(parent, position).catch(() => undefined);
  }

  // ---- what people do

  /** The row under the pointer: by its place, as rows may have been made anew since the button went down. */
  #rowOf(event: MouseEvent): number | null {
    const number = this.#first + Math.floor((event.clientY - this.#rowsBox.getBoundingClientRect().top) / HEIGHT);
    return number >= this.#first && number < this.length ? number : null;
  }

  #click(event: MouseEvent): void {
    const number = this.#rowOf(event);
    if (number === null) return;
    this.#current = number;
    const isTwisty = document.elementFromPoint(event.clientX, event.clientY)?.classList.contains('twisty') ?? false;
    const branch = this.#flat === null ? this.#rows?.at(number)?.branch : null;
    if (branch && (isTwisty || !branch.tensor)) void this.#rows?.toggle(branch).catch(() => undefined);
    if (!isTwisty) this.#choose();
    this.draw();
  }

  #unfold(event: MouseEvent): void {
    event.preventDefault();
  }

  #choose(): void {
    if (this.#flat !== null) {
      const tensor = this.#flat[this.#current];
      if (tensor) this.chosen(tensor);
      return;
    }
    const branch = this.#rows?.at(this.#current)?.branch;
    if (!branch) return;
    if (branch.tensor) this.#selected = branch;
    this.chosen(branch);
  }

  #key(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target !== this.element) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / HEIGHT) - 1);
    const moves: Record<string, number> = {
      ArrowDown: this.#current + 1, ArrowUp: this.#current - 1, Home: 0, End: this.length - 1,
      PageDown: this.#current + page, PageUp: this.#current - page,
    };
    const to = moves[event.key];
    if (to !== undefined) this.#goTo(to);
    else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') this.#sideways(event.key === 'ArrowRight');
    else if (event.key === 'Enter' || event.key === ' ') this.#enter();
    else if (event.key.length === 1) this.#typeAhead(event);
    else return;
    event.preventDefault();
  }

  #goTo(number: number): void {
    this.#current = Math.max(0, Math.min(this.length - 1, number));
    this.#intoSight();
    this.draw();
  }

  #intoSight(): void {
    const top = this.#current * this.#pitch;
    const height = this.element.clientHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + HEIGHT > this.element.scrollTop + height) this.element.scrollTop = top + HEIGHT - height;
  }

  #sideways(isRight: boolean): void {
    const row = this.#flat === null ? this.#rows?.at(this.#current) : null;
    const branch = row?.branch;
    if (!branch || !row) return;
    if (isRight && branch.isFolder && !branch.isOpen) void this.#rows?.toggle(branch, true).catch(() => undefined);
    else if (isRight && branch.isOpen && branch.count) this.#goTo(this.#current + 1);
    else if (!isRight && branch.isOpen) void this.#rows?.toggle(branch, false);
    else if (!isRight && row.parent.parent !== null) this.#goTo(this.#rows!.numberOf(row.parent));
  }

  #enter(): void {
    const branch = this.#flat === null ? this.#rows?.at(this.#current)?.branch : null;
    if (branch && branch.isFolder && !branch.tensor) void this.#rows?.toggle(branch).catch(() => undefined);
    this.#choose();
  }

  /** To the next row in sight of the tree whose name begins so. */
  #typeAhead(event: KeyboardEvent): void {
    this.#typed = event.timeStamp - this.#typedAt < WAIT ? this.#typed + event.key : event.key;
    this.#typedAt = event.timeStamp;
    const wanted = this.#typed.toLowerCase();
    const from = this.#typed.length > 1 ? 0 : 1;
    for (let i = from; i < Math.min(this.length, 20_000) + from; i++) {
      const number = (this.#current + i) % this.length;
      const text = this.#flat?.[number]?.label ?? this.#rows?.at(number)?.branch?.text ?? '';
      if (text.toLowerCase().startsWith(wanted)) {
        this.#goTo(number);
        return;
      }
    }
  }
}

const indent = (level: number): string => `--level: ${Math.min(level, 24)}`;
