// XXH3_128bits with seed 0, in its canonical form. What is done once for an input is done with BigInt, modulo 2⁶⁴;
// the stripes of a long input are summed in pairs of 32-bit halves, which is far faster.

const u64 = (value) => BigInt.asUintN(64, value);
const [P32_1, P32_2, P32_3] = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn];
const [P64_1, P64_2, P64_3] = [0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n];
const [P64_4, P64_5] = [0x85ebca77c2b2ae63n, 0x27d4eb2f165667c5n];
const [MIX_1, MIX_2] = [0x165667919e3779f9n, 0x9fb21c651e98df25n];

const SECRET = view(Buffer.from(
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221'
  + 'b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8'
  + 'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb'
  + '170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e', 'hex'));
const STRIPE = 64;
const BLOCK = 16 * STRIPE;

/** The 16 bytes of the digest of a Uint8Array, high half first. */
export function xxh3(bytes) {
  const data = view(bytes);
  const size = bytes.length;
  const [low, high] = size > 240 ? long(data) : size > 16 ? medium(data) : size > 8 ? from9to16(data)
    : size > 3 ? from4to8(data) : size > 0 ? from1to3(data) : [avalanche64(key(64, 72)), avalanche64(key(80, 88))];
  const digest = Buffer.alloc(16);
  digest.writeBigUInt64BE(high, 0);
  digest.writeBigUInt64BE(low, 8);
  return digest;
}

function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const word = (data, at) => data.getBigUint64(at, true);
const key = (one, two) => word(SECRET, one) ^ word(SECRET, two);
const fold = (product) => u64(product) ^ (product >> 64n);

function avalanche(value) {
  value = u64((value ^ (value >> 37n)) * MIX_1);
  return value ^ (value >> 32n);
}

function avalanche64(value) {
  value = u64((value ^ (value >> 33n)) * P64_2);
  value = u64((value ^ (value >> 29n)) * P64_3);
  return value ^ (value >> 32n);
}

function swap(value, bytes) {
  let swapped = 0n;
  for (let i = 0; i < bytes; i++, value >>= 8n) swapped = (swapped << 8n) | (value & 0xffn);
  return swapped;
}

function from1to3(data) {
  const size = data.byteLength;
  const [first, middle, last] = [0, size >> 1, size - 1].map((at) => BigInt(data.getUint8(at)));
  const low = last | (BigInt(size) << 8n) | (first << 16n) | (middle << 24n);
  const swapped = swap(low, 4);
  const high = BigInt.asUintN(32, (swapped << 13n) | (swapped >> 19n));
  const [a, b, c, d] = [0, 4, 8, 12].map((at) => BigInt(SECRET.getUint32(at, true)));
  return [avalanche64(low ^ a ^ b), avalanche64(high ^ c ^ d)];
}

function from4to8(data) {
  const size = data.byteLength;
  const whole = BigInt(data.getUint32(0, true)) | (BigInt(data.getUint32(size - 4, true)) << 32n);
  const product = (whole ^ key(16, 24)) * (P64_1 + BigInt(4 * size));
  let low = u64(product);
  const high = u64((product >> 64n) + 2n * low);
  low ^= high >> 3n;
  low = u64((low ^ (low >> 35n)) * MIX_2);
  return [low ^ (low >> 28n), avalanche(high)];
}

function from9to16(data) {
  const size = data.byteLength;
  const first = word(data, 0);
  let last = word(data, size - 8);
  let product = (first ^ last ^ key(32, 40)) * P64_1;
  const low = u64(product + (BigInt(size - 1) << 54n));
  last ^= key(48, 56);
  const high = u64((product >> 64n) + last + (last & 0xffffffffn) * (P32_2 - 1n));
  product = (low ^ swap(high, 8)) * P64_2;
  return [avalanche(u64(product)), avalanche(u64((product >> 64n) + high * P64_2))];
}

function medium(data) {
  const size = data.byteLength;
  let low = u64(BigInt(size) * P64_1);
  let high = 0n;
  const mix = (one, two, at) => {
    const [a, b, c, d] = [word(data, one), word(data, one + 8), word(data, two), word(data, two + 8)];
    low = u64(low + fold((a ^ word(SECRET, at)) * (b ^ word(SECRET, at + 8)))) ^ u64(c + d);
    high = u64(high + fold((c ^ word(SECRET, at + 16)) * (d ^ word(SECRET, at + 24)))) ^ u64(a + b);
  };
  if (size <= 128) {
    for (let i = (size - 1) >> 5; i >= 0; i--) mix(16 * i, size - 16 * i - 16, 32 * i);
  } else {
    for (let i = 0; i < 4; i++) mix(32 * i, 32 * i + 16, 32 * i);
    [low, high] = [avalanche(low), avalanche(high)];
    for (let i = 4; i < size >> 5; i++) mix(32 * i, 32 * i + 16, 32 * (i - 4) + 3);
    mix(size - 16, size - 32, 103);
  }
  const total = low * P64_1 + high * P64_4 + BigInt(size) * P64_2;
  return [avalanche(u64(low + high)), u64(-avalanche(u64(total)))];
}

function long(data) {
  const size = data.byteLength;
  const sums = new Uint32Array(16); // eight lanes, the low half of each first
  [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1].forEach((value, lane) => {
    sums[2 * lane] = Number(value & 0xffffffffn);
    sums[2 * lane + 1] = Number(value >> 32n);
  });
  for (let start = 0; start < size - 1; start += BLOCK) {
    const stripes = Math.min(16, Math.floor((size - 1 - start) / STRIPE));
    for (let n = 0; n < stripes; n++) accumulate(sums, data, start + n * STRIPE, 8 * n);
    if (start + BLOCK < size) scramble(sums);
  }
  accumulate(sums, data, size - STRIPE, 121);
  const length = BigInt(size);
  return [merge(sums, 11, length * P64_1), merge(sums, 117, ~(length * P64_2))];
}

/** Add a stripe: to each lane the product of its keyed word's halves, and the word of its neighbour. */
function accumulate(sums, data, at, secret) {
  for (let i = 0; i < 16; i += 2) {
    const low = data.getUint32(at + 4 * i, true);
    const high = data.getUint32(at + 4 * i + 4, true);
    const a = (low ^ SECRET.getUint32(secret + 4 * i, true)) >>> 0;
    const b = (high ^ SECRET.getUint32(secret + 4 * i + 4, true)) >>> 0;
    add(sums, i ^ 2, low, high);
    const product = Math.imul(a, b) >>> 0;
    add(sums, i, product, upper(a, b, product));
  }
}

function add(sums, i, low, high) {
  const sum = sums[i] + low;
  sums[i] = sum;
  sums[i + 1] += high + (sum > 0xffffffff ? 1 : 0);
}

/** The upper half of a product of u32, from its lower one: `a * b` as a double is off by less than 2¹² of 2³². */
function upper(a, b, lower) {
  return Math.round((a * b - lower) / 4294967296);
}

function scramble(sums) {
  for (let i = 0; i < 16; i += 2) {
    const low = (sums[i] ^ (sums[i + 1] >>> 15) ^ SECRET.getUint32(128 + 4 * i, true)) >>> 0;
    const high = sums[i + 1] ^ SECRET.getUint32(132 + 4 * i, true);
    const product = Math.imul(low, 0x9e3779b1) >>> 0;
    sums[i] = product;
    sums[i + 1] = upper(low, 0x9e3779b1, product) + Math.imul(high, 0x9e3779b1);
  }
}

function merge(sums, at, start) {
  const lane = (i) => BigInt(sums[2 * i]) | (BigInt(sums[2 * i + 1]) << 32n);
  for (let i = 0; i < 4; i++, at += 16) {
    start += fold((lane(2 * i) ^ word(SECRET, at)) * (lane(2 * i + 1) ^ word(SECRET, at + 8)));
  }
  return avalanche(u64(start));
}
