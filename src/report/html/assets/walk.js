// A short walk through one row of attention, with the numbers of the chosen head and query:
// Q, K, V, the scores, the mask, softmax, and the weighted sum.
import { Scene } from './scene.js';
import { MEAN, capital, element, headName, number, quoted } from './tokens.js';

const MOST_KEYS = 48;

export class Walk {
  constructor(app) {
    this.app = app;
    this.root = element('section', { className: 'walk', 'aria-label': 'Walk' });
  }

  async show() {
    const { app } = this;
    const { data, state } = app;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let rows, projected;
    try {
      rows = await Promise.all(data.variants.map((_, maps) => (app.source.holds(maps, state.layer, state.head) ? app.source.row(maps, state.layer, state.head, state.query) : null)));
      projected = data.walk && state.head !== MEAN ? await app.source.projections(state.layer) : null;
    } catch (error) {
      app.fail(error);
      return;
    }
    if (turn !== this.turn || !rows[0]) {
      if (!rows[0]) this.root.replaceChildren(element('p', { className: 'meaning' }, app.missing()));
      return;
    }
    const steps = projected ? this.numbers(projected) : null;
    this.computed = steps;
    this.root.replaceChildren(...(steps ? this.whole(steps, rows) : this.part(rows)));
  }

  // All the numbers of one row, from what the model projected: [tokens, (heads + 2 kv_heads) * head_dim].
  numbers(projected) {
    const { app } = this;
    const { state, data } = app;
    const { heads, kv_heads: kv, head_dim: dim, scales, cap, slopes } = data.walk;
    const width = (heads + 2 * kv) * dim;
    const group = Math.floor(state.head / (heads / kv));
    const at = (token, start) => projected.subarray(token * width + start, token * width + start + dim);
    const q = at(state.query, state.head * dim);
    const count = Math.floor(projected.length / width);
    const keys = Array.from({ length: count }, (_, token) => at(token, (heads + group) * dim));
    const values = Array.from({ length: count }, (_, token) => at(token, (heads + kv + group) * dim));
    const products = keys.map((k) => k.reduce((sum, x, i) => sum + x * q[i], 0));
    const scores = products.map((product, key) => {
      let score = product * scales[state.layer] + (slopes ? slopes[state.head] * key : 0);
      if (cap) score = Math.tanh(score / cap) * cap;
      return score;
    });
    const allowed = scores.map((_, key) => app.visible(state.query, key));
    const softmax = (use) => {
      const most = Math.max(...scores.filter((_, key) => use[key]));
      const powers = scores.map((score, key) => (use[key] ? Math.exp(score - most) : 0));
      const total = powers.reduce((sum, x) => sum + x, 0);
      return powers.map((x) => x / total);
    };
    const weights = softmax(allowed);
    const open = softmax(scores.map(() => true));
    const sum = new Float64Array(dim);
    weights.forEach((weight, key) => values[key].forEach((x, i) => (sum[i] += weight * x)));
    return { q, keys, values, products, scores, allowed, weights, open, sum, dim, scale: scales[state.layer], shared: heads / kv, group };
  }

  whole(s, rows) {
    const { app } = this;
    const { data, state } = app;
    const token = quoted(data.tokens[state.query]);
    const shownKeys = this.keys(s.weights);
    const most = Math.max(...[s.q, ...s.keys, ...s.values].map((v) => Math.max(...v.map(Math.abs))));
    const strip = (vector, name) => this.strip(vector, most, name);
    const root = Math.sqrt(s.dim);
    const usual = Math.abs(s.scale * root - 1) < 1e-3;
    const scaling = usual ? `√${s.dim} = ${root.toFixed(3)}` : `1/${s.scale.toPrecision(4)}, this model’s own scale`;
    const total = (weights) => weights.reduce((sum, x) => sum + x, 0);
    const head = headName(state.layer, state.head);
    const table = (names, lines, foot) =>
      element(
        'table',
        {},
        element('thead', {}, element('tr', {}, ...names.map((name) => (name ? element('th', { scope: 'col' }, name) : element('td'))))),
        element('tbody', {}, ...lines),
        foot && element('tfoot', {}, foot),
      );
    const line = (key, ...cells) =>
      element('tr', { className: app.visible(state.query, key) ? undefined : 'masked' }, element('th', { scope: 'row' }, data.tokens[key].label), ...cells.map((cell) => element('td', {}, cell)));
    const futures = s.scores.length > state.query + 1 && data.variants[state.maps].causal;
    const more = s.keys.length - shownKeys.length;
    return [
      element('p', { className: 'meaning' }, `How ${head} decides what ${token} looks at. Choose another token, head or layer above; every number is this model’s own.`),
      this.tokens(),
      step(1, 'Three vectors for each token', `From each token’s state the head makes a query (what it looks for), a key (what it can be found by) and a value (what it hands over): ${s.dim} numbers each${s.shared > 1 ? `; ${s.shared} query heads share one key and value head here` : ''}. Orange is positive, blue negative.`,
        element('div', { className: 'vector' }, element('span', { className: 'name' }, 'query of ', element('b', {}, data.tokens[state.query].label)), strip(s.q, 'query'), element('code', {}, first(s.q))),
        table(['token', 'key', 'value'], shownKeys.map((key) => line(key, strip(s.keys[key], 'key'), strip(s.values[key], 'value')))),
      ),
      step(2, 'Scores: QKᵀ / √dₖ', `The query meets each key: their product (multiply number by number, add up), divided by ${scaling} so that scores do not grow with the number of numbers.`,
        table(['key', 'q · k', 'score'], shownKeys.map((key) => line(key, signed(s.products[key]), signed(s.scores[key])))),
      ),
      step(3, 'Mask and softmax', futures
          ? `A token may not look at what comes after it: those scores become −∞. Softmax then turns the scores into shares: e to the power of each score, divided by their sum. Beside it the same scores without the mask.`
          : `Softmax turns the scores into shares: e to the power of each score, divided by their sum.${data.variants[state.maps].causal ? ' This is the last token, so the mask hides nothing from it: choose an earlier one to see the mask at work.' : ''}`,
        table(
          ['key', 'score', 'weight, causal', '', ...(futures ? ['without mask', ''] : [])],
          shownKeys.map((key) =>
            line(key, s.allowed[key] ? signed(s.scores[key]) : '−∞', number(s.weights[key]), bar(s.weights[key]), ...(futures ? [number(s.open[key]), bar(s.open[key])] : [])),
          ),
          element('tr', {}, element('th', { scope: 'row' }, 'sum'), element('td'), element('td', {}, total(s.weights).toFixed(4)), element('td'), ...(futures ? [element('td', {}, total(s.open).toFixed(4)), element('td')] : [])),
        ),
        element('p', { className: 'check' }, `The maps recorded from the model say the same: the largest difference in this row is ${Math.max(...s.weights.map((w, key) => Math.abs(w - rows[state.maps][key]))).toExponential(1)}.`),
      ),
      step(4, 'Weighted sum of the values', `Each value counts as much as its weight. Their sum is what this head hands on for ${token}.`,
        element('div', { className: 'vector' }, element('span', { className: 'name' }, 'output'), strip(s.sum, 'output'), element('code', {}, first(s.sum))),
        element('p', {}, shownKeys.filter((key) => s.weights[key] >= 0.005).sort((a, b) => s.weights[b] - s.weights[a]).slice(0, 6).map((key) => `${s.weights[key].toFixed(3)} × value of ${quoted(data.tokens[key])}`).join('  +  ')),
      ),
      more > 0 && element('p', { className: 'meaning' }, `${more} tokens with less weight are left out of the tables; they are in the sums.`),
    ].filter(Boolean);
  }

  // Why only a part of the walk is there.
  why() {
    const { data, state, source } = this.app;
    if (!source.recorded(state.query)) return 'This recording left its row out: choose another token.';
    if (data.walk) return 'A mean of heads has no query and key of its own: choose a head to walk from those on.';
    return 'This recording holds the weights only; attend view "a text" shows the whole walk, from queries and keys on.';
  }

  // Without the model's vectors: from the weights on.
  part(rows) {
    const { app } = this;
    const { data, state } = app;
    const weights = rows[state.maps];
    const keys = this.keys(weights);
    const total = rows.map((row) => row?.reduce((sum, x) => sum + x, 0));
    return [
      element('p', { className: 'meaning' }, `What ${quoted(data.tokens[state.query])} gives its attention to. ${this.why()}`),
      this.tokens(),
      step(1, 'The weights of one row', 'They are shares: each is between 0 and 1, and together they are 1.',
        element(
          'table',
          {},
          element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, 'key'), ...data.variants.flatMap((variant) => [element('th', { scope: 'col' }, variant.title), element('td')]))),
          element('tbody', {}, ...keys.map((key) => element('tr', {}, element('th', { scope: 'row' }, data.tokens[key].label), ...rows.flatMap((row) => [element('td', {}, row ? number(row[key]) : '–'), element('td', {}, bar(row?.[key] ?? 0))])))),
          element('tfoot', {}, element('tr', {}, element('th', { scope: 'row' }, 'sum'), ...total.flatMap((sum) => [element('td', {}, sum?.toFixed(4) ?? '–'), element('td')]))),
        ),
      ),
    ];
  }

  // Keys in the tables: all, or of a long text those with most weight.
  keys(weights) {
    const all = [...weights.keys()];
    if (all.length <= MOST_KEYS) return all;
    return all.sort((a, b) => weights[b] - weights[a]).slice(0, MOST_KEYS).sort((a, b) => a - b);
  }

  tokens() {
    const { app } = this;
    const { data, state } = app;
    const from = Math.max(0, Math.min(state.query - 20, data.size - 41));
    return element(
      'div',
      { className: 'chips tokens', role: 'group', 'aria-label': 'Query' },
      ...data.tokens.slice(from, from + 41).map((token, offset) =>
        element('button', { type: 'button', dir: 'auto', 'aria-pressed': String(from + offset === state.query), onclick: () => app.select(from + offset, Math.min(state.key, from + offset)) }, token.label),
      ),
    );
  }

  strip(vector, most, name) {
    const cell = Math.max(3, Math.floor(224 / vector.length));
    const canvas = element('canvas', { width: vector.length, height: 1, className: 'strip', role: 'img', 'aria-label': `${name}: ${first(vector)}`, title: [...vector].map((x) => x.toFixed(4)).join('  ') });
    canvas.style.width = `${vector.length * cell}px`;
    const context = canvas.getContext('2d');
    vector.forEach((x, i) => {
      const strength = Math.sqrt(Math.min(1, Math.abs(x) / most));
      const full = x > 0 ? [204, 85, 0] : [0, 90, 181];
      context.fillStyle = `rgb(${full.map((c) => Math.round(245 + (c - 245) * strength)).join(' ')})`;
      context.fillRect(i, 0, 1, 1);
    });
    return canvas;
  }

  exported() {
    const { ink, data, state } = this.app;
    const rows = [...this.root.querySelectorAll('h2, .lead, tr, .check')].map((part) => (part.matches('tr') ? [...part.children].map((cell) => cell.textContent) : [part.textContent]));
    const scene = new Scene(760, 60 + rows.length * 19);
    scene.text(`${capital(headName(state.layer, state.head))}, query ${quoted(data.tokens[state.query])}`, 14, 26, { fill: ink.text, size: 15, bold: true });
    rows.forEach((cells, line) => cells.forEach((cell, i) => scene.text(cell, 14 + i * 120, 56 + line * 19, { fill: ink.text, size: 12, bold: cells.length === 1 })));
    return scene;
  }
}

function step(count, title, lead, ...parts) {
  return element('div', { className: 'step' }, element('h2', {}, element('span', { className: 'count' }, String(count)), title), element('p', { className: 'lead' }, lead), ...parts);
}

function bar(share) {
  const made = element('span', { className: 'share' });
  made.style.width = `${Math.round(share * 120)}px`;
  return made;
}

function signed(value) {
  return `${value < 0 ? '−' : ''}${Math.abs(value).toFixed(4)}`;
}

function first(vector) {
  const shown = [...vector.slice(0, 5)].map((x) => signed(x)).join(', ');
  return vector.length > 5 ? `[${shown}, …]` : `[${shown}]`;
}
