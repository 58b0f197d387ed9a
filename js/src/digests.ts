// Digest algorithms [BLK-002], of hash-wasm. All of this package waits once for them to be compiled.

import { createBLAKE3, createCRC32, createSHA256, createXXHash128, createXXHash64 } from 'hash-wasm';
import { CkptError } from './errors.js';

export const DIGEST_SIZE = { 'xxh3-128': 16, sha256: 32, blake3: 32 } as const;

export type Algorithm = keyof typeof DIGEST_SIZE;

export const isAlgorithm = (name: string): name is Algorithm => Object.hasOwn(DIGEST_SIZE, name);

const MAKE = {
  'xxh3-128': () => createXXHash128(0, 0), sha256: () => createSHA256(), blake3: () => createBLAKE3(),
  crc32: () => createCRC32(), xxh64: () => createXXHash64(0, 0),
};

type Name = keyof typeof MAKE;

/** A digest of bytes that come piece by piece. */
export interface Hasher {
  update(bytes: Uint8Array): unknown;
  digest(form: 'binary'): Uint8Array;
}

export async function newHasher(name: Name): Promise<Hasher> {
  return (await compiled(MAKE[name])).init();
}

/** A function that digests bytes at one go. */
export type Digest = (bytes: Uint8Array) => Uint8Array;

const made = new Map<Name, Promise<Digest>>();

export function digestOf(name: Name): Promise<Digest> {
  let digest = made.get(name);
  if (digest === undefined) {
    digest = compiled(MAKE[name]).then((hasher) => (bytes) => hasher.init().update(bytes).digest('binary'));
    made.set(name, digest);
  }
  return digest;
}

async function compiled<T>(make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    const advice = "a page's Content-Security-Policy has to allow 'wasm-unsafe-eval'";
    throw new CkptError('io', `WebAssembly cannot be compiled here: ${advice}`, {}, { cause: error });
  }
}
