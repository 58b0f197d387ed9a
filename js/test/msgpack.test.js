import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Encoder, Float, decode, lookUp } from '../dist/msgpack.js';
import { NaNBits } from '../dist/values.js';

const bytes = (...items) => Uint8Array.from(items.flat());
const refused = (code, items, words) => assert.throws(() => decode(bytes(items)),
  (error) => error.code === code && error.message.includes(words));

test('integers are numbers while that is exact', () => {
  assert.equal(decode(bytes(0x7f)), 127);
  assert.equal(decode(bytes(0xe0)), -32);
  assert.equal(decode(bytes(0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0)), 2 ** 53);
  assert.equal(decode(bytes(0xcf, 0, 0x20, 0, 0, 0, 0, 0, 1)), 2n ** 53n + 1n);
  assert.equal(decode(bytes(0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0)), -(2n ** 63n));
  assert.equal(decode(bytes(0xd2, 0xff, 0xff, 0xff, 0xfe)), -2);
});

test('floats are told from integers, and keep the bits of a NaN', () => {
  assert.deepEqual(decode(bytes(0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0)), new Float(1));
  assert.ok(Object.is(decode(bytes(0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0)).value, -0));
  assert.ok(Number.isNaN(decode(bytes(0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0)).value));
  assert.deepEqual(decode(bytes(0xcb, 0xff, 0xf0, 0, 0, 0, 0, 0, 1)).value, new NaNBits(0xfff0000000000001n));
  assert.deepEqual(decode(bytes(0xca, 0x7f, 0x80, 0, 1)).value, new NaNBits(0x7ff8000020000000n)); // [MAN-010]
});

test('what is not well formed, or not strict, is refused', () => {
  refused('bad-manifest', [0x92, 1], 'ends too early');
  refused('bad-manifest', [0xdd, 0xff, 0xff, 0xff, 0xff], 'ends too early');
  refused('bad-manifest', [0xc6, 0xff, 0xff, 0xff, 0xff], 'ends too early');
  refused('bad-manifest', [1, 1], 'after the msgpack');
  refused('bad-manifest', [0xc1], '0xc1');
  refused('bad-manifest', [0xa2, 0xc3, 0x28], 'UTF-8');
  refused('bad-manifest', [0x81, 1, 2], 'no string');
  refused('bad-manifest', [0x82, 0xa1, 97, 1, 0xa1, 97, 2], 'repeats the key a');
  refused('bad-manifest', [0xd4, 1, 2], 'extension');
  refused('bad-manifest', Array(1025).fill(0x91).concat(0x90), 'nested too deeply');
});

test('values may not take far more memory than their bytes [LIM-007]', () => {
  const many = new Uint8Array(5 + 4_000_000).fill(0x90); // empty arrays
  many.set([0xdd, 0x00, 0x3d, 0x09, 0x00]);
  assert.throws(() => decode(many), (error) => error.code === 'limit-exceeded');
});

test('strings are decoded whatever stands around them', () => {
  assert.deepEqual(decode(bytes(0x93, 0xa2, 0xc3, 0xa9, 0xa1, 97, 0xc4, 1, 0xff)), ['é', 'a', Uint8Array.of(255)]);
});

test('the encoder uses the shortest forms', () => {
  const out = new Encoder();
  const numbers = [0, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2n ** 63n - 1n];
  out.array(numbers.length);
  for (const number of numbers) out.uint(number);
  const tags = [0x00, 0x7f, 0xcc, 0xcc, 0xcd, 0xcd, 0xce, 0xce, 0xcf, 0xcf];
  const sizes = [1, 1, 2, 2, 3, 3, 5, 5, 9, 9];
  let at = 1;
  tags.forEach((tag, i) => {
    assert.equal(out.bytes()[at], tag);
    at += sizes[i];
  });
  assert.deepEqual(decode(out.bytes()), numbers);
});

for (const size of [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]) {
  test(`an array and a string of ${size} come back`, () => {
    const out = new Encoder();
    out.array(size);
    for (let i = 0; i < size; i++) out.uint(1);
    assert.deepEqual(decode(out.bytes()), Array(size).fill(1));
    const text = new Encoder();
    text.str('x'.repeat(size));
    assert.equal(decode(text.bytes()), 'x'.repeat(size));
  });
}

test('a key is looked up whatever stands around it [MAN-006]', () => {
  const around = [1, 0xd4, 1, 2, 0xc0, 0x92, 0xca, 1, 2, 3, 4, 0x81, 1, 0xc4, 1, 9, 0xa1, 97, 0xd3, 1, 2, 3, 4, 5, 6, 7, 8, 0xa1, 97, 0xc7, 2, 5, 1, 1];
  assert.deepEqual(lookUp(bytes(0x85, around, 0xa1, 98, 0x91, 0xa1, 120), 'b'), ['x']);
  assert.equal(lookUp(bytes(0x81, 0xa1, 97, 1), 'b'), undefined);
  assert.equal(lookUp(bytes(0x91, 1), 'b'), undefined);
  assert.throws(() => lookUp(bytes(0x82, 0xa1, 98, 1), 'b'), (error) => error.code === 'bad-manifest');
  assert.throws(() => lookUp(bytes(0x81, 0xc1, 1), 'b'), (error) => error.code === 'bad-manifest');
});
