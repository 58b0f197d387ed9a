// Numbers, sizes, keys and values as text for people. What a file says may be hostile: what is not printable stands as an
// escape, so that no character hides, or turns, what stands beside it.

import { Complex, Dict, NaNBits, Scalar, Tagged, Tuple } from '../../js/src/index.js';
import type { Elements, Key, Value } from './shown.js';

const LONG = 300; // characters of a text that are shown

/** As one line, in which nothing hides. */
export function visible(text: string): string {
  return text.replaceAll(/[\p{C}\p{Z}]/gu, (found) => {
    if (found === ' ') return found;
    const code = found.codePointAt(0) ?? 0;
    return code < 256 ? `\\x${hex(code, 2)}` : code < 65536 ? `\\u${hex(code, 4)}` : `\\u{${hex(code, 1)}}`;
  });
}

const hex = (code: number, width: number): string => code.toString(16).padStart(width, '0');

export function cut(text: string, limit = LONG): string {
  return text.length <= limit ? text : `${text.slice(0, limit)}… (${count(text.length, 'character')})`;
}

/** `1 tensor`, `2 tensors`, `1,234 tensors`. */
export function count(number: number, noun: string): string {
  return `${grouped(number)} ${noun}${number === 1 ? '' : 's'}`;
}

export const grouped = (number: number | bigint): string => number.toLocaleString('en-US');

export function bytes(size: number): string {
  let [value, unit] = [size, 0];
  for (; value >= 1024 && unit < 5; unit++) value /= 1024;
  return unit === 0 ? `${size} B` : `${value.toFixed(value < 10 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}

export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** A key as it is told from others: a string that looks like a number is between quotes. */
export function keyText(key: Key): string {
  if (typeof key === 'bigint') return integer(key);
  return key === '' || /^-?[0-9]+$/.test(key) ? `'${key}'` : visible(cut(key));
}

function integer(value: bigint): string {
  const text = value >= -(1n << 256n) && value <= 1n << 256n ? value.toString() : `0x${value.toString(16)}`; // linear time
  return cut(text);
}

/** A float as few digits as tell it from its neighbours of the same width; NumPy prints the same digits. */
export function float(value: number, bits: 32 | 64): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  let text = String(value);
  if (bits === 32) {
    for (let digits = 1; digits <= 9; digits++) {
      const shorter = value.toPrecision(digits);
      if (Math.fround(Number(shorter)) === value) {
        text = String(Number(shorter));
        break;
      }
    }
  }
  return Number.isInteger(value) && !text.includes('e') ? `${text}.0` : text;
}

/** A number in about five digits, for a table or a legend. */
export function brief(value: number): string {
  if (!Number.isFinite(value)) return float(value, 64);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(3);
  return String(Number(value.toPrecision(5)));
}

const isComplex = (dtype: string): boolean => dtype.includes('complex');
export const perElement = (dtype: string): 1 | 2 => (isComplex(dtype) ? 2 : 1);

/** An element in full. `at` counts elements. */
export function elementText({ dtype, data }: Elements, at: number): string {
  if (dtype === 'bool') return data[at] ? 'True' : 'False';
  if (isComplex(dtype)) {
    const [real, imaginary] = [data[2 * at] as number, data[2 * at + 1] as number];
    const bits = dtype === 'complex128' ? 64 : 32;
    const second = float(imaginary, bits);
    return `(${float(real, bits)}${second.startsWith('-') ? '' : '+'}${second}j)`;
  }
  const value = data[at];
  if (typeof value === 'bigint') return value.toString();
  if (value === undefined) return '';
  return /int/.test(dtype) ? String(value) : float(value, dtype === 'float64' ? 64 : 32);
}

/** The same, short enough for a cell of a table. */
export function elementBrief(elements: Elements, at: number): string {
  const value = elements.data[at];
  if (isComplex(elements.dtype)) {
    const [real, imaginary] = [elements.data[2 * at] as number, elements.data[2 * at + 1] as number];
    return `${brief(real)}${imaginary < 0 || Object.is(imaginary, -0) ? '' : '+'}${brief(imaginary)}j`;
  }
  if (typeof value !== 'number' || /int|bool/.test(elements.dtype)) return elementText(elements, at);
  return brief(value);
}

/** A plain value that is no container, as a literal. */
export function valueText(value: Value | undefined): string {
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'string') return JSON.stringify(cut(value)).replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, visible);
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'bigint') return integer(value);
  if (typeof value === 'number') return float(value, 64);
  if (value instanceof Uint8Array) {
    const shown = Array.from(value.subarray(0, 32), (byte) => hex(byte, 2)).join(' ');
    return `${count(value.length, 'byte')}: ${shown}${value.length > 32 ? ' …' : ''}`;
  }
  if (value instanceof NaNBits) return `nan (bits 0x${value.bits.toString(16)})`;
  if (value instanceof Complex) return `(${float(Number(value.real), 64)}, ${float(Number(value.imaginary), 64)}j)`;
  if (value instanceof Scalar) return `${visible(value.dtype)}(${valueText(value.value)})`;
  if (value instanceof Dict) return count(value.size, 'item');
  if (value instanceof Tuple) return count(value.length, 'item');
  if (Array.isArray(value)) return count(value.length, 'item');
  if (value instanceof Tagged) return `${visible(cut(value.name))}: ${valueText(value.child)}`;
  return `${value.dtype} ${shapeText(value.shape)}`;
}
