// Buffers of Blosc, and streams in them, put together by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unblosc } from '../dist/blosc.js';
import { Damaged } from '../dist/damaged.js';
import { unblosclz, unlz4, unsnappy } from '../dist/lz.js';

const bytes = (...parts) => Uint8Array.from(parts.flatMap((part) => (typeof part === 'string' ? [...Buffer.from(part)] : [part].flat())));
const text = (found) => Buffer.from(found).toString();
const none = () => { throw new Error('another decoder'); };

const FAR = `${'abc'.repeat(3000)}`; // of which the last bytes are taken from 8,998 back
const fill = (count) => Array.from({ length: Math.ceil(count / 32) }, (_, i) => {
  const length = Math.min(32, count - 32 * i);
  return [length - 1, ...Buffer.from(FAR.slice(32 * i, 32 * i + length))];
}).flat();

const STREAMS = [
  [unlz4, 'abcabcabcab', bytes(0x34, 'abc', 3, 0, 0)], // it ends with no literals
  [unlz4, `${'x'.repeat(300)}yz`, bytes(0x1f, 'x', 1, 0, 255, 25, 0x20, 'yz')],
  [unlz4, 'q'.repeat(20), bytes(0xf0, 5, 'q'.repeat(20))],
  [unsnappy, 'abcabcabcab', bytes(11, (3 - 1) << 2, 'abc', 1 | ((8 - 4) << 2), 3)],
  [unsnappy, 'wikiwiki', bytes(8, (4 - 1) << 2, 'wiki', 2 | ((4 - 1) << 2), 4, 0)],
  [unsnappy, 'wikiwiki', bytes(8, (4 - 1) << 2, 'wiki', 3 | ((4 - 1) << 2), 4, 0, 0, 0)],
  [unsnappy, 'w'.repeat(200), bytes(0xc8, 1, 60 << 2, 199, 'w'.repeat(200))],
  [unblosclz, 'abcabcab', bytes(2, 'abc', 3 << 5, 2)],
  [unblosclz, `${'ab'.repeat(200)}`, bytes(1, 'ab', 7 << 5, 255, 134, 1)],
  [unblosclz, `${FAR}${FAR.slice(2, 8)}`, bytes(fill(9000), (4 << 5) | 31, 255, (8998 - 8192) >> 8, (8998 - 8192) & 255)],
];

test('streams decode to what they stand for', () => {
  for (const [decode, wanted, stream] of STREAMS) {
    assert.equal(text(decode(stream, wanted.length)), wanted, decode.name);
    assert.throws(() => decode(stream, wanted.length + 1), Damaged);
    assert.throws(() => decode(stream, wanted.length - 1), Damaged);
  }
});

test('streams that end early, or reach too far, are refused', () => {
  for (const [decode, wanted, stream] of STREAMS) {
    for (let length = 0; length < stream.length; length += stream.length > 100 ? 97 : 1) {
      assert.throws(() => decode(stream.subarray(0, length), wanted.length), Damaged, `${decode.name} ${length}`);
    }
  }
  assert.throws(() => unlz4(bytes(0x10, 'a', 2, 0), 5), Damaged);
  assert.throws(() => unlz4(bytes(0x10, 'a', 0, 0), 5), Damaged);
  assert.throws(() => unsnappy(bytes(5, 0, 'a', 1, 2), 5), Damaged);
  assert.throws(() => unsnappy(bytes(255, 255, 255, 255, 255, 255, 1, 0), 5), Damaged);
});

/** A buffer of one block. */
function buffer(flags, elementSize, size, ...streams) {
  const body = streams.flatMap((stream) => [...bytes32(stream.length), ...stream]);
  return bytes(2, 1, flags, elementSize, bytes32(size), bytes32(size), bytes32(20 + body.length), bytes32(20), body);
}
const bytes32 = (number) => [...new Uint8Array(Uint32Array.of(number).buffer)];

test('a buffer with a stream of Snappy', () => {
  assert.equal(text(unblosc(buffer(2 << 5, 1, 8, STREAMS[4][2]), 8, none)), 'wikiwiki');
});

test('bytes and bits that are shuffled', () => {
  const raw = (flags, elementSize, data) => unblosc(buffer(flags | 16 | (4 << 5), elementSize, data.length, data), data.length, none);
  assert.deepEqual([...raw(1, 2, bytes(0, 1, 2, 10, 11, 12, 99))], [0, 10, 1, 11, 2, 12, 99]);
  const elements = Uint16Array.from({ length: 16 }, (_, i) => 1 << i); // bit i of element i alone
  const rows = Array.from({ length: 16 }, (_, bit) => [bit < 8 ? 1 << bit : 0, bit < 8 ? 0 : 1 << (bit - 8)]).flat();
  assert.deepEqual(raw(4, 2, bytes(rows)), new Uint8Array(elements.buffer));
  assert.deepEqual([...raw(4, 2, bytes(1, 2, 3, 4))], [1, 2, 3, 4], 'no multiple of eight elements');
});

test('buffers that say what is not so', () => {
  const good = buffer(2 << 5, 1, 8, STREAMS[4][2]);
  for (let at = 0; at < good.length; at++) {
    for (const value of [0, 1, 127, 255]) {
      const changed = good.slice();
      changed[at] = value;
      try {
        assert.equal(unblosc(changed, 8, none).length, 8);
      } catch (error) {
        assert.ok(error instanceof Damaged || error.message === 'another decoder', `byte ${at} as ${value}: ${error}`);
      }
    }
  }
});
