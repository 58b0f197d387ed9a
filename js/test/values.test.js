import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elementsOf } from '../dist/dtypes.js';
import { Dict, Tuple } from '../dist/values.js';

test('a dict tells 0 from "0", and takes numbers for ints', () => {
  const dict = new Dict([['0', 'text'], [0n, 'int'], [2n ** 70n, 'long']]);
  assert.deepEqual([dict.get('0'), dict.get(0n), dict.get(0), dict.get(2n ** 70n), dict.get(1)], ['text', 'int', 'int', 'long', undefined]);
  assert.deepEqual([...dict.keys()], ['0', 0n, 2n ** 70n]);
  assert.deepEqual([...dict], [...dict.entries()]);
  assert.deepEqual([dict.size, dict.has(0), dict.has('1')], [3, true, false]);
  assert.deepEqual([...new Tuple([1n, null])], [1n, null]);
});

test('keys that were chosen to collide cost no more than others [LIM-007]', () => {
  const start = process.cpuUsage();
  const dict = new Dict(Array.from({ length: 50_000 }, (_, i) => [BigInt(i) << 64n, null])); // engines hash the low 64 bits
  assert.equal(dict.size, 50_000);
  assert.ok(process.cpuUsage(start).user < 4e6); // microseconds
});

const of = (dtype, codes) => [...elementsOf(Uint8Array.from(codes), dtype, 1, 1)];

test('small floats are the numbers that their codes stand for', () => {
  assert.deepEqual(of('float8_e4m3fn', [0x00, 0x01, 0x08, 0x38, 0x7e, 0x7f, 0xff, 0x80]), [0, 2 ** -9, 2 ** -6, 1, 448, NaN, NaN, -0]);
  assert.deepEqual(of('float8_e5m2', [0x3c, 0x7b, 0x7c, 0xfc, 0x7d]), [1, 57344, Infinity, -Infinity, NaN]);
  assert.deepEqual(of('float8_e4m3fnuz', [0x80, 0x7f, 0x40]), [NaN, 240, 1]);
  assert.deepEqual(of('float8_e5m3fnu', [0, 1, 8, 120, 254, 255]), [0, 2 ** -17, 2 ** -14, 1, 114688, NaN]);
  assert.deepEqual(of('float8_e8m0fnu', [0, 127, 254, 255]), [2 ** -127, 1, 2 ** 127, NaN]);
  assert.deepEqual(of('float6_e3m2fn', [0x1f, 0x20, 0x01]), [28, -0, 0.0625]);
  assert.deepEqual([...elementsOf(Uint8Array.of(0x7f, 0x09), 'float4_e2m1fn', 2, 3)], [-6, 6, -0.5]);
});
