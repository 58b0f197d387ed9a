// Makes the page: one file of HTML with the program and the style in it, under a policy that lets nothing else run.
//
//   node build.mjs [FILE]   # ../ckptfmt/viewing/page.html if left out

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

const { outputFiles: [program] } = await build({
  entryPoints: [join(here, 'src/main.ts')], bundle: true, minify: true, format: 'iife', platform: 'browser', target: ['es2022'],
  charset: 'utf8', write: false, legalComments: 'none', conditions: ['browser'], logLevel: 'warning',
  alias: { '#disk': join(here, '../js/src/no_disk.ts') },
});
const script = program.text.replaceAll('</script', '<\\/script').trim();
const style = (await build({ entryPoints: [join(here, 'src/style.css')], minify: true, write: false })).outputFiles[0].text.trim();
// WebAssembly is for digests and codecs; requests go to the URL that is given, and to the server of the page
const policy = `default-src 'none'; script-src ${hash(script)} 'wasm-unsafe-eval'; style-src ${hash(style)}; connect-src 'self' http: https: data:; base-uri 'none'; form-action 'none'`;
const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<!-- index -->
<title>ckptfmt – look at a checkpoint</title>
<style>${style}</style>
</head>
<body>
<noscript>This page reads checkpoints with JavaScript, which is switched off.</noscript>
<script>${script}</script>
</body>
</html>
`;
await writeFile(process.argv[2] ?? join(here, '../ckptfmt/viewing/page.html'), page);
