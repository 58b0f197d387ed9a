// The first thing that is seen: a place to drop a file on, or to give a URL to.

import { el, fill } from './dom.js';
import type { Given } from './given.js';
import { visible } from './text.js';

export class Start {
  readonly element: HTMLElement;
  readonly #problem = el('div', { class: 'problem', role: 'alert' });
  readonly #busy = el('p', { class: 'quiet', role: 'status' });
  readonly #back = el('button', { type: 'button', class: 'quiet-button', hidden: true, onclick: () => this.left() }, 'Back');

  /** Let a file be chosen. */
  readonly choose: () => void;

  constructor(readonly given: (given: Given) => void, readonly left: () => void) {
    const files = el('input', { type: 'file', id: 'files', class: 'unseen', tabindex: -1, multiple: true, 'aria-hidden': 'true', onchange: () => this.#take(files) });
    const folder = el('input', { type: 'file', id: 'folder', class: 'unseen', tabindex: -1, webkitdirectory: true, 'aria-hidden': 'true', onchange: () => this.#take(folder) });
    const url = el('input', { type: 'url', id: 'url', placeholder: 'https://…/model.ckpt', spellcheck: 'false', autocomplete: 'off', required: true });
    this.choose = () => files.click();
    this.element = el('main', { class: 'start' },
      el('h1', {}, 'Look at a checkpoint'),
      el('p', { class: 'lead' }, 'Checkpoints of ckptfmt, safetensors and GGUF: the tree, numbers and heat maps of any slice, and what is damaged.'),
      el('div', { class: 'drop' },
        el('p', {}, 'Drop a file here, or a folder that is one checkpoint'),
        el('div', { class: 'toolbar' },
          el('button', { type: 'button', class: 'primary', onclick: () => this.choose() }, 'Choose a file'),
          el('button', { type: 'button', onclick: () => folder.click() }, 'Choose a folder')), files, folder),
      el('form', { class: 'url', onsubmit: (event: Event) => {
        event.preventDefault();
        this.given({ url: url.value.trim() });
      } }, el('label', { for: 'url' }, 'or give its URL'), url, el('button', { type: 'submit' }, 'Open')),
      this.#busy, this.#problem,
      el('p', { class: 'quiet' }, 'Nothing is uploaded: files are read in this page, and only the parts that are looked at. The server of a URL must answer requests for ranges, and allow pages of other sites (CORS).'),
      this.#back);
  }

  #take(input: HTMLInputElement): void {
    const files = [...(input.files ?? [])];
    input.value = '';
    if (files.length) this.given({ files: files.map((file) => ({ path: file.webkitRelativePath || file.name, file })) });
  }

  busy(text: string): void {
    fill(this.#problem);
    fill(this.#busy, text);
  }

  failed(error: unknown): void {
    fill(this.#busy);
    fill(this.#problem, el('p', {}, visible(error instanceof Error ? error.message : String(error))));
  }

  canGoBack(can: boolean): void {
    this.#back.hidden = !can;
    fill(this.#busy);
    fill(this.#problem);
  }
}
