// Small things about bytes.

const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

export function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function isEqual(one: Uint8Array, two: Uint8Array): boolean {
  return one.length === two.length && one.every((byte, i) => byte === two[i]);
}

const DIGITS = new TextEncoder().encode('0123456789abcdef');
const TEXT = new TextDecoder('latin1');

export function toHex(bytes: Uint8Array): string {
  const digits = new Uint8Array(2 * bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    digits[2 * i] = DIGITS[bytes[i]! >> 4]!;
    digits[2 * i + 1] = DIGITS[bytes[i]! & 15]!;
  }
  return TEXT.decode(digits);
}

export function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

const LATIN1 = 8192; // arguments of one call

/** One char for each byte. */
export function latin1(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += LATIN1) text += String.fromCharCode(...bytes.subarray(at, at + LATIN1));
  return text;
}

/** A column of u32 or u64, as numbers: one that is too large to be exact fails a later check of bounds. */
export function column(bytes: Uint8Array, width: 4 | 8): Float64Array {
  const count = Math.floor(bytes.length / width);
  const data = view(bytes);
  const out = new Float64Array(count);
  if (width === 4) for (let i = 0; i < count; i++) out[i] = data.getUint32(4 * i, true);
  else for (let i = 0; i < count; i++) out[i] = data.getUint32(8 * i, true) + data.getUint32(8 * i + 4, true) * 2 ** 32;
  return out;
}

/** Put elements of `size` bytes, which are stored little-endian, into the order of this machine. */
export function inOrderOfMachine(bytes: Uint8Array, size: number): void {
  if (LITTLE || size === 1) return;
  for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
}
