// A few words about a value, for a view of the tree.

import type { Tensor } from './api.js';
import { toHex } from './bytes.js';
import { integerText, shown } from './names.js';
import { Complex, Dict, NaNBits, Scalar, Tagged, Tuple, type Value } from './values.js';

const TEXT = 80; // characters of a string
const BYTES = 16;

export function previewOfItems(count: number): string {
  return count === 1 ? '1 item' : `${count.toLocaleString('en')} items`;
}

export function previewOfTensor({ dtype, sides }: Tensor): string {
  return `${dtype} [${sides.join(', ')}]`;
}

/** Of a plain value; control characters are escaped. [SEC-005] */
export function previewOf(value: Value): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'bigint') return cut(integerText(value));
  if (typeof value === 'number') return previewOfFloat(value);
  if (typeof value === 'string') return `"${cut(shown(value))}"`;
  if (value instanceof Uint8Array) return `${value.length} bytes ${toHex(value.subarray(0, BYTES))}${value.length > BYTES ? '…' : ''}`;
  if (value instanceof NaNBits) return 'nan';
  if (value instanceof Complex) return `${previewOfFloat(+value.real)} + ${previewOfFloat(+value.imaginary)}j`;
  if (value instanceof Scalar) return `${value.dtype} ${value.value instanceof Complex ? previewOf(value.value) : String(value.value)}`;
  if (value instanceof Tagged) return previewOf(value.child);
  if (value instanceof Dict) return previewOfItems(value.size);
  if (value instanceof Tuple || Array.isArray(value)) return previewOfItems(value.length);
  return previewOfTensor(value);
}

/** A float shows that it is one. */
function previewOfFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  return Number.isInteger(value) && Math.abs(value) < 1e21 ? `${value}.0` : String(value);
}

function cut(text: string): string {
  return text.length > TEXT ? `${text.slice(0, TEXT)}…` : text;
}
