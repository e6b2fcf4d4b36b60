// Where rows and tiles come from: the server, or the rows inside this file. Both answer promises.
import { pictureOf, tileOf } from './code.js';
import { MEAN, bytesOf } from './tokens.js';

// Keeps the newest answers.
class Kept {
  constructor(limit) {
    this.limit = limit;
    this.map = new Map();
  }
  get(key, make) {
    const known = this.map.get(key);
    if (known !== undefined) {
      this.map.delete(key);
      this.map.set(key, known);
      return known;
    }
    const made = make();
    this.map.set(key, made);
    if (this.map.size > this.limit) this.map.delete(this.map.keys().next().value);
    return made;
  }
  forget(key) {
    this.map.delete(key);
  }
}

class Source {
  constructor(data) {
    this.data = data;
    this.tiles = new Kept(160);
    this.rows = new Kept(600);
    this.columns = new Kept(60);
    // Keys of the step that holds each query's row; 0 where it was not recorded.
    this.keys = new Uint32Array(data.size);
    for (const [first, queries, stride, keys] of data.steps) {
      for (let row = 0; row < queries; row++) this.keys[first + row * stride] = keys;
    }
    // How many queries before each position were recorded.
    this.before = new Uint32Array(data.size + 1);
    this.keys.forEach((keys, query) => (this.before[query + 1] = this.before[query] + (keys > 0)));
  }
  // Whether any of the queries from..to was recorded.
  recorded(from, to = from + 1) {
    const { size } = this.data;
    return this.before[Math.min(size, to)] > this.before[Math.min(size, from)];
  }
  // Keys that a query can see.
  seen(maps, layer, head, query) {
    const variant = this.data.variants[maps];
    const keys = this.keys[query];
    if (keys === 0 || !variant.causal) return [0, keys];
    const window = this.head(maps, layer, head)?.window ?? Infinity;
    return [Math.max(0, query + 1 - window), query + 1];
  }
  // A head, or the mean of a layer's heads.
  head(maps, layer, head) {
    const found = this.data.variants[maps].heads.find((known) => known.layer === layer && (head === MEAN || known.head === head));
    return found && head === MEAN ? { layer, head, window: found.window } : found;
  }
}

// As the server calls it.
function named(head) {
  return head === MEAN ? 'mean' : head;
}

export class Served extends Source {
  holds() {
    return true;
  }
  async bytes(target) {
    const answer = await fetch(target);
    if (!answer.ok) throw new Error(`${target}: ${answer.status}`);
    return answer.arrayBuffer();
  }
  pictures(maps, hide) {
    const target = `pictures?maps=${maps}&hide=${hide}`;
    return this.kept(this.columns, target, async () => new Uint8Array(await this.bytes(target)));
  }
  tile(maps, layer, head, level, row, column, hide) {
    const target = `tile?maps=${maps}&layer=${layer}&head=${named(head)}&level=${level}&row=${row}&column=${column}&hide=${hide}`;
    return this.kept(this.tiles, target, async () => new Uint8Array(await this.bytes(target)));
  }
  row(maps, layer, head, query) {
    const target = `row?maps=${maps}&layer=${layer}&head=${named(head)}&query=${query}`;
    return this.kept(this.rows, target, async () => new Float32Array(await this.bytes(target)));
  }
  column(maps, layer, head, key, hide) {
    const target = `column?maps=${maps}&layer=${layer}&head=${named(head)}&key=${key}&hide=${hide}`;
    return this.kept(this.columns, target, async () => new Float32Array(await this.bytes(target)));
  }
  projections(layer) {
    const target = `projections?layer=${layer}`;
    return this.kept(this.columns, target, async () => new Float32Array(await this.bytes(target)));
  }
  kept(cache, target, make) {
    return cache.get(target, () => {
      const promise = make();
      promise.catch(() => cache.forget(target));
      return promise;
    });
  }
}

export class Embedded extends Source {
  constructor(data) {
    super(data);
    this.blocks = new Kept(4);
    this.kept = new Set(data.kept);
    // The script runs before the rows are there, so that the first picture need not wait for them.
    this.ready = new Promise((done) => {
      if (document.readyState === 'loading') addEventListener('DOMContentLoaded', done);
      else done();
    });
  }
  holds(maps, layer, head) {
    if (head !== MEAN) return this.kept.has(`${maps}-${layer}-${head}`);
    return this.inLayer(maps, layer).every((known) => this.holds(maps, layer, known.head));
  }
  inLayer(maps, layer) {
    return this.data.variants[maps].heads.filter((known) => known.layer === layer);
  }
  // All rows of a head: each query's start in one array.
  block(maps, layer, head) {
    if (head === MEAN) return this.blocks.get(`${maps}.${layer}.mean`, () => this.mean(maps, layer));
    return this.blocks.get(`${maps}.${layer}.${head}`, () => {
      const bytes = bytesOf(document.getElementById(`rows-${maps}-${layer}-${head}`).textContent);
      const weights = this.data.variants[maps].bytes === 4 ? new Float32Array(bytes.buffer) : halves(bytes);
      const starts = [];
      let at = 0;
      for (let query = this.data.first_query; query < this.data.size; query++) {
        starts.push(at);
        at += this.seen(maps, layer, head, query)[1];
      }
      return { weights, starts };
    });
  }
  mean(maps, layer) {
    const heads = this.inLayer(maps, layer);
    const { weights: first, starts } = this.block(maps, layer, heads[0].head);
    const weights = new Float32Array(first);
    for (const { head } of heads.slice(1)) {
      const other = this.block(maps, layer, head).weights;
      for (let at = 0; at < weights.length; at++) weights[at] += other[at];
    }
    for (let at = 0; at < weights.length; at++) weights[at] /= heads.length;
    return { weights, starts };
  }
  // The small pictures of all heads without the first keys; of heads whose rows are not here, as they are.
  pictures(maps, hide) {
    return this.columns.get(`pictures.${maps}.${hide}`, async () => {
      await this.ready;
      const { heads } = this.data.variants[maps];
      const { size, overview_side: side, overview_cell: cell } = this.data;
      const all = pictures(this.data);
      const out = new Uint8Array(heads.length * side * side * 2);
      for (const [place, { layer, head }] of heads.entries()) {
        const held = this.holds(maps, layer, head);
        const picture = held ? pictureOf(size, side, cell, (query) => this.seen(maps, layer, head, query), (query) => this.part(maps, layer, head, query), hide) : all(maps, place);
        out.set(picture, place * side * side * 2);
        // Others have their turn.
        await new Promise((done) => setTimeout(done));
      }
      return out;
    });
  }
  part(maps, layer, head, query) {
    if (query < this.data.first_query) return null;
    const { weights, starts } = this.block(maps, layer, head);
    const start = starts[query - this.data.first_query];
    return weights.subarray(start, start + this.seen(maps, layer, head, query)[1]);
  }
  tile(maps, layer, head, level, row, column, hide) {
    const make = () =>
      tileOf(
        this.data.size,
        (query) => this.seen(maps, layer, head, query),
        (query) => this.part(maps, layer, head, query),
        level,
        row,
        column,
        hide,
      );
    return this.tiles.get([maps, layer, head, level, row, column, hide].join('.'), () => this.ready.then(make));
  }
  async projections(layer) {
    await this.ready;
    return new Float32Array(bytesOf(document.getElementById(`projections-${layer}`).textContent).buffer);
  }
  row(maps, layer, head, query) {
    return this.rows.get([maps, layer, head, query].join('.'), async () => {
      await this.ready;
      return this.rowNow(maps, layer, head, query);
    });
  }
  rowNow(maps, layer, head, query) {
    if (!this.holds(maps, layer, head)) throw new Error('these rows are not in this file');
    const row = new Float32Array(this.data.size);
    row.set(this.part(maps, layer, head, query) ?? []);
    return row;
  }
  async column(maps, layer, head, key, hide) {
    await this.ready;
    const column = new Float32Array(this.data.size);
    for (let query = 0; query < this.data.size; query++) {
      const row = this.rowNow(maps, layer, head, query);
      column[query] = key < hide ? 0 : row[key] * restOfRow(row, hide);
    }
    return column;
  }
}

function restOfRow(row, hide) {
  let hidden = 0;
  for (let key = 0; key < Math.min(hide, row.length); key++) hidden += row[key];
  return 1 - hidden > 1e-6 ? 1 / (1 - hidden) : 0;
}

// f16 as f32.
function halves(bytes) {
  const view = new DataView(bytes.buffer);
  const out = new Float32Array(bytes.length / 2);
  for (let at = 0; at < out.length; at++) {
    const bits = view.getUint16(2 * at, true);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    out[at] = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}

// The small picture of a head: [side, side, 2].
export function pictures(data) {
  const bytes = bytesOf(document.getElementById('overview').textContent);
  const size = data.overview_side ** 2 * 2;
  const firsts = [];
  let count = 0;
  for (const variant of data.variants) {
    firsts.push(count);
    count += variant.heads.length;
  }
  return (maps, index) => bytes.subarray((firsts[maps] + index) * size, (firsts[maps] + index + 1) * size);
}

