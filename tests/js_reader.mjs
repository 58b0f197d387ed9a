// Reads slices with the package of js/ for tests/test_js_reading.py: a request a line, {file, path, selection}, and the
// array that JavaScript gives.

import { createInterface } from 'node:readline';
import { CkptError, open } from '../js/dist/index.js';

for await (const line of createInterface({ input: process.stdin })) {
  const { file, path, selection } = JSON.parse(line);
  const reply = await read(file, path, selection).catch((error) => {
    if (!(error instanceof CkptError)) throw error;
    return { code: error.code, message: error.message };
  });
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}

async function read(file, path, selection) {
  const checkpoint = await open(file);
  try {
    const { dtype, shape, data } = await (await checkpoint.tensor(path)).read(selection);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return { dtype, shape, array: data.constructor.name, data: bytes.toString('base64') };
  } finally {
    await checkpoint.close();
  }
}
