// The page: what is open, the tree beside it, and tabs of what is looked at.

import { shares } from './charts.js';
import { Checked } from './checked.js';
import { Comparison } from './comparison.js';
import { el, facts, fill, pause } from './dom.js';
import { isDamage } from './look.js';
import { TensorPanel } from './panel.js';
import { Branch, Rows } from './rows.js';
import { RunView } from './run_view.js';
import type { Index } from './served.js';
import type { Fault, Shown, ShownTensor } from './shown.js';
import { Tabs } from './tabs.js';
import { bytes, count, grouped, keyText, visible } from './text.js';
import { TreeView } from './tree_view.js';
import { valueView } from './value_view.js';

const WAIT = 120; // milliseconds from a key to the search

export class App {
  readonly element: HTMLElement;
  readonly #bar: HTMLElement;
  readonly #notice = el('div', { class: 'notice', role: 'alert' });
  readonly #lacking = el('div', { class: 'lacking', role: 'status' });
  readonly #search: HTMLInputElement;
  readonly #found = el('p', { class: 'quiet found-count', role: 'status' });
  readonly #tree: TreeView;
  readonly #tabs: Tabs;
  readonly #comparison: Comparison;
  readonly #run: RunView;
  #shown: Shown | null = null;
  #checked = new Checked(() => undefined);
  #rows: Rows | null = null;
  #panel: TensorPanel | null = null;
  #tensor: ShownTensor | null = null;
  #names: ShownTensor[] | null = null;
  #stop = new AbortController();
  #again: (() => void) | null = null;
  #open = new Set<Shown>();

  constructor(readonly openOther: () => void, readonly chooseBase: () => void) {
    this.#bar = el('div', { class: 'title' });
    this.#search = el('input', { type: 'search', placeholder: 'Search tensors', 'aria-label': 'Search tensors', spellcheck: 'false', autocomplete: 'off' });
    let timer = 0;
    this.#search.addEventListener('input', () => {
      clearTimeout(timer);
      this.#tree.wait(true);
      const mine: number = setTimeout(() => void this.#find().finally(() => timer === mine && this.#tree.wait(false)), WAIT);
      timer = mine;
    });
    this.#search.addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown') this.#tree.element.focus();
    });
    this.#tree = new TreeView('Tree of the checkpoint', (chosen) => this.#choose(chosen), { markOf: (tensor) => this.#checked.markOf(tensor) });
    this.#comparison = new Comparison((seen) => this.#letGo(seen.shown));
    this.#run = new RunView();
    this.#tabs = new Tabs([['tensor', 'Tensor'], ['overview', 'Overview'], ['metadata', 'Metadata'], ['damage', 'Damage'], ['run', 'Run']]);
    fill(this.#tabs.panel('run'), this.#run.element);
    this.element = el('div', { class: 'app' },
      el('header', { class: 'bar' }, this.#bar, this.#run.switcher,
        el('button', { type: 'button', onclick: () => this.openOther() }, 'Open …')),
      this.#notice, this.#lacking,
      el('div', { class: 'columns' },
        el('nav', { class: 'side-bar', 'aria-label': 'Tensors and values' }, el('div', { class: 'search' }, this.#search, this.#found), this.#tree.element),
        el('main', { class: 'content' }, this.#tabs.element)));
  }

  /** Show the checkpoints of a folder, too. */
  showRun(index: Index, go: (at: number) => void): void {
    this.#run.show(index, go);
    this.#tabs.setHidden('run', !index.folder);
    if (index.folder) this.#tabs.choose('run');
  }

  get hasRun(): boolean {
    return this.#run.isFolder;
  }

  /** Say which checkpoint of the folder is looked at. */
  mark(at: number): void {
    this.#run.mark(at);
  }

  /** What to do where somebody asks to load it again. */
  set again(again: () => void) {
    this.#again = again;
  }

  show(shown: Shown): void {
    const path = this.#tensor?.label;
    const view = this.#panel?.view ?? undefined;
    const former = this.#shown;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#panel?.close();
    [this.#shown, this.#tensor, this.#names] = [shown, null, null];
    this.#open.add(shown);
    if (former) this.#letGo(former);
    document.title = `${visible(shown.name)} – ckptfmt`;
    fill(this.#notice);
    fill(this.#lacking, ...(shown.patch?.isOpen === false ? [
      el('p', {}, 'This is a patch. Tensors that are not whole in it are made of its base, the checkpoint whose manifest has the sha256 ', el('code', {}, shown.patch.base), ': drop that on this page.'),
      el('button', { type: 'button', onclick: () => this.chooseBase() }, 'Choose the base')] : []));
    this.#search.value = '';
    fill(this.#found);
    this.#checked = new Checked(() => this.#marked());
    this.#rows = new Rows(shown, () => this.#tree.draw(), (error) => this.failed(error));
    this.#tree.show(this.#rows);
    this.#panel = new TensorPanel(shown, this.#checked, {
      failed: (error) => this.failed(error),
      damaged: (faults) => this.#checked.wrong(faults),
      pinned: (seen) => this.#comparison.pin(seen),
      looked: (seen) => this.#comparison.show(seen),
    });
    fill(this.#tabs.panel('tensor'), this.#comparison.element, el('p', { class: 'hint' }, 'Choose a tensor in the tree. Arrow keys move, Enter opens; ', el('kbd', {}, '/'), ' searches.'));
    this.#title(shown);
    this.#metadata(shown);
    this.#damage();
    this.#overview(shown);
    this.#tabs.setHidden('run', !this.#run.isFolder);
    if (this.#tabs.chosen === 'run' || !former) this.#tabs.choose('overview');
    void this.#first(path, view);
  }

  /** The tensor that was looked at before in another checkpoint, if there is one of that path; else the first few rows unfold. */
  async #first(path: string | undefined, view: TensorPanel['view'] | undefined): Promise<void> {
    const rows = this.#rows;
    if (!rows) return;
    await rows.load(rows.root, 0).catch(() => undefined);
    if (path !== undefined) {
      const tensor = await this.#tensorAt(path);
      if (tensor && rows === this.#rows) this.#look(tensor, view && view.length === tensor.shape.length
        && view.every((axis, i) => axis.stop <= tensor.shape[i]! && axis.index < tensor.shape[i]!) ? view : undefined);
      return;
    }
    for (let one: Branch = rows.root, i = 0; one.count === 1 && i < 8; i++) {
      const child = one.children[0];
      if (!child?.isFolder) break;
      await rows.toggle(child, true).catch(() => undefined);
      one = child;
    }
  }

  async #tensorAt(label: string): Promise<ShownTensor | undefined> {
    try {
      return (await this.#allTensors())?.find((tensor) => tensor.label === label);
    } catch {
      return undefined;
    }
  }

  #title(shown: Shown): void {
    fill(this.#bar, el('h1', {}, visible(shown.name)), el('span', { class: 'chip' }, shown.format),
      shown.patch && el('span', { class: 'chip' }, 'patch'), shown.size === undefined ? null : el('span', { class: 'chip' }, bytes(shown.size)), el('span', { class: 'chip' }, count(shown.tensorCount, 'tensor')));
  }

  #marked(): void {
    this.#tree.draw();
    this.#panel?.showStatus();
    this.#damage();
  }

  // ---- the tabs

  #overview(shown: Shown): void {
    const rows: [string, string][] = [...shown.facts.map(([name, text]): [string, string] => [name, visible(text)])];
    if (shown.schema) rows.push(['Schema', `${visible(shown.schema.id)}, version ${visible(shown.schema.version)}`]);
    const dtypes = el('div', {}, el('p', { class: 'quiet' }, 'Counting …'));
    const panel = this.#tabs.panel('overview');
    fill(panel, el('section', { class: 'card' }, el('h2', {}, 'The checkpoint'), facts(rows)), el('section', { class: 'card' }, el('h2', {}, 'Bytes by dtype'), dtypes));
    const sum = async (): Promise<void> => {
      const tensors = await this.#allTensors();
      if (!tensors || shown !== this.#shown) return;
      const by = new Map<string, { name: string; bytes: number; tensors: number }>();
      for (const { dtype, nbytes } of tensors) {
        const there = by.get(dtype) ?? { name: dtype, bytes: 0, tensors: 0 };
        there.bytes += nbytes;
        there.tensors++;
        by.set(dtype, there);
      }
      const sorted = [...by.values()].sort((one, two) => two.bytes - one.bytes);
      const total = sorted.reduce((all, row) => all + row.bytes, 0);
      fill(dtypes, el('p', {}, `${count(tensors.length, 'tensor')}, ${bytes(total)}`), tensors.length > 0 && shares(sorted));
    };
    if (shown.tensorCount <= 20_000) void sum().catch((error) => this.failed(error));
    else {
      fill(dtypes, el('button', { type: 'button', onclick: () => {
        fill(dtypes, el('p', { class: 'quiet' }, 'Counting …'));
        void sum().catch((error) => this.failed(error));
      } }, `Count ${count(shown.tensorCount, 'tensor')}`));
    }
  }

  #metadata(shown: Shown): void {
    const nothing = (text: string): HTMLElement => el('p', { class: 'quiet' }, text);
    fill(this.#tabs.panel('metadata'),
      el('section', { class: 'card' }, el('h2', {}, 'Metadata'), shown.metadata === null ? nothing('There are none.') : valueView(shown.metadata, 'metadata', true)),
      shown.format === 'ckptfmt' && el('section', { class: 'card' }, el('h2', {}, 'Migrations, repairs, upgrades'),
        shown.provenance === null ? nothing('None: this is as it was saved.') : valueView(shown.provenance, 'records, the oldest first', true)));
  }

  #damage(): void {
    const { faults, isVerified } = this.#checked;
    const shown = this.#shown;
    this.#tabs.note('damage', faults.length ? grouped(faults.length) : '');
    if (!shown) return;
    if (!shown.verify) {
      fill(this.#tabs.panel('damage'), el('section', { class: 'card' }, el('h2', {}, 'Damage'),
        el('p', {}, `Not verified: ${shown.format} has no digests, so nobody can tell what has changed in it.`)));
      return;
    }
    const progress = el('progress', { max: 100, value: 0, 'aria-label': 'Verification', hidden: true });
    const button = el('button', { type: 'button', class: 'primary', onclick: () => void this.#verify(shown, button, progress) }, 'Verify every byte');
    const words = faults.length ? `${count(faults.length, 'fault')}${isVerified ? ': all there are' : ' found so far'}.`
      : isVerified ? `Whole: every byte is as its digest says.${shown.patch ? shown.patch.isOpen ? ' So is the base.' : ' That is what is stored in this patch: nobody has looked at its base.' : ''}` : 'Nothing damaged was met so far. What is shown is checked as it is read.';
    fill(this.#tabs.panel('damage'), el('section', { class: 'card' }, el('h2', {}, 'Damage'),
      el('p', { class: faults.length ? 'problem' : isVerified ? 'good' : null, role: 'status' }, words), el('div', { class: 'toolbar' }, button, progress),
      faults.length > 0 && this.#faultTable(faults)));
  }

  #faultTable(faults: readonly Fault[]): HTMLElement {
    const MOST = 500;
    return el('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'What is damaged' }, el('table', { class: 'faults' },
      el('thead', {}, el('tr', {}, ...['code', 'tensor', 'chunk', 'block', 'offset', 'what'].map((name) => el('th', { scope: 'col' }, name)))),
      el('tbody', {}, ...faults.slice(0, MOST).map(({ code, message, place }) => el('tr', {}, el('th', { scope: 'row' }, code),
        el('td', {}, place.tensor === undefined ? '–' : place.base !== undefined ? `${visible(place.tensor)}, in the base` : el('button', { type: 'button', class: 'link', onclick: () => void this.#goTo(place.tensor!) }, visible(place.tensor))),
        ...[place.chunk, place.block, place.offset].map((number) => el('td', { class: 'number' }, number === undefined ? '–' : grouped(number))),
        el('td', {}, visible(message)))))),
    faults.length > MOST && el('p', {}, `and ${grouped(faults.length - MOST)} more`));
  }

  async #goTo(label: string): Promise<void> {
    const tensor = await this.#tensorAt(label);
    if (!tensor) return;
    this.#look(tensor);
    this.#tabs.choose('tensor');
  }

  async #verify(shown: Shown, button: HTMLButtonElement, progress: HTMLProgressElement): Promise<void> {
    const stop = new AbortController();
    const cancel = el('button', { type: 'button', onclick: () => stop.abort() }, 'Stop');
    button.after(cancel);
    button.disabled = true;
    progress.hidden = false;
    const ended = AbortSignal.any([stop.signal, this.#stop.signal]);
    try {
      const faults = await shown.verify!({ signal: ended, onProgress: ({ done, total }) => (progress.value = (100 * done) / Math.max(1, total)) });
      if (shown === this.#shown) this.#checked.verified(faults);
    } catch (error) {
      if (!ended.aborted) this.failed(error);
    } finally {
      cancel.remove();
      progress.hidden = true;
      button.disabled = false;
    }
  }

  // ---- looking

  #choose(chosen: Branch | ShownTensor): void {
    if (!(chosen instanceof Branch)) this.#look(chosen);
    else if (chosen.tensor) this.#look(chosen.tensor);
    else if (chosen.entry?.kind === 'value') {
      this.#tensor = null;
      fill(this.#tabs.panel('tensor'), this.#comparison.element, el('h2', { class: 'path' }, chosen.entry.path.map(keyText).join('/')),
        el('section', { class: 'card' }, valueView(chosen.entry.value ?? null, 'value')));
      this.#tabs.choose('tensor');
    }
  }

  #look(tensor: ShownTensor, view?: NonNullable<TensorPanel['view']>): void {
    this.#tensor = tensor;
    if (!this.#panel) return;
    if (!this.#panel.element.isConnected) fill(this.#tabs.panel('tensor'), this.#comparison.element, this.#panel.element);
    this.#tabs.choose('tensor');
    void this.#panel.show(tensor, view);
  }

  async #allTensors(): Promise<ShownTensor[] | null> {
    const shown = this.#shown;
    if (this.#names || !shown) return this.#names;
    const names: ShownTensor[] = [];
    const { signal } = this.#stop;
    for await (const tensor of shown.tensors({ signal })) {
      if (names.push(tensor) % 2048 === 0) await pause();
      if (signal.aborted) return null;
    }
    if (shown === this.#shown) this.#names = names;
    return names;
  }

  /** Tensors whose paths have every word that was typed. */
  async #find(): Promise<void> {
    const wordsNow = (): string[] => this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (wordsNow().length === 0) {
      fill(this.#found);
      this.#tree.showFound(null);
      return;
    }
    fill(this.#found, 'Searching …');
    try {
      const tensors = await this.#allTensors();
      const words = wordsNow(); // as more may have been typed meanwhile
      if (!tensors || words.length === 0) return;
      const found = tensors.filter(({ label, dtype }) => {
        const text = label.toLowerCase();
        return words.every((word) => text.includes(word) || dtype === word);
      });
      fill(this.#found, `${grouped(found.length)} of ${count(tensors.length, 'tensor')}`);
      this.#tree.showFound(found);
    } catch (error) {
      this.failed(error);
    }
  }

  /** Say something above all. */
  say(text: string, ...more: (HTMLElement | null)[]): void {
    fill(this.#notice, el('p', {}, visible(text)), ...more, el('button', { type: 'button', onclick: () => fill(this.#notice) }, 'Close'));
  }

  focusSearch(): void {
    this.#search.focus();
    this.#search.select();
  }

  /** Tell what went wrong: damage where it is, anything else above all. */
  failed(error: unknown): void {
    if (error instanceof DOMException && error.name === 'AbortError') return;
    if (isDamage(error)) {
      this.#checked.wrong([error]);
      return;
    }
    const isChanged = isChange(error);
    const text = isChanged ? 'The file has changed since it was opened. What is shown was read before that; nothing more of it can be.' : (error as Error).message;
    this.say(text, isChanged && this.#again ? el('button', { type: 'button', onclick: () => this.#again?.() }, 'Load it again') : null);
  }

  /** Close what is neither shown nor pinned any more. */
  #letGo(shown: Shown): void {
    if (shown === this.#shown || shown === this.#comparison?.pinned?.shown || !this.#open.delete(shown)) return;
    void shown.close().catch(() => undefined);
  }
}

/** Whether an error says that what lies there is not what was opened. */
export function isChange(error: unknown): boolean {
  if (error instanceof DOMException) return error.name === 'NotReadableError' || error.name === 'NotFoundError';
  if (!(error instanceof Error)) return false;
  return ('code' in error && error.code === 'changed') || /changed since|was replaced|was changed/.test(error.message) || isChange(error.cause);
}
