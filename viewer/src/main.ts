// Where the page begins: what is dropped, chosen or named is opened, and shown.

import { App } from './app.js';
import { el, fill } from './dom.js';
import { type Given, dropped } from './given.js';
import { type Named, namedOf, openNamed, servedOf } from './opening.js';
import { type Index, type Listed, servedIndex } from './served.js';
import type { Shown } from './shown.js';
import { Start } from './start.js';

class Page {
  readonly #start = new Start((given) => void this.#open(given), () => this.#see(this.#app.element));
  readonly #app = new App(() => this.#ask(), () => this.#start.choose());
  #isOpen = false;
  #turn = 0;
  #said = ''; // to be told with what is opened
  #lacking: Named | null = null; // a patch that is shown, and whose base is not open
  readonly #given: Named[] = []; // what was opened: the base of a patch may be among it

  begin(): void {
    this.#see(this.#start.element);
    const isFile = (event: DragEvent): boolean => !!event.dataTransfer && [...event.dataTransfer.types].some((type) => type === 'Files' || type === 'text/uri-list');
    document.addEventListener('dragover', (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      document.body.classList.add('dragging');
    });
    document.addEventListener('dragleave', (event) => event.relatedTarget === null && document.body.classList.remove('dragging'));
    document.addEventListener('drop', (event) => void this.#drop(event));
    document.addEventListener('keydown', (event) => {
      const isText = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
      if (event.key !== '/' || isText || event.ctrlKey || event.metaKey || !this.#app.element.isConnected) return;
      event.preventDefault();
      this.#app.focusSearch();
    });
    void this.#first();
  }

  async #drop(event: DragEvent): Promise<void> {
    if (!event.dataTransfer) return;
    event.preventDefault();
    document.body.classList.remove('dragging');
    try {
      const given = await dropped(event.dataTransfer);
      if (given) await this.#open(given);
    } catch (error) {
      this.#start.failed(error);
      if (this.#isOpen) this.#app.failed(error);
    }
  }

  /** What the server of this page has, or the URL that stands behind a `#` in its own. */
  async #first(): Promise<void> {
    try {
      const index = await servedIndex();
      if (index) {
        await this.#serve(index);
        return;
      }
    } catch (error) {
      this.#start.failed(error);
      return;
    }
    const url = new URLSearchParams(location.hash.slice(1)).get('url');
    if (url && /^https?:/.test(url)) await this.#open({ url });
  }

  async #serve(index: Index): Promise<void> {
    const go = (at: number): void => {
      const listed = index.checkpoints[at];
      if (listed?.at) void this.#show(async () => [servedOf(listed), await openNamed(servedOf(listed), near(at))], () => go(at), at);
    };
    const near = (at: number): Named[] => [...index.checkpoints.slice(0, at).reverse(), ...index.checkpoints.slice(at + 1)]
      .filter((other) => other.at !== null && other.error === null).map(servedOf).concat(this.#given);
    this.#app.showRun(index, go);
    const last = (good: (one: Listed) => boolean): number => index.checkpoints.findLastIndex((one) => one.at !== null && good(one));
    const choices = [last(({ step, error }) => step !== null && error === null), last(({ error }) => error === null), last(() => true)];
    const some = choices.find((at) => at >= 0) ?? -1;
    if (some >= 0) go(some);
    else this.#start.failed(new Error(`There is no checkpoint that this page reads in ${index.path}. ${index.checkpoints[0]?.advice ?? ''}`));
  }

  async #open(given: Given): Promise<void> {
    const where = 'url' in given ? given.url : given.files[0]!.path;
    await this.#show(() => this.#opened(namedOf(given)), 'url' in given ? () => void this.#open(given) : null, null, where);
  }

  /** A patch whose base is there now, if there is one: that which is shown, or one of those that were given. */
  async #opened(named: Named[]): Promise<[Named, Shown]> {
    const lacking = this.#lacking;
    const bases = [...named, ...this.#given];
    if (lacking || named.length > 1) {
      for (const one of lacking ? [lacking, ...named] : named) {
        const shown = await openNamed(one, bases).catch(() => null);
        if (shown?.patch?.isOpen) return [one, shown];
        await shown?.close();
      }
    }
    const [only] = named;
    if (only === undefined || named.length > 1) throw new Error('These files are no checkpoint in a directory, and no patch with its base. Drop one file at a time.');
    const shown = await openNamed(only, bases);
    if (lacking) this.#said = `${only.name} is not the base of ${lacking.name}, and is shown by itself.`;
    return [only, shown];
  }

  async #show(open: () => Promise<[Named, Shown]>, again: (() => void) | null, at: number | null, where = ''): Promise<void> {
    const turn = ++this.#turn;
    this.#start.busy(where ? `Opening ${where} …` : 'Opening …');
    this.#said = '';
    try {
      const [named, shown] = await open();
      if (turn !== this.#turn) {
        await shown.close();
        return;
      }
      this.#app.again = again ?? (() => this.#ask());
      this.#app.show(shown);
      if (this.#said) this.#app.say(this.#said);
      this.#lacking = shown.patch?.isOpen === false ? named : null;
      if (at === null) this.#given.push({ ...named, kind: shown.size === undefined ? 'directory' : 'file' });
      if (at !== null) this.#app.mark(at);
      this.#isOpen = true;
      this.#see(this.#app.element);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#start.failed(error);
      if (this.#isOpen) this.#app.failed(error);
      if (at !== null) {
        this.#app.mark(at);
        if (this.#app.hasRun) this.#see(this.#app.element);
        this.#app.failed(error);
      }
    }
  }

  #ask(): void {
    this.#start.canGoBack(this.#isOpen);
    this.#see(this.#start.element);
  }

  #see(element: HTMLElement): void {
    const root = document.getElementById('root');
    if (root) fill(root, element);
    else document.body.append(el('div', { id: 'root' }, element));
  }
}

new Page().begin();
