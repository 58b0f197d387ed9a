// Plain values as lists that unfold: metadata, records of migrations.

import { Dict, Tagged, Tuple } from '../../js/src/index.js';
import { el } from './dom.js';
import type { Value } from './shown.js';
import { count, grouped, keyText, valueText, visible } from './text.js';

const SHOWN = 200; // items of a container at once

/** A value; what is in it is made when it is unfolded. */
export function valueView(value: Value, name: string, isOpen = false): HTMLElement {
  const items = itemsOf(value);
  const inner = value instanceof Tagged ? value.child : value;
  if (items === null) return el('div', { class: 'plain' }, el('span', { class: 'key' }, name), el('span', { class: 'value' }, valueText(value)));
  const kind = inner instanceof Dict ? '{}' : inner instanceof Tuple ? '()' : '[]';
  const body = el('div', { class: 'inner' });
  const details = el('details', { class: 'container', open: isOpen }, el('summary', {}, el('span', { class: 'key' }, name),
    el('span', { class: 'quiet' }, `${value instanceof Tagged ? `${visible(value.name)} ` : ''}${kind[0]}${grouped(items.length)}${kind[1]}`)), body);
  const unfold = (): void => {
    if (!details.open || body.childElementCount) return;
    const add = (from: number): void => {
      const more = items.slice(from, from + SHOWN).map(([key, item]) => valueView(item, key));
      body.append(...more);
      const rest = items.length - from - SHOWN;
      if (rest <= 0) return;
      const button = el('button', { type: 'button', onclick: () => {
        button.remove();
        add(from + SHOWN);
      } }, `Show more: ${count(rest, 'item')}`);
      body.append(button);
    };
    add(0);
  };
  details.addEventListener('toggle', unfold);
  unfold();
  return details;
}

function itemsOf(value: Value): [string, Value][] | null {
  if (value instanceof Tagged) return itemsOf(value.child);
  if (value instanceof Dict) return Array.from(value.entries(), ([key, item]) => [keyText(key), item]);
  const list = value instanceof Tuple ? value.items : Array.isArray(value) ? value : null;
  return list && list.map((item, i) => [String(i), item]);
}
