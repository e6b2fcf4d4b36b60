// What scripts/check-page runs: `node check_page.mjs FOLDER-WITH-NODE-MODULES FOLDER-FOR-SCREENSHOTS [NAME...]`.
// Limits: first paint 2 s, median frame of pan and zoom 1/30 s, 500 MB of heap and of the page's process;
// no request that leaves the page's own server, no message in the console, every key works, axe finds
// nothing. A server that ends before it is told to is a failure, whatever the page then does.
import { spawn, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync, closeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const [place, shots, ...only] = process.argv.slice(2);
const require = createRequire(join(resolve(place), 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const attend = resolve('target/release/attend');
const work = mkdtempSync(join(tmpdir(), 'attend-page-'));
mkdirSync(shots, { recursive: true });

let failures = 0;
function check(holds, what) {
  if (!holds) failures++;
  console.log(`  ${holds ? 'ok  ' : 'FAIL'} ${what}`);
}

// A dump of one step, of two layers with two heads: a previous-token head, a sink, an even one, and
// one with a single cell of 0.5.
const PLANTED = { query: 3000, key: 1234 };
function synthetic(size) {
  const folder = join(work, `dump-${size}`);
  mkdirSync(join(folder, 'steps'), { recursive: true });
  const model = { name: 'synthetic', family: 'llama', config_sha256: '0'.repeat(64), layers: 2, heads: 2, kv_heads: 2 };
  const layers = [0, 1].map((layer) => ({ layer, heads: [0, 1], window: null }));
  writeFileSync(
    join(folder, 'manifest.json'),
    JSON.stringify({
      format: 'attend-attention', version: 1, generator: 'check-page', model, weights_dtype: 'f32', attention_dtype: 'f32',
      kind: 'full', mask: 'causal', layers, prompt_tokens: size, sampling: null,
    }),
  );
  const words = [' the', ' cat', ' sat', ' on', ' a', ' mat', ',', ' 고양이', ' 🙂', '\n'];
  const tokens = Array.from({ length: size }, (_, index) => {
    const text = words[(index * 7 + Math.floor(index / 13)) % words.length];
    return JSON.stringify({ index, id: words.indexOf(text), text, bytes: [...Buffer.from(text)], role: 'prompt', logprob: null });
  });
  writeFileSync(join(folder, 'tokens.jsonl'), tokens.join('\n') + '\n');
  const bytes = 2 * size * size * 4;
  const header = JSON.stringify(
    Object.fromEntries([0, 1].map((layer) => [`layer.00${layer}`, { dtype: 'F32', shape: [2, size, size], data_offsets: [layer * bytes, (layer + 1) * bytes] }])),
  ).padEnd(1024);
  const file = openSync(join(folder, 'steps/00000.safetensors'), 'w');
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(header.length));
  writeSync(file, Buffer.concat([start, Buffer.from(header)]));
  const rows = [
    (row, query) => { row[Math.max(0, query - 1)] += 0.75; row[query] += 0.25; },
    (row, query) => { row[0] += 0.75; row[query] += 0.25; },
    (row, query) => { for (let key = 0; key <= query; key++) row[key] = 1 / (query + 1); },
    (row, query) => { row[query] = 1; if (query === PLANTED.query) { row[query] = 0.5; row[PLANTED.key] = 0.5; } },
  ];
  for (const fill of rows) {
    for (let from = 0; from < size; from += 256) {
      const count = Math.min(256, size - from);
      const block = new Float32Array(count * size);
      for (let line = 0; line < count; line++) fill(block.subarray(line * size, (line + 1) * size), from + line);
      writeSync(file, Buffer.from(block.buffer));
    }
  }
  closeSync(file);
  writeFileSync(join(folder, 'steps.jsonl'), JSON.stringify({ step: 0, file: 'steps/00000.safetensors', first_query: 0, queries: size, keys: size }) + '\n');
  return folder;
}

// Starts `attend view` and waits for its address.
async function serve(args) {
  const child = spawn(attend, ['view', '--no-browser', '--port', '0', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data) => (said += data));
  let stopping = false;
  const ended = new Promise((done) => child.on('exit', (code, signal) => {
    if (!stopping) check(false, `attend view ${args.join(' ').slice(0, 60)} ended by itself: code ${code}, signal ${signal}, it said: ${said}`);
    done(code);
  }));
  const url = await new Promise((done, failed) => {
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
      if (text.includes('\n')) done(text.trim());
    });
    ended.then(() => failed(new Error('there is no server')));
  });
  const stop = async () => {
    stopping = true;
    const asked = performance.now();
    child.kill('SIGINT');
    const code = await Promise.race([ended, new Promise((late) => setTimeout(late, 5000, 'still running'))]);
    check(code === 0, `Ctrl-C ends the server after ${(performance.now() - asked).toFixed(0)} ms with ${code}`);
    child.kill('SIGKILL');
  };
  return { url, stop };
}

// Texts that try to be something else: markup, controls, right-to-left, half characters.
const HOSTILE = ['<script>window.hacked=1</script>', '<img src=x onerror=window.hacked=1>', '</script>', '<!--', '\n', ' \t', '\u0000\u001b[2J', '\u202eright', ' שלום', ' مرحبا', ' 한국어', '🙂', '👩\u200d👧', '"\'&amp;', '\ufffe', '{{script}}'];
function hostile() {
  const folder = synthetic(HOSTILE.length + 2);
  const line = (index, text, bytes) => JSON.stringify({ index, id: index, text, bytes, role: 'prompt', logprob: null });
  const lines = HOSTILE.map((text, index) => line(index, text, [...Buffer.from(text)]));
  // A Hangul syllable of two tokens: the first adds nothing to the text.
  lines.push(line(HOSTILE.length, '', [0xed, 0x95]), line(HOSTILE.length + 1, '한', [0x9c]));
  writeFileSync(join(folder, 'tokens.jsonl'), lines.join('\n') + '\n');
  return folder;
}

// A safetensors file: of each name its values and their shape.
function tensors(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  return Object.fromEntries(
    Object.entries(header).filter(([name]) => name !== '__metadata__').map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
      const data = bytes.buffer.slice(bytes.byteOffset + 8 + length + from, bytes.byteOffset + 8 + length + to);
      return [name, { shape, values: dtype === 'I64' ? new BigInt64Array(data) : new Float32Array(data) }];
    }),
  );
}

function text512() {
  const dump = join(work, 'generated');
  const sentence = 'Once upon a time, there was a little cat. The little cat liked to sit on the mat. ';
  const prompt = sentence.repeat(40);
  // As many words as give 480 tokens, then 32 steps.
  let ids = [];
  const words = prompt.split(/(?<= )/);
  let low = 100, high = words.length;
  const count = (n) => {
    const folder = join(work, 'count');
    execFileSync(attend, ['map', words.slice(0, n).join(''), '--attention', folder, '--overwrite', '--heads', '0.0'], { stdio: 'pipe' });
    return readFileSync(join(folder, 'tokens.jsonl'), 'utf8').trim().split('\n').length;
  };
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (count(middle) <= 480) low = middle;
    else high = middle - 1;
  }
  const tokens = count(low);
  execFileSync(attend, ['generate', words.slice(0, low).join(''), '-n', String(513 - tokens), '--attention', dump], { stdio: 'pipe' });
  return dump;
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

const ARGUMENTS = ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'];
const GL = ['--use-angle=swiftshader', '--enable-unsafe-swiftshader'];

// Chromium itself has crashed at its start on some machines, before any page was opened: it is started again, twice at most.
async function launch(painting) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: [...ARGUMENTS, ...painting] });
    } catch (error) {
      if (attempt === 3) throw error;
      console.log(`  Chromium did not start (${/exitCode=[^>]*/.exec(error.message)?.[0] ?? error.message.split('\n')[0]}); again`);
    }
  }
}

async function visit({ name, url, size, painter = 'canvas', exact, more }) {
  console.log(`${name} (${painter})`);
  const browser = await launch(painter === 'webgl' ? GL : ['--disable-gpu']);
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const messages = [];
  const foreign = [];
  const origin = url.startsWith('file:') ? url : new URL(url).origin;
  page.on('console', (message) => {
    // Said by the software GL itself, of how it reads back.
    if (!message.text().includes('GPU stall due to ReadPixels')) messages.push(message.text());
  });
  page.on('dialog', (dialog) => {
    messages.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('pageerror', (error) => messages.push(String(error.stack ?? error)));
  page.on('request', (request) => {
    const to = request.url();
    if (to.split('?')[0] !== url && !to.startsWith('data:') && !to.startsWith('blob:') && (url.startsWith('file:') || !to.startsWith(origin))) foreign.push(to);
  });
  const shot = (view) => page.screenshot({ path: join(shots, `${name}-${view}${painter === 'webgl' ? '-webgl' : ''}.png`) });
  const state = (what) => page.evaluate((what) => (what ? window.attend.state[what] : window.attend.state), what);
  try {
    const begun = performance.now();
    await page.goto(url + (painter === 'webgl' ? '?webgl' : ''), { waitUntil: 'commit' });
    await page.waitForFunction(() => {
      const thumbs = [...document.querySelectorAll('.thumb')].filter((t) => t.getBoundingClientRect().top < innerHeight);
      return thumbs.length > 0 && thumbs.every((t) => t.dataset.painted);
    }, null, { polling: 20 });
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    const paint = performance.now() - begun;
    // The page itself takes Canvas 2D where WebGL is drawn by the processor, as here: then times are only said.
    const timed = painter === 'canvas' ? check : (_, what) => console.log(`       ${what}`);
    timed(paint < 2000, `first paint after ${paint.toFixed(0)} ms`);
    await shot('overview');

    const run = async (context) => {
      // Evaluated by the browser's own console, which the page's policy does not bind.
      if (!(await page.evaluate(() => Boolean(window.axe)))) await page.evaluate(`${axe}; 0`);
      const result = await page.evaluate(() => window.axe?.run(document, { resultTypes: ['violations'] }).then((r) => r.violations.map((v) => `${v.id}: ${v.nodes[0].html.slice(0, 160)} ${v.nodes[0].failureSummary}`)));
      check(result !== undefined && result.length === 0, `axe in ${context}${result?.length ? `: ${result.join(' | ')}` : ''}${result === undefined ? ' did not run' : ''}`);
    };
    await run('overview');
    for (const sort of ['induction', 'entropy']) {
      await page.click(`[data-sort=${sort}]`);
      check((await state('sort')) === sort, `sorts by ${sort}`);
    }
    await shot('sorted');
    await page.click('.thumb');
    check((await state('view')) === 'head', 'a thumbnail opens its head');
    const settled = () => page.waitForFunction(() => window.attend.map.complete && !window.attend.frame, null, { timeout: 20000 });
    await page.waitForTimeout(100);
    await settled();
    check((await page.evaluate(() => window.attend.map.frame.dataset.painter)) === painter, `painted by ${painter}`);
    await shot('head');
    await run('heatmap');

    // Pan and zoom, a change a frame.
    const frames = await page.evaluate(async () => {
      const app = window.attend;
      const times = [];
      const frame = () => new Promise((done) => requestAnimationFrame(done));
      await frame();
      let last = performance.now();
      for (let i = 0; i < 120; i++) {
        if (i % 40 < 20) app.map.zoomBy(i < 60 ? 1.12 : 1 / 1.12);
        else app.map.panBy(i % 2 ? -17 : -9, -11);
        await frame();
        const now = performance.now();
        times.push(now - last);
        last = now;
      }
      return times;
    });
    timed(median(frames) <= 1000 / 30, `median frame ${median(frames).toFixed(1)} ms`);
    await settled();
    await shot('zoomed');

    // By pointer: the wheel zooms around it, a drag moves the map, a double click shows all of it.
    const box = await page.locator('.heatmap').first().boundingBox();
    await page.evaluate(() => window.attend.fit());
    await settled();
    const zoomOf = () => page.evaluate(() => window.attend.map.camera().zoom);
    const fitted = await zoomOf();
    await page.mouse.move(box.x + box.width * 0.45, box.y + box.height * 0.55);
    await page.mouse.wheel(0, -400);
    await settled();
    check(size === 1 || (await zoomOf()) > fitted, `the wheel zooms ${fitted.toFixed(2)} → ${(await zoomOf()).toFixed(2)}`);
    if (size > 64) {
      const left = await page.evaluate(() => window.attend.map.camera().x);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.45 + 60, box.y + box.height * 0.55, { steps: 4 });
      await page.mouse.up();
      check((await page.evaluate(() => window.attend.map.camera().x)) < left, 'a drag moves the map');
    }
    await page.mouse.dblclick(box.x + box.width * 0.45, box.y + box.height * 0.55);
    await settled();
    check((await zoomOf()) === fitted, 'a double click shows the whole map');

    if (exact) {
      await page.evaluate(({ query, key, layer, head }) => { const app = window.attend; app.fit(); app.set({ layer, head, colour: 'grey', scale: 'linear' }); app.select(0, 0); }, exact);
      let seen = 0, levels = 0;
      for (const zoom of [0, 0.3, 0.6, 1.2, 4, 20]) {
        levels++;
        await page.evaluate(({ zoom, query, key }) => {
          const app = window.attend;
          app.camera = zoom ? { x: key - 20, y: query - 20, zoom } : null;
          if (zoom) app.map.hold();
          app.redraw();
        }, { zoom, ...exact });
        await page.waitForTimeout(150);
        await settled();
        seen += await page.evaluate(({ query, key }) => {
          const { map } = window.attend;
          const camera = map.camera();
          const ratio = map.cells.width / map.plot().width;
          const copy = document.createElement('canvas');
          [copy.width, copy.height] = [map.cells.width, map.cells.height];
          const context = copy.getContext('2d');
          context.drawImage(map.cells, 0, 0);
          const [x, y] = [Math.floor((key - camera.x + 0.5) * camera.zoom * ratio), Math.floor((query - camera.y + 0.5) * camera.zoom * ratio)];
          const pixels = context.getImageData(x - 2, y - 2, 5, 5).data;
          return Math.max(...pixels.filter((_, i) => i % 4 === 0)) > 100 ? 1 : 0;
        }, exact);
      }
      check(seen === levels, `a lone cell of 0.5 shows at ${seen} of ${levels} zooms`);
      await page.evaluate(({ query, key }) => window.attend.select(query, key), exact);
      await page.waitForFunction(() => window.attend.value === 0.5, null, { timeout: 5000 }).catch(() => {});
      check((await page.evaluate(() => window.attend.value)) === 0.5, 'its number is exact');
      await page.evaluate(() => { window.attend.fit(); window.attend.set({ colour: 'cividis' }); });
    }

    // Every key.
    await page.evaluate(() => { window.attend.fit(); window.attend.goTo(0); window.attend.select(window.attend.data.size - 1, 0); window.attend.set({ view: 'head' }); });
    await page.focus('.heatmap');
    const press = async (key, name, expected) => {
      const before = await state(name);
      await page.keyboard.press(key);
      const after = await state(name);
      check(expected(before, after), `${key}: ${name} ${before} → ${after}`);
    };
    if (size > 1) {
      await press('ArrowRight', 'key', (a, b) => b === a + 1);
      await press('ArrowLeft', 'key', (a, b) => b === a - 1);
      await press('ArrowUp', 'query', (a, b) => b === a - 1);
      await press('ArrowDown', 'query', (a, b) => b === a + 1);
      await press('Shift+ArrowUp', 'query', (a, b) => b === Math.max(a - 10, 0));
      await press('Shift+ArrowDown', 'query', (a, b) => b >= a);
      await page.keyboard.press('+');
      const near = await zoomOf();
      await page.keyboard.press('-');
      const far = await zoomOf();
      await page.keyboard.press('0');
      const whole = await page.evaluate(() => window.attend.map.fit().zoom);
      check(near > far && (await zoomOf()) === whole, `+ − 0: zoom ${near.toFixed(2)}, ${far.toFixed(2)}, ${(await zoomOf()).toFixed(2)}`);
    }
    await page.waitForTimeout(50);
    check((await page.evaluate(() => window.attend.live.textContent)).includes('head'), 'the live region reads the cell');
    await press(']', 'head', (a, b) => a !== b);
    await press('[', 'head', (a, b) => a !== b);
    await press('}', 'layer', (a, b) => a !== b);
    await press('{', 'layer', (a, b) => a !== b);
    const steps = await page.evaluate(() => window.attend.data.steps.length);
    if (steps > 1) {
      await press('.', 'step', (a, b) => b === a + 1);
      await press(',', 'step', (a, b) => b === a - 1);
      await page.keyboard.press(' ');
      const before = await state('step');
      await page.waitForFunction((before) => window.attend.state.step > before + 1, before, { timeout: 8000 }).catch(() => {});
      check((await state('step')) > before + 1, 'Space plays the steps');
      await page.keyboard.press(' ');
      check(!(await page.evaluate(() => window.attend.playing)), 'Space stops them');
    }
    await page.keyboard.press('/');
    check(await page.evaluate(() => document.activeElement.type === 'search'), '/ goes to the search');
    const word = await page.evaluate(() => window.attend.data.tokens[0].label);
    await page.keyboard.type(word);
    await page.keyboard.press('Enter');
    check((await page.evaluate(() => window.attend.notice.textContent)).startsWith('Found'), `finds ${JSON.stringify(word)}`);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    check(await page.evaluate(() => window.attend.dialog.open), '? opens the help');
    await run('help');
    await shot('help');
    await page.keyboard.press('Escape');
    for (const [key, view] of [['3', 'text'], ['4', 'arcs'], ['5', 'walk'], ['1', 'overview'], ['2', 'head']]) {
      await press(key, 'view', (_, b) => b === view);
      if (['text', 'arcs', 'walk'].includes(view)) {
        await page.waitForTimeout(350);
        if (view === 'text' && size > 1) {
          const lead = () => page.evaluate(() => window.attend.text.lead.textContent);
          const chosen = await lead();
          await page.hover('#token-1');
          await page.waitForFunction((chosen) => window.attend.text.lead.textContent !== chosen, chosen, { timeout: 5000 }).catch(() => {});
          check((await lead()).includes('(1)'), `hovering shades by a token: ${(await lead()).slice(0, 60)}`);
          await page.selectOption('[data-name=direction]', 'to');
          await page.hover('#token-0');
          await page.waitForFunction(() => window.attend.text.lead.textContent.includes('(0) gets most'), null, { timeout: 5000 }).catch(() => {});
          check((await lead()).includes('(0) gets most attention from'), `and the other way: ${(await lead()).slice(0, 60)}`);
          await page.selectOption('[data-name=direction]', 'from');
          await page.mouse.move(5, 5);
        }
        await shot(view);
        await run(view);
      }
    }

    // The mean over a layer's heads is one head more.
    if (await page.evaluate(() => window.attend.choices(window.attend.state.layer).length > 1)) {
      await page.evaluate(() => window.attend.set({ head: -1 }));
      const mean = await page.evaluate(async () => {
        const app = window.attend;
        const { layer, query, maps } = app.state;
        if (!app.source.holds(maps, layer, -1)) return null;
        const heads = app.choices(layer).filter((head) => head >= 0);
        const rows = await Promise.all(heads.map((head) => app.source.row(maps, layer, head, query)));
        const row = await app.source.row(maps, layer, -1, query);
        return Math.max(...row.map((weight, key) => Math.abs(weight - rows.reduce((sum, row) => sum + row[key], 0) / rows.length)));
      });
      await settled();
      check(mean === null || mean < 1e-6, `the mean of a layer's heads is theirs: ${mean}`);
      if (mean !== null) await shot('mean');
      await page.evaluate(() => window.attend.set({ head: window.attend.data.variants[0].heads[0].head }));
    }
    // Hiding the first token brings the rest of each row back to 1, in thumbnails too.
    const hidden = await page.evaluate(async () => {
      const app = window.attend;
      app.set({ view: 'overview', hide: 1 });
      for (let wait = 0; wait < 400 && !app.withoutFirst(0); wait++) await new Promise((done) => setTimeout(done, 25));
      const side = app.data.overview_side;
      const worst = { difference: 0, missing: !app.withoutFirst(0) };
      const { heads } = app.data.variants[0];
      for (const [place, { layer, head }] of heads.entries()) {
        if (worst.missing || !app.source.holds(0, layer, head) || app.data.size > 64) continue;
        for (let query = 0; query < app.data.size; query++) {
          const row = await app.row(query, { maps: 0, layer, head });
          for (let key = 0; key < app.data.size; key++) {
            const found = app.withoutFirst(0)[(place * side * side + query * side + key) * 2];
            const expected = row[key] >= 2 ** -16 ? Math.min(255, 1 + Math.round((Math.log2(row[key]) + 16) * (254 / 16))) : 0;
            worst.difference = Math.max(worst.difference, Math.abs(found - expected));
          }
        }
      }
      return worst;
    });
    // A step for a sum in another order.
    check(!hidden.missing && hidden.difference <= 1, `thumbnails without the first token: ${JSON.stringify(hidden)}`);
    await page.waitForTimeout(100);
    await shot('hidden');
    await page.evaluate(() => window.attend.set({ view: 'head', hide: 0 }));
    if (await page.evaluate(() => window.attend.data.variants.length > 1)) {
      await page.evaluate(() => window.attend.set({ beside: 'other' }));
      await settled();
      check((await page.locator('.pane:visible h2').allTextContents()).join().includes('no mask'), 'masked beside unmasked');
      await shot('beside');
      await page.evaluate(() => window.attend.set({ beside: '' }));
    }
    await more?.({ page, settled, shot });

    // A view can be sent by its address.
    await page.waitForTimeout(600);
    const sent = page.url();
    const copy = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    await copy.goto(sent);
    const [here, there] = [await state(), await copy.evaluate(() => window.attend.state)];
    check(JSON.stringify(here) === JSON.stringify(there), 'the address holds the view');
    await copy.close();

    for (const kind of ['PNG', 'SVG']) {
      const [download] = await Promise.all([page.waitForEvent('download', { timeout: 8000 }), page.click(`header >> text=${kind}`)]);
      const path = join(shots, `${name}-exported${painter === 'webgl' ? '-webgl' : ''}.${kind.toLowerCase()}`);
      await download.saveAs(path);
      check(statSync(path).size > 500, `exports ${kind}, ${statSync(path).size} bytes`);
      if (kind === 'SVG') {
        // Elsewhere: the page itself may not parse markup.
        const parser = await browser.newPage();
        const fault = await parser.evaluate((text) => new DOMParser().parseFromString(text, 'image/svg+xml').querySelector('parsererror')?.textContent, readFileSync(path, 'utf8'));
        check(!fault, `the SVG is well-formed ${fault ?? ''}`);
        await parser.close();
      }
    }
    const session = await page.context().newCDPSession(page);
    await session.send('HeapProfiler.collectGarbage');
    const heap = await session.send('Runtime.getHeapUsage');
    const bytes = heap.usedSize + (heap.embedderHeapUsedSize ?? 0) + (heap.backingStorageSize ?? 0);
    check(bytes < 500e6, `memory of the page ${(bytes / 1e6).toFixed(0)} MB`);
    const system = await browser.newBrowserCDPSession();
    const { processInfo } = await system.send('SystemInfo.getProcessInfo');
    const shares = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => {
      try {
        return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${id}/smaps_rollup`, 'utf8'))[1]) * 1024;
      } catch {
        return 0;
      }
    });
    check(Math.max(...shares) < 500e6, `memory of its process ${(Math.max(...shares) / 1e6).toFixed(0)} MB`);
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.keyboard.press('1');
    await page.waitForTimeout(200);
    await run('dark overview');
    await page.keyboard.press('2');
    await page.waitForTimeout(300);
    await run('dark heatmap');
    await shot('dark');
    check(foreign.length === 0, `no request to elsewhere ${foreign.slice(0, 3)}`);
    check(messages.length === 0, `nothing in the console ${messages.slice(0, 3)}`);
  } catch (error) {
    check(false, `${error.stack} ${messages}`);
  } finally {
    await browser.close();
  }
}

const cases = {
  one: async () => {
    const server = await serve(['--prompt-ids', '5']);
    await visit({ name: 'one', url: server.url, size: 1 });
    await server.stop();
  },
  six: async () => {
    const server = await serve(['The cat sat on the mat']);
    await visit({ name: 'six', url: server.url, size: 6 });
    await server.stop();
  },
  file: async () => {
    const file = join(work, 'six.html');
    execFileSync(attend, ['map', 'The cat sat on the mat', '--html', file], { stdio: 'pipe' });
    await visit({ name: 'file', url: `file://${file}`, size: 6 });
  },
  // The walk's own arithmetic against Transformers' attention (tests/fixtures/walk/make.py).
  walk: async () => {
    const browser = await launch([]);
    for (const [family, layers] of [['llama', [1]], ['qwen3', [1]], ['gemma2', [0, 1]], ['gpt2', [1]]]) {
      const reference = tensors(`tests/fixtures/walk/${family}.safetensors`);
      const ids = [...reference.input_ids.values].join();
      const file = join(work, `${family}.html`);
      execFileSync(attend, ['map', '-m', `tests/fixtures/${family}`, '--prompt-ids', ids, '--html', file], { stdio: 'pipe' });
      const page = await browser.newPage();
      await page.goto(`file://${file}`);
      for (const layer of layers) {
        const of = (what) => reference[`${layer}.${what}`];
        const [heads, size, dim] = of('query').shape;
        const group = heads / of('key').shape[0];
        const found = await page.evaluate(async ({ layer, heads, size }) => {
          const app = window.attend;
          const projected = await app.source.projections(layer);
          const all = [];
          for (let head = 0; head < heads; head++) {
            for (let query = 0; query < size; query++) {
              app.state = { ...app.state, layer, head, query };
              const { q, keys, values, scores, weights, sum, allowed } = app.walk.numbers(projected);
              all.push({ q: [...q], k: keys.map((x) => [...x]), v: values.map((x) => [...x]), scores: scores.map((x, key) => (allowed[key] ? x : 0)), weights, sum: [...sum] });
            }
          }
          return all;
        }, { layer, heads, size });
        const worst = {};
        found.forEach((ours, at) => {
          const [head, query] = [Math.floor(at / size), at % size];
          const part = (what, row, length) => of(what).values.subarray(row * length, (row + 1) * length);
          const compare = (name, ours, theirs) => ours.forEach((x, i) => (worst[name] = Math.max(worst[name] ?? 0, Math.abs(x - theirs[i]))));
          compare('Q', ours.q, part('query', head * size + query, dim));
          ours.k.forEach((x, key) => compare('K', x, part('key', Math.floor(head / group) * size + key, dim)));
          ours.v.forEach((x, key) => compare('V', x, part('value', Math.floor(head / group) * size + key, dim)));
          for (const what of ['scores', 'weights']) compare(what, ours[what], part(what, head * size + query, size));
          compare('sum', ours.sum, part('sum', head * size + query, dim));
        });
        const said = Object.entries(worst).map(([name, x]) => `${name} ${x.toExponential(0)}`).join(', ');
        check(Object.keys(worst).length === 6 && Object.values(worst).every((x) => x < 1e-4), `walk of ${family}, layer ${layer}: ${said}`);
      }
      await page.close();
    }
    await browser.close();
  },
  hostile: async () => {
    const dump = hostile();
    const file = join(work, 'hostile.html');
    execFileSync(attend, ['map', dump, '--html', file], { stdio: 'pipe' });
    const server = await serve([dump]);
    for (const [name, url] of [['hostile', server.url], ['hostile-file', `file://${file}`]]) {
      await visit({ name, url, size: HOSTILE.length + 2, more: async ({ page }) => {
        const found = await page.evaluate(() => ({ hacked: window.hacked, scripts: [...document.scripts].filter((s) => !s.type).length, images: document.images.length }));
        check(found.hacked === undefined && found.scripts === 1 && found.images === 0, `nothing in a token runs: ${JSON.stringify(found)}`);
        const text = await page.evaluate(() => window.attend.text.list.textContent);
        check(text.includes('<script>window.hacked=1</script>') && text.includes('한국어') && text.includes('\\xED\\x95') && !/[\u0000-\u001f\u202e]/.test(text), 'tokens read as they are');
      } });
    }
    // Were there a hole, markup would still be refused.
    const browser = await launch([]);
    const page = await browser.newPage();
    await page.goto(server.url);
    const refused = await page.evaluate(() => {
      try {
        document.body.innerHTML = '<b>x</b>';
        return false;
      } catch (error) {
        return error instanceof TypeError;
      }
    });
    check(refused, 'the page may not turn text into markup');
    await browser.close();
    await server.stop();
  },
  // A recording of every third query: the others are blank everywhere.
  sparse: async () => {
    const dump = join(work, 'sparse');
    execFileSync(attend, ['generate', 'The little cat sat on the mat, and the little dog', '-n', '6', '--temp', '0', '--queries', 'every:3', '--attention', dump], { stdio: 'pipe' });
    const file = join(work, 'sparse.html');
    execFileSync(attend, ['map', dump, '--html', file], { stdio: 'pipe' });
    const server = await serve([dump]);
    for (const [name, url] of [['sparse', server.url], ['sparse-file', `file://${file}`]]) {
      await visit({ name, url, size: 18, more: async ({ page, settled, shot }) => {
        await settled();
        const rows = await page.evaluate(() => {
          const app = window.attend;
          const { size } = app.data;
          app.goTo(app.data.steps.length - 1);
          app.set({ view: 'overview' });
          app.set({ view: 'head' });
          const pixels = (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const thumb = pixels(app.overview.grid.querySelector('.thumb canvas'));
          const { map } = app;
          map.draw();
          const camera = map.camera();
          const plot = map.plot();
          const scene = map.scene(camera, plot, true);
          const canvas = document.createElement('canvas');
          [canvas.width, canvas.height] = [scene.width, scene.height];
          scene.draw(canvas.getContext('2d'));
          const whole = pixels(canvas);
          const paper = app.paper.join();
          const at = (image, x, y) => [...image.data.slice((Math.floor(y) * image.width + Math.floor(x)) * 4).slice(0, 3)].join();
          return Array.from({ length: size }, (_, query) => ({
            recorded: query % 3 === 0 && query < app.data.steps.at(-1)[3],
            thumb: at(thumb, 0, query) !== paper,
            map: at(whole, plot.left + camera.zoom * 0.15, plot.top + (query + 0.15) * camera.zoom) !== paper,
          }));
        });
        const wrong = rows.flatMap(({ recorded, thumb, map }, query) => (recorded === thumb && recorded === map ? [] : [`${query}: ${JSON.stringify({ recorded, thumb, map })}`]));
        check(wrong.length === 0, `only recorded queries have colours ${wrong.join(' ')}`);
        await page.evaluate(() => window.attend.select(4, 1));
        await page.waitForFunction(() => window.attend.reading.textContent.includes('not recorded'), null, { timeout: 3000 }).catch(() => {});
        check((await page.evaluate(() => window.attend.reading.textContent)).includes('not recorded'), 'a query that is not there is said so');
        await shot('blank');
        await page.evaluate(() => window.attend.select(3, 0));
      } });
    }
    await server.stop();
  },
  medium: async () => {
    const dump = text512();
    const server = await serve([dump]);
    await visit({ name: 'medium', url: server.url, size: 512 });
    await server.stop();
    const file = join(work, 'medium.html');
    execFileSync(attend, ['map', dump, '--html', file], { stdio: 'pipe' });
    await visit({ name: 'medium-file', url: `file://${file}`, size: 512 });
  },
  large: async () => {
    const dump = synthetic(4097);
    const server = await serve([dump]);
    const exact = { ...PLANTED, layer: 1, head: 1 };
    await visit({ name: 'large', url: server.url, size: 4097, exact });
    await visit({ name: 'large', url: server.url, size: 4097, exact, painter: 'webgl' });
    await server.stop();
    const file = join(work, 'large.html');
    execFileSync(attend, ['map', dump, '--html', file, '--layer', '1', '--head', '1'], { stdio: 'pipe' });
    await visit({ name: 'large-file', url: `file://${file}`, size: 4097, exact });
    const left = readFileSync(file, 'utf8').match(/"left_out":"([^"]*)"/)?.[1] ?? '';
    check(left.includes('keeps the overview') && left.includes('rows of 1.1 '), `it says what it left out: ${left.slice(0, 90)}`);
    check(statSync(file).size < 50e6, `the file has ${(statSync(file).size / 1e6).toFixed(1)} MB`);
  },
};

for (const [name, run] of Object.entries(cases)) {
  if (only.length === 0 || only.includes(name)) await run();
}
rmSync(work, { recursive: true });
console.log(failures ? `${failures} checks failed` : 'all checks passed');
process.exit(failures ? 1 : 0);
