// Small pictures of numbers: a histogram, a line over steps, shares of a whole. Each says in words what it shows.

import { el, svg } from './dom.js';
import type { Statistics } from './numbers.js';
import { brief, bytes, grouped } from './text.js';

const [WIDE, HIGH] = [480, 120];

export function histogram({ histogram: counts, least, greatest }: Statistics): HTMLElement {
  const most = counts.reduce((one, other) => Math.max(one, other), 0);
  if (most === 0) return el('p', { class: 'quiet' }, 'There is no finite number to draw.');
  const width = WIDE / counts.length;
  const bars = Array.from(counts, (number, i) => {
    const height = number === 0 ? 0 : Math.max(1.5, (number / most) * HIGH);
    const low = least + ((greatest - least) * i) / counts.length;
    return number > 0 && svg('rect', { x: i * width + 0.5, y: HIGH - height, width: width - 1, height },
      svg('title', {}, `${brief(low)} to ${brief(low + (greatest - least) / counts.length)}: ${grouped(number)}`));
  });
  const peak = counts.indexOf(most);
  const middle = least + ((greatest - least) * (peak + 0.5)) / counts.length;
  const said = `Histogram from ${brief(least)} to ${brief(greatest)}; most elements are near ${brief(middle)}.`;
  return el('figure', { class: 'chart' },
    svg('svg', { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': said }, ...bars) as unknown as Node,
    el('div', { class: 'ends' }, el('span', {}, brief(least)), el('span', {}, brief(least / 2 + greatest / 2)), el('span', {}, brief(greatest))));
}

/** A metric over steps. */
export function line(name: string, points: readonly (readonly [number, number])[]): HTMLElement {
  const finite = points.filter(([, value]) => Number.isFinite(value));
  if (finite.length < 2) return el('p', { class: 'quiet' }, 'Two steps or more make a line.');
  const [xs, ys] = [finite.map(([x]) => x), finite.map(([, y]) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (step: number): number => 4 + ((step - left) / (right - left || 1)) * (WIDE - 8);
  const y = (value: number): number => HIGH - 6 - ((value - low) / (high - low || 1)) * (HIGH - 12);
  const path = finite.map(([step, value], i) => `${i ? 'L' : 'M'}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join('');
  const said = `${name} from step ${left} to ${right}: first ${brief(ys[0]!)}, last ${brief(ys.at(-1)!)}, between ${brief(low)} and ${brief(high)}.`;
  return el('figure', { class: 'chart' },
    svg('svg', { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': said },
      svg('path', { d: path, class: 'line' }),
      ...finite.map(([step, value]) => svg('path', { d: `M${x(step).toFixed(1)} ${y(value).toFixed(1)}h0`, class: 'point' }, svg('title', {}, `${step}: ${brief(value)}`)))) as unknown as Node,
    el('div', { class: 'ends' }, el('span', {}, `step ${grouped(left)}`), el('span', {}, `${brief(low)} – ${brief(high)}`), el('span', {}, `step ${grouped(right)}`)));
}

/** Shares of bytes by name, the largest first. */
export function shares(rows: readonly { name: string; bytes: number; tensors: number }[]): HTMLElement {
  const most = Math.max(1, ...rows.map((row) => row.bytes));
  return el('table', { class: 'shares' },
    el('thead', {}, el('tr', {}, ...['dtype', 'tensors', 'bytes', 'share'].map((name) => el('th', { scope: 'col' }, name)))),
    el('tbody', {}, ...rows.map((row) => el('tr', {},
      el('th', { scope: 'row' }, row.name), el('td', {}, grouped(row.tensors)), el('td', {}, bytes(row.bytes)),
      el('td', { class: 'share' }, el('i', { style: `width: ${(100 * row.bytes) / most}%` }))))));
}
