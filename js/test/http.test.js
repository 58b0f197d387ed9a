// URLs, with servers as they are: a real one that behaves in each of the ways.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { open } from '../dist/index.js';

const VECTORS = new URL('../../conformance/vectors/', import.meta.url);
const FILE = 'golden-1-1-0-paged/input.ckpt'; // 146,950 bytes: more than the first request brings
let server;
let place;
let behave; // (request, response, answer): what the server does with a request

before(async () => {
  server = createServer((request, response) => behave(request, response, () => answer(request, response)));
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  place = `http://127.0.0.1:${server.address().port}/`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

const plainly = (request, response, usual) => usual();

/** As a good server: ranges, with an end, a beginning or both, ETag, 404, 416. */
async function answer(request, response, { etag = '"one"', change = (bytes) => bytes, ranges = true, headers = {} } = {}) {
  const data = await readFile(new URL(request.url.slice(1).split('?')[0], VECTORS)).then(change, () => undefined);
  if (data === undefined) return response.writeHead(404).end();
  const asked = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
  if (asked === null || !ranges) {
    response.writeHead(200, { 'content-length': data.length, etag, ...headers });
    return response.end(request.method === 'HEAD' ? undefined : data);
  }
  const start = asked[1] ? Number(asked[1]) : Math.max(0, data.length - Number(asked[2]));
  const end = asked[1] && asked[2] ? Math.min(data.length, Number(asked[2]) + 1) : data.length;
  if (start >= end) return response.writeHead(416, { 'content-range': `bytes */${data.length}` }).end();
  response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/${data.length}`, etag, ...headers });
  return response.end(data.subarray(start, end));
}

async function opened(path, options = {}) {
  const requests = [];
  const checkpoint = await open(place + path, { ...options, onRequest: (one) => requests.push(one) });
  return { checkpoint, requests };
}

async function readAll(checkpoint) {
  const out = [];
  for await (const tensor of checkpoint.tensors()) out.push((await tensor.readRaw()).data);
  return out;
}

const fails = (promise, code, words) => assert.rejects(promise, (error) => {
  assert.equal(error.code, code, String(error));
  assert.match(error.message, words);
  return true;
});

const local = async (path) => open(await readFile(new URL(path, VECTORS)));

test('a file is opened with one request, and a tensor takes few more', async () => {
  behave = plainly;
  const { checkpoint, requests } = await opened(FILE);
  assert.deepEqual(requests.map(({ range, status }) => [range, status]), [['bytes=-131072', 206]]);
  const wanted = await local(FILE);
  const one = await (await checkpoint.tensor(0)).readRaw();
  assert.deepEqual(one.data, (await (await wanted.tensor(0)).readRaw()).data);
  assert.ok(requests.length <= 5);
  assert.deepEqual(await readAll(checkpoint), await readAll(wanted));
  assert.deepEqual(await checkpoint.verify(), []);
});

test('directories are found with and without a slash, and read', async () => {
  behave = plainly;
  for (const path of ['packed-one-part/input.ckpt', 'packed-one-part/input.ckpt/', 'codec-zstd-loose/input.ckpt']) {
    const { checkpoint } = await opened(path);
    const tensors = await readAll(checkpoint);
    assert.ok(tensors.length > 0 && tensors.every((bytes) => bytes.length > 0));
    assert.deepEqual(await checkpoint.verify(), []);
  }
  await fails(opened('nothing'), 'not-found', /nothing is at/);
  await fails(opened('nothing/'), 'not-a-checkpoint', /no COMMIT/);
  await fails(opened('x.ckptfmt-tmp'), 'temporary', /unfinished save/);
});

test('a directory where an object should be is none, whatever list of it the server sends', async () => {
  const list = Buffer.alloc(500_000, 'a list');
  behave = (request, response, usual) => {
    if (/\/b\/c\/0$/.test(request.url)) return response.writeHead(301, { location: `${request.url}/` }).end();
    return request.url.endsWith('/b/c/0/') ? response.writeHead(200).end(list) : usual();
  };
  const { checkpoint } = await opened('object-directory/input.ckpt');
  await fails((await checkpoint.tensor('b')).readRaw(), 'missing-object', /a directory/);
  assert.deepEqual((await checkpoint.verify()).map(({ code }) => code), ['missing-object']);
});

test('a query stays with every object, and is not told in messages', async () => {
  const seen = [];
  behave = (request, response, usual) => {
    seen.push(request.url);
    return usual();
  };
  const { checkpoint } = await opened('packed-one-part/input.ckpt?key=secret');
  await readAll(checkpoint);
  assert.ok(seen.every((url) => url.endsWith('?key=secret')));
  await assert.rejects(opened('nothing?key=secret'), (error) => !error.message.includes('secret'));
});

test('headers are sent, and a server that wants others says so', async () => {
  behave = (request, response, usual) => (request.headers.authorization === 'Bearer x' ? usual() : response.writeHead(401).end());
  await fails(opened(FILE), 'permission', /401/);
  const { checkpoint } = await opened(FILE, { headers: { authorization: 'Bearer x' } });
  assert.equal(checkpoint.layout, 'file');
});

test('a server without ranges: little is read as a whole, much is refused', async () => {
  let sent = 0;
  behave = (request, response) => {
    sent += 1;
    return answer(request, response, { ranges: false });
  };
  const { checkpoint } = await opened(FILE);
  assert.deepEqual(await readAll(checkpoint), await readAll(await local(FILE)));
  assert.equal(sent, 1);
  await fails(opened(FILE, { maxWholeBytes: 1000 }), 'io', /no range requests.*146950.*maxWholeBytes/);
});

test('a server that would send without end is not listened to', { timeout: 60_000 }, async () => {
  const closed = new Promise((resolve) => {
    behave = (request, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(Buffer.alloc(65536)), 1);
      response.on('close', () => {
        clearInterval(timer);
        resolve();
      });
    };
  });
  await fails(opened(FILE), 'io', /no range requests/);
  await closed;
});

test('a server that knows no ranges from the end', async () => {
  behave = (request, response) => answer(request, response, { ranges: !/=-/.test(request.headers.range ?? '') });
  const { checkpoint, requests } = await opened(FILE, { maxWholeBytes: 1000 });
  assert.deepEqual(requests.map(({ range }) => range), ['bytes=-131072', 'bytes=15878-146949']);
  assert.deepEqual(await readAll(checkpoint), await readAll(await local(FILE)));
});

test('a server that hides Content-Range, as from a page of another origin', async () => {
  behave = async (request, response, usual) => {
    const { writeHead } = response;
    response.writeHead = (status, headers) => {
      delete headers['content-range'];
      return writeHead.call(response, status, headers);
    };
    return usual();
  };
  const { checkpoint } = await opened(FILE);
  assert.deepEqual(await readAll(checkpoint), await readAll(await local(FILE)));
});

test('a file that is replaced while it is read is told, whatever tells it', async () => {
  const flipped = (bytes) => {
    const other = Buffer.from(bytes);
    for (let at = 100; at < 5000; at++) other[at] ^= 1;
    return other;
  };
  const longer = (bytes) => Buffer.concat([bytes, Buffer.alloc(10)]);
  for (const later of [{ etag: '"two"' }, { headers: { 'last-modified': 'Tue, 01 Dec 2026 00:00:00 GMT' } }, { change: longer }]) {
    const earlier = { headers: { 'last-modified': 'Mon, 30 Nov 2026 00:00:00 GMT' } };
    let count = 0;
    behave = (request, response) => answer(request, response, count++ === 0 ? earlier : later);
    const { checkpoint } = await opened(FILE);
    await fails(readAll(checkpoint), 'io', /was replaced while it was read: open it again/);
  }
  let count = 0;
  behave = (request, response) => answer(request, response, count++ === 0 ? {} : { change: flipped });
  const { checkpoint } = await opened(FILE);
  await assert.rejects(readAll(checkpoint), (error) => ['block-digest', 'manifest-digest'].includes(error.code)); // nothing wrong is given
});

test('what passes is tried again, and not for ever', async () => {
  let count = 0;
  behave = (request, response, usual) => {
    count += 1;
    if (count % 3 === 1) return response.writeHead(503).end();
    return count % 3 === 2 ? request.socket.destroy() : usual();
  };
  const { checkpoint } = await opened(FILE);
  assert.equal(checkpoint.layout, 'file');
  behave = (request, response) => response.writeHead(503).end();
  await fails(opened(FILE), 'io', /503/);
});

test('answers that are not what was asked for', async () => {
  const cases = [
    [{ 'content-range': 'bytes 0-9/100' }, Buffer.alloc(10), /0-9 where -131072/],
    [{ 'content-range': 'bytes 90-99/100' }, Buffer.alloc(9), /ended after 9 of 10/],
    [{ 'content-range': 'bytes 90-99/100' }, Buffer.alloc(200_000), /more than the 10 bytes/],
    [{ 'content-range': 'bytes 90-99/100', 'content-encoding': 'gzip' }, Buffer.alloc(10), /compressed form/],
    [{}, Buffer.alloc(200_000), /more than the 131072/],
  ];
  for (const [headers, body, words] of cases) {
    behave = (request, response) => {
      response.writeHead(206, headers);
      return request.method === 'HEAD' ? response.end() : response.end(body);
    };
    await fails(opened(FILE), 'io', words);
  }
});

test('a connection that breaks within an answer', async () => {
  let socket;
  behave = (request, response) => {
    socket = request.socket;
    response.writeHead(206, { 'content-range': 'bytes 15878-146949/146950', 'content-length': 131072 });
    response.write(Buffer.alloc(1000));
  };
  await fails(open(place + FILE, { onRequest: () => socket.destroy() }), 'io', /connection broke after|ended after/);
});

test('a signal ends the opening, and reads, with its own reason', async () => {
  behave = () => undefined; // never answers
  const reason = new Error('enough');
  const controller = new AbortController();
  const opening = opened(FILE, { signal: controller.signal });
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(opening, (error) => error === reason);
  await assert.rejects(opened(FILE, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
  behave = plainly;
  const { checkpoint } = await opened(FILE);
  behave = () => undefined;
  const one = AbortSignal.timeout(30);
  await assert.rejects(async () => (await checkpoint.tensor(0)).read(undefined, { signal: one }), { name: 'TimeoutError' });
  behave = plainly;
  assert.ok((await (await checkpoint.tensor(0)).read()).data.length > 0); // and is read when it is asked for again
});

test('an empty file', async () => {
  behave = (request, response) => answer(request, response, { change: () => Buffer.alloc(0) });
  await fails(opened(FILE), 'not-a-checkpoint', /no commit record/);
});
