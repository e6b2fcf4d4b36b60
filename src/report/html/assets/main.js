// The page: its state (also in the address, so that a view can be sent), its frame, and the keys.
import { restOf } from './code.js';
import { COLOUR_NAMES, colourAt, css, paperColour, shadeAt, tableOf, weightAt } from './colour.js';
import { Embedded, Served, pictures } from './source.js';
import { Heatmap } from './heatmap.js';
import { Overview } from './overview.js';
import { Scene, save } from './scene.js';
import { Arcs, TextView } from './text.js';
import { MEAN, capital, element, headName, number, quoted } from './tokens.js';
import { Walk } from './walk.js';

const VIEWS = [
  ['overview', 'Overview'],
  ['head', 'Heatmap'],
  ['text', 'Text'],
  ['arcs', 'Arcs'],
  ['walk', 'Walk'],
];

const KEYS = [
  ['← ↑ → ↓', 'move the cell, or the token; with Shift by ten'],
  ['[  ]', 'head before, head after'],
  ['{  }', 'layer before, layer after'],
  [',  .', 'step before, step after'],
  ['Space', 'play or stop the steps'],
  ['+  −  0', 'zoom in, zoom out, whole map'],
  ['/', 'find a token'],
  ['1 … 5', 'overview, heatmap, text, arcs, walk'],
  ['?', 'this help'],
];

class App {
  constructor(data) {
    this.data = data;
    this.source = data.served ? new Served(data) : new Embedded(data);
    this.picture = pictures(data);
    // Where a processor draws for the graphics card, Canvas 2D is quicker, unless the address asks.
    this.anyWebGl = new URLSearchParams(location.search).has('webgl');
    const [head] = data.variants[0].heads;
    // Where queries, keys and values are shown, a token from which the mask hides something.
    let last = data.walk && data.size > 3 ? Math.ceil(data.size * 0.6) : data.size - 1;
    while (last > 0 && !this.source.recorded(last)) last--;
    this.defaults = {
      view: 'overview', layer: head.layer, head: head.head, maps: 0, query: last, key: 0, step: data.steps.length - 1,
      sort: 'place', channel: 'max', scale: 'linear', colour: 'cividis', hide: 0, threshold: 0, beside: '', direction: 'from',
      x: -1, y: -1, zoom: 0,
    };
    this.state = { ...this.defaults };
    this.read();
    this.overview = new Overview(this);
    this.text = new TextView(this);
    this.arcs = new Arcs(this);
    this.walk = new Walk(this);
    this.map = new Heatmap(this, () => this.state);
    this.other = new Heatmap(this, () => this.besideOf() ?? this.state);
    this.build();
    this.show();
    addEventListener('hashchange', () => {
      if (location.hash.slice(1) !== this.hash) {
        this.read();
        this.show();
      }
    });
    addEventListener('keydown', (event) => this.keyDown(event));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.show());
  }

  // The state, from the address.
  read() {
    const { data, defaults } = this;
    const given = new URLSearchParams(location.hash.slice(1));
    const state = { ...defaults };
    for (const [name, value] of given) {
      if (!(name in defaults)) continue;
      if (typeof defaults[name] !== 'number') state[name] = value;
      else if (Number.isFinite(Number(value))) state[name] = Number(value);
    }
    const one = (name, of) => (of.includes(state[name]) ? 0 : (state[name] = defaults[name]));
    one('view', VIEWS.map(([id]) => id));
    one('sort', ['place', ...data.scores.map((score) => score.id)]);
    one('channel', ['max', 'mean']);
    one('scale', ['linear', 'log']);
    one('colour', COLOUR_NAMES);
    one('direction', ['from', 'to']);
    one('maps', data.variants.map((_, maps) => maps));
    const within = (name, low, high) => (state[name] = Math.min(high, Math.max(low, Math.round(state[name]))));
    within('query', data.first_query, data.size - 1);
    within('key', 0, data.size - 1);
    within('step', 0, data.steps.length - 1);
    within('hide', 0, 16);
    if (!this.source.head(state.maps, state.layer, state.head)) Object.assign(state, { layer: defaults.layer, head: defaults.head });
    this.state = state;
    this.camera = state.zoom > 0 ? { x: state.x, y: state.y, zoom: state.zoom } : null;
  }

  // The state, into the address, once it rests: browsers refuse many changes a second.
  write() {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => this.writeNow(), 250);
  }

  writeNow() {
    const { state, defaults, camera } = this;
    const zoomed = camera && !camera.fitted && state.view === 'head';
    Object.assign(state, zoomed ? { x: round(camera.x), y: round(camera.y), zoom: round(camera.zoom) } : { x: -1, y: -1, zoom: 0 });
    const shown = new URLSearchParams();
    for (const name of Object.keys(defaults)) if (state[name] !== defaults[name]) shown.set(name, state[name]);
    this.hash = shown.toString();
    history.replaceState(null, '', `#${this.hash}`);
  }

  set(changes) {
    const changed = { ...this.state, ...changes };
    if (!this.source.head(changed.maps, changed.layer, changed.head)) return;
    const moved = changes.view && changes.view !== this.state.view;
    this.state = changed;
    this.show();
    if (moved) {
      this.views[changed.view].focus?.({ preventScroll: true });
      this.main.scrollTop = 0;
    }
  }

  // ---- what others ask ----

  besideOf() {
    const { beside, layer, head, maps } = this.state;
    if (beside === 'other') return { maps: 1 - maps, layer, head };
    const [l, h] = beside.split('.').map(Number);
    return beside && this.source.head(maps, l, h) ? { maps, layer: l, head: h } : null;
  }

  // Queries before this one are shown: those of the steps up to the chosen one.
  shownQueries() {
    return this.data.steps[this.state.step][3];
  }

  visible(query, key) {
    const [from, to] = this.source.seen(this.state.maps, this.state.layer, this.state.head, query);
    return key >= from && key < to;
  }

  // The chosen head's row, with the first keys hidden if asked.
  async row(query, of = this.state) {
    const row = await this.source.row(of.maps, of.layer, of.head, query);
    const { hide } = this.state;
    if (!hide) return row;
    const rest = restOf(row, hide);
    return row.map((weight, key) => (key < hide ? 0 : weight * rest));
  }

  // A row if it is here already; else it comes, and then the maps are drawn again.
  rowNow(query, of) {
    const promise = this.source.row(of.maps, of.layer, of.head, query);
    if (promise.value === undefined && !promise.watched) {
      promise.watched = true;
      promise.then(
        (value) => {
          promise.value = value;
          this.redraw();
        },
        (error) => this.fail(error),
      );
    }
    return promise.value;
  }

  column(key) {
    const { maps, layer, head, hide } = this.state;
    return this.source.column(maps, layer, head, key, hide);
  }

  missing() {
    const { layer, head } = this.state;
    return `The rows of ${headName(layer, head)} are not in this file, only its small picture. ${this.data.left_out ?? ''}`;
  }

  fail(error) {
    this.notice.textContent = this.source.holds(this.state.maps, this.state.layer, this.state.head)
      ? `The server does not answer (${error.message}). Is attend view still running?`
      : this.missing();
  }

  lookKey() {
    const { channel, scale, colour, threshold, hide } = this.state;
    return [channel, scale, colour, threshold, hide, this.paper].join();
  }

  // The small pictures without the first keys, once they are there.
  withoutFirst(maps) {
    const { hide } = this.state;
    const key = `${maps}.${hide}`;
    this.hiddenPictures ??= new Map();
    if (!this.hiddenPictures.has(key)) {
      this.hiddenPictures.set(key, null);
      this.source.pictures(maps, hide).then(
        (bytes) => {
          this.hiddenPictures.set(key, bytes);
          this.overview.look = null;
          this.show();
        },
        (error) => {
          this.hiddenPictures.delete(key);
          this.fail(error);
        },
      );
    }
    return this.hiddenPictures.get(key);
  }

  // Paints a head's small picture.
  paintPicture(canvas, maps, place) {
    const { data, table, paper, state, source } = this;
    const side = data.overview_side;
    const bytes = side * side * 2;
    const changed = state.hide ? this.withoutFirst(maps) : null;
    const codes = changed ? changed.subarray(place * bytes, (place + 1) * bytes) : this.picture(maps, place);
    const context = canvas.getContext('2d');
    const image = context.createImageData(side, side);
    const variant = data.variants[maps];
    const window = variant.heads[place].window ?? Infinity;
    const offset = state.channel === 'mean' ? 1 : 0;
    // The first position of each cell, and behind the last the end.
    const start = Array.from({ length: side + 1 }, (_, cell) => Math.min(cell * data.overview_cell, data.size));
    for (let row = 0; row < side; row++) {
      const [first, end] = [start[row], start[row + 1]];
      const recorded = source.recorded(first, end);
      for (let column = 0; column < side; column++) {
        const [key, endKey] = [start[column], start[column + 1]];
        const masked = variant.causal && (key >= end || endKey - 1 + window <= first);
        const at = row * side + column;
        if (!recorded || masked || endKey <= state.hide) image.data.set([...paper, 255], at * 4);
        else image.data.set(table.subarray(codes[2 * at + offset] * 4, codes[2 * at + offset] * 4 + 4), at * 4);
      }
    }
    context.putImageData(image, 0, 0);
  }

  pictureCanvas(maps, layer, head) {
    const place = this.data.variants[maps].heads.findIndex((known) => known.layer === layer && known.head === head);
    if (place < 0) return null;
    this.small ??= element('canvas', { width: this.data.overview_side, height: this.data.overview_side });
    this.paintPicture(this.small, maps, place);
    // The last cells may reach beyond the map.
    const cells = this.data.size / this.data.overview_cell;
    this.cropped ??= element('canvas', { width: 512, height: 512 });
    const context = this.cropped.getContext('2d');
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, 0, cells, cells, 0, 0, 512, 512);
    return this.cropped;
  }

  // ---- changes ----

  hover(cell) {
    if (cell?.query === this.hovered?.query && cell?.key === this.hovered?.key) return;
    this.hovered = cell;
    this.redraw();
    this.tell(false);
  }

  select(query, key) {
    this.hovered = null;
    this.state = { ...this.state, query, key };
    this.map.reveal(query, key);
    this.show();
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.state.view !== 'head') return;
      this.map.draw();
      if (this.besideOf()) this.other.draw();
      this.drawn = (this.drawn ?? 0) + 1;
      this.write();
    });
  }

  goTo(step) {
    const { data } = this;
    step = Math.min(data.steps.length - 1, Math.max(0, step));
    const [first, queries, stride, keys] = data.steps[step];
    const query = queries > 0 ? first + (queries - 1) * stride : keys - 1;
    this.state = { ...this.state, step, query, key: Math.min(this.state.key, query) };
    this.map.reveal(query, this.state.key);
    this.show();
  }

  play() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
    } else {
      if (this.state.step >= this.data.steps.length - 1) this.goTo(0);
      this.playing = setInterval(() => {
        if (this.state.step >= this.data.steps.length - 1) this.play();
        else this.goTo(this.state.step + 1);
      }, 500);
    }
    this.showStep();
  }

  nextHead(by) {
    const inLayer = this.choices(this.state.layer);
    const at = inLayer.indexOf(this.state.head);
    const { layer } = this.state;
    const head = inLayer[(at + by + inLayer.length) % inLayer.length];
    this.set({ layer, head });
  }

  // A layer's heads, and their mean where there are several.
  choices(layer) {
    const heads = this.data.variants[this.state.maps].heads.filter((head) => head.layer === layer).map((head) => head.head);
    return heads.length > 1 ? [...heads, MEAN] : heads;
  }

  // Of another layer the head of the same number, or the first.
  sameHead(layer) {
    const choices = this.choices(layer);
    return choices.includes(this.state.head) ? this.state.head : choices[0];
  }

  nextLayer(by) {
    const heads = this.data.variants[this.state.maps].heads;
    const layers = [...new Set(heads.map((head) => head.layer))];
    const layer = layers[(layers.indexOf(this.state.layer) + by + layers.length) % layers.length];
    const head = this.sameHead(layer);
    this.set({ layer, head });
  }

  find(text, backwards = false) {
    const wanted = text.trim().toLowerCase();
    const { data, state } = this;
    if (!wanted) return;
    const from = state.direction === 'to' && state.view === 'text' ? state.key : state.query;
    for (let by = 1; by <= data.size; by++) {
      const position = (from + (backwards ? -by : by) + data.size * 2) % data.size;
      const token = data.tokens[position];
      if (token.label.toLowerCase().includes(wanted) && position >= data.first_query) {
        this.select(position, Math.min(state.key, position));
        this.notice.textContent = `Found ${quoted(token)} at ${position}`;
        return;
      }
    }
    this.notice.textContent = `No token holds “${text}”`;
  }

  // ---- the frame around the views ----

  build() {
    const { data } = this;
    const choice = (label, name, options, hint) => {
      const select = element(
        'select',
        { title: hint, 'data-name': name, onchange: (event) => this.set({ [name]: typeof this.defaults[name] === 'number' ? Number(event.target.value) : event.target.value }) },
        ...options.map(([value, text]) => element('option', { value }, text)),
      );
      this.controls[name] = select;
      return element('label', {}, element('span', {}, label), select);
    };
    this.controls = {};
    const heads = data.variants[0].heads;
    const layers = [...new Set(heads.map((head) => head.layer))];
    this.tabs = element('nav', { 'aria-label': 'Views' }, ...VIEWS.map(([id, title]) => element('button', { type: 'button', 'data-view': id, onclick: () => this.set({ view: id }) }, title)));
    this.headChoice = element('select', { onchange: (event) => this.set({ head: Number(event.target.value) }) });
    const layerChoice = choice('Layer', 'layer', layers.map((layer) => [layer, String(layer)]));
    this.controls.layer.onchange = (event) => {
      const layer = Number(event.target.value);
      this.set({ layer, head: this.sameHead(layer) });
    };
    const beside = [['', 'nothing'], ...(data.variants.length > 1 ? [['other', 'other mask']] : []), ...heads.map((head) => [`${head.layer}.${head.head}`, `head ${head.layer}.${head.head}`]), ...layers.filter((layer) => this.choices(layer).length > 1).map((layer) => [`${layer}.${MEAN}`, `mean of layer ${layer}`])];
    const only = (views, node) => {
      node.dataset.views = views;
      return node;
    };
    this.finder = element('input', { type: 'search', placeholder: 'Find a token', 'aria-label': 'Find a token', onkeydown: (event) => {
      if (event.key === 'Enter') this.find(this.finder.value, event.shiftKey);
      if (event.key === 'Escape') this.finder.blur();
    } });
    this.slider = element('input', { type: 'range', min: 0, max: data.steps.length - 1, 'aria-label': 'Step', oninput: () => this.goTo(Number(this.slider.value)) });
    this.player = element('button', { type: 'button', onclick: () => this.play() });
    this.stepText = element('span', { className: 'what' });
    this.steps = element('section', { className: 'steps', 'aria-label': 'Steps of the generation' }, this.player, this.slider, this.stepText);
    this.threshold = element('input', { type: 'range', min: 0, max: 100, oninput: () => this.set({ threshold: fromSlider(Number(this.threshold.value)) }), 'aria-label': 'Hide weights below' });
    this.thresholdText = element('output', {});
    this.tools = element(
      'section',
      { className: 'tools', 'aria-label': 'What is shown, and how' },
      only('head text arcs walk', layerChoice),
      only('head text arcs walk', element('label', {}, element('span', {}, 'Head'), this.headChoice)),
      data.variants.length > 1 && only('overview head text arcs', choice('Mask', 'maps', data.variants.map((variant, maps) => [maps, variant.title]), 'What a token may look at')),
      only('head', choice('Beside', 'beside', beside, 'A second map next to this one')),
      only('text', choice('Shade', 'direction', [['from', 'what it attends to'], ['to', 'what attends to it']])),
      only('overview head text', choice('Scale', 'scale', [['linear', 'linear'], ['log', 'log']], 'Logarithmic shows small weights too')),
      only('overview head', choice('Colours', 'colour', COLOUR_NAMES.map((name) => [name, name]))),
      data.size > 64 && only('overview head', choice('Blocks', 'channel', [['max', 'max'], ['mean', 'mean']], 'What a pixel shows that stands for many weights')),
      only('overview head text arcs', choice('Hide first', 'hide', [[0, 'none'], [1, '1'], [2, '2'], [4, '4']], 'Takes the first tokens out, where attention is parked, and brings the rest of each row back to 1')),
      only('overview head text arcs', element('label', { title: 'Weights below this are left blank' }, element('span', {}, 'At least'), this.threshold, this.thresholdText)),
    );
    this.bar = element('div', { className: 'scale', 'aria-hidden': 'true' });
    this.reading = element('aside', { 'aria-label': 'Reading' });
    this.notice = element('p', { className: 'notice', role: 'status' });
    this.live = element('p', { className: 'unseen', 'aria-live': 'polite' });
    const zooms = element(
      'div',
      { className: 'zooms', role: 'group', 'aria-label': 'Zoom' },
      element('button', { type: 'button', 'aria-label': 'Zoom in', onclick: () => this.map.zoomBy(1.6) }, '+'),
      element('button', { type: 'button', 'aria-label': 'Zoom out', onclick: () => this.map.zoomBy(1 / 1.6) }, '−'),
      element('button', { type: 'button', onclick: () => this.fit() }, 'Fit'),
    );
    this.titles = [element('h2', {}), element('h2', {})];
    this.second = element('div', { className: 'pane' }, this.titles[1], this.other.frame);
    const panes = element('div', { className: 'panes' }, element('div', { className: 'pane' }, this.titles[0], this.map.frame, zooms), this.second);
    this.views = { overview: this.overview.root, head: panes, text: this.text.root, arcs: this.arcs.root, walk: this.walk.root };
    this.main = element('main', {}, ...Object.values(this.views));
    this.dialog = element(
      'dialog',
      { 'aria-label': 'Keys' },
      element('h2', {}, 'Keys'),
      element('dl', {}, ...KEYS.flatMap(([keys, what]) => [element('dt', {}, keys), element('dd', {}, what)])),
      element('h2', {}, 'Reading a map'),
      element('p', {}, 'Each row belongs to one token, the query; its cells say how much of its attention goes to each earlier token, the keys. A row sums to 1. With the pointer: drag moves, the wheel zooms, a double click shows the whole map.'),
      element('p', {}, 'The address holds what you see: copy it to send a view to someone with the same recording.'),
      element('button', { type: 'button', onclick: () => this.dialog.close() }, 'Close'),
    );
    const { model, steps } = data;
    const counted = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`;
    document.getElementById('app').append(
      element(
        'header',
        {},
        element('h1', {}, 'attend'),
        element('p', { className: 'of' }, element('b', {}, model.name), ` ${counted(data.size, 'token')}, ${model.layers} layers of ${counted(model.heads, 'head')}${steps.length > 1 ? `, ${steps.length} steps` : ''}`),
        this.tabs,
        element('span', { className: 'grow' }),
        this.finder,
        element('button', { type: 'button', onclick: () => this.export('png') }, 'PNG'),
        element('button', { type: 'button', onclick: () => this.export('svg') }, 'SVG'),
        element('button', { type: 'button', 'aria-label': 'Help and keys', onclick: () => this.dialog.showModal() }, '?'),
      ),
      this.tools,
      data.left_out ? element('section', { className: 'left-out', 'aria-label': 'What this file left out' }, data.left_out) : '',
      element('div', { className: 'body' }, this.main, this.reading),
      this.steps,
      element('footer', {}, this.bar, this.notice, this.live),
      this.dialog,
    );
  }

  fit() {
    this.camera = null;
    this.state.zoom = 0;
    this.redraw();
  }

  show() {
    const { state, data } = this;
    this.paper = paperColour();
    const look = [state.colour, state.scale, state.threshold, this.paper, state.view === 'text'].join();
    if (look !== this.tableLook) {
      this.tableLook = look;
      this.table = tableOf(state);
      this.bar.replaceChildren(this.scaleBar());
    }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.ink = { text: colour('--text'), soft: colour('--soft'), line: colour('--line'), mark: colour('--mark'), accent: colour('--accent'), page: colour('--page') };
    for (const button of this.tabs.children) {
      if (button.dataset.view === state.view) button.setAttribute('aria-current', 'page');
      else button.removeAttribute('aria-current');
    }
    for (const node of this.tools.children) node.hidden = !node.dataset.views.split(' ').includes(state.view);
    for (const [id, node] of Object.entries(this.views)) node.hidden = id !== state.view;
    for (const [name, select] of Object.entries(this.controls)) select.value = String(state[name]);
    const choices = this.choices(state.layer);
    if (choices.join() !== this.headNames) {
      this.headNames = choices.join();
      this.headChoice.replaceChildren(...choices.map((head) => element('option', { value: head }, head === MEAN ? 'mean' : String(head))));
    }
    this.headChoice.value = String(state.head);
    this.threshold.value = String(toSlider(state.threshold));
    this.thresholdText.textContent = state.threshold ? number(state.threshold) : '0';
    this.reading.hidden = !['head', 'text', 'arcs'].includes(state.view);
    this.steps.hidden = data.steps.length < 2 || !['head', 'text', 'arcs'].includes(state.view);
    this.bar.hidden = !['overview', 'head', 'text'].includes(state.view);
    this.showStep();
    const beside = this.besideOf();
    this.second.hidden = !beside;
    const name = ({ maps, layer, head }) => `${capital(headName(layer, head))}${data.variants.length > 1 ? (data.variants[maps].causal ? ', causal mask' : ', no mask') : ''}`;
    this.titles[0].textContent = name(state);
    if (beside) this.titles[1].textContent = name(beside);
    this.notice.textContent = this.source.holds(state.maps, state.layer, state.head) || state.view === 'overview' ? '' : this.missing();
    if (state.view === 'overview') this.overview.show();
    if (state.view === 'text') this.text.show();
    if (state.view === 'arcs') this.arcs.show();
    if (state.view === 'walk') this.walk.show();
    if (state.view === 'head') this.redraw();
    this.tell(true);
    this.write();
  }

  showStep() {
    const { data, state } = this;
    this.slider.value = String(state.step);
    this.player.textContent = this.playing ? 'Stop' : 'Play';
    const end = data.steps[state.step][3];
    const first = state.step > 0 ? data.steps[state.step - 1][3] : 0;
    const next = data.tokens[end];
    const reads = end - first > 1 ? `reads ${end - first} tokens` : `reads ${quoted(data.tokens[first])}`;
    this.stepText.textContent = `Step ${state.step} of ${data.steps.length - 1}: ${reads}${next ? `, writes ${quoted(next)}` : ''}`;
    this.slider.setAttribute('aria-valuetext', this.stepText.textContent);
  }

  // The cell under the pointer, or the chosen one, in numbers.
  async tell(aloud) {
    const { data, state } = this;
    if (this.reading.hidden) return;
    const { query, key } = this.hovered ?? state;
    const turn = (this.telling = (this.telling ?? 0) + 1);
    let row;
    try {
      row = await this.row(query);
    } catch (error) {
      this.reading.replaceChildren(element('p', {}, this.source.holds(state.maps, state.layer, state.head) ? '' : 'Its rows are not in this file.'));
      return;
    }
    if (turn !== this.telling) return;
    this.value = row[key];
    const [seen, recorded] = [this.visible(query, key), this.source.recorded(query)];
    const hidden = seen && key < state.hide;
    const shown = hidden ? 'hidden' : seen ? number(row[key]) : recorded ? 'masked' : 'not recorded';
    const best = [...row.keys()].filter((at) => row[at] > 0).sort((a, b) => row[b] - row[a]).slice(0, 8);
    const sum = row.reduce((total, weight) => total + weight, 0);
    const token = data.tokens[query];
    const most = row[best[0]] || 1;
    const line = (at) => {
      const share = element('span', { className: 'share' });
      share.style.width = `${(row[at] / most) * 100}%`;
      return element('li', {}, element('button', { type: 'button', className: 'key', onclick: () => this.select(query, at) }, element('span', { className: 'name', dir: 'auto' }, data.tokens[at].label), element('span', { className: 'at' }, String(at))), element('span', { className: 'value' }, number(row[at])), share);
    };
    const pair = (name, token, at) => [element('dt', {}, name), element('dd', {}, element('b', { dir: 'auto' }, token.label), element('span', { className: 'at' }, ` ${at}`))];
    this.reading.replaceChildren(
      element('dl', {}, ...pair('Query', token, query), ...pair('Key', data.tokens[key], key)),
      element('p', { className: 'weight' }, shown),
      element('p', { className: 'soft' }, hidden ? 'The rest of the row is brought back to 1' : seen ? `of the attention of ${quoted(token)}` : recorded ? `${quoted(token)} may not look there` : `This recording left out what ${quoted(token)} attends to`),
      recorded ? element('h2', {}, `${quoted(token)} attends to`) : '',
      element('ol', {}, ...best.map(line)),
      recorded ? element('p', { className: 'soft' }, `Its row sums to ${sum.toFixed(4)}.`) : '',
      token.logprob === null ? '' : element('p', { className: 'soft' }, `Generated with probability ${Math.exp(token.logprob).toFixed(3)}.`),
    );
    const cell = `${quoted(token)} ${query} to ${quoted(data.tokens[key])} ${key}: ${shown}`;
    this.map.frame.setAttribute('aria-description', cell);
    if (aloud) this.live.textContent = `${capital(headName(state.layer, state.head))}: ${cell}`;
  }

  scaleBar() {
    const { state } = this;
    const canvas = element('canvas', { width: 160, height: 1 });
    const context = canvas.getContext('2d');
    for (let x = 0; x < 160; x++) {
      const below = state.threshold > 0 && weightAt(x / 159, state.scale) < state.threshold;
      const ramp = state.view === 'text' ? shadeAt : (share) => colourAt(state.colour, share);
      context.fillStyle = css(below ? this.paper : ramp(x / 159));
      context.fillRect(x, 0, 1, 1);
    }
    const ends = state.scale === 'linear' ? ['0', '0.5', '1'] : ['0.001', '0.03', '1'];
    return element('span', {}, canvas, element('span', { className: 'ends' }, ...ends.map((end) => element('span', {}, end))));
  }

  // ---- keys ----

  keyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog.open) return;
    const inField = event.target.matches('input, select, textarea');
    const ours = !inField || (event.target.type === 'range' && !event.key.startsWith('Arrow'));
    if (!ours) return;
    const { state, data } = this;
    const far = event.shiftKey ? 10 : 1;
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const views = VIEWS.map(([id]) => id);
    const focused = event.target.closest('button, [role="region"]');
    if (event.key in arrows) {
      if (state.view === 'head') {
        const [down, right] = arrows[event.key];
        const within = (at, low) => Math.min(data.size - 1, Math.max(low, at));
        this.select(within(state.query + down * far, data.first_query), within(state.key + right * far, 0));
      } else if (state.view === 'text' || state.view === 'arcs' || state.view === 'walk') {
        const by = (['ArrowLeft', 'ArrowUp'].includes(event.key) ? -1 : 1) * far;
        if (state.view !== 'text' && ['ArrowUp', 'ArrowDown'].includes(event.key)) return;
        this.text.move(by);
      } else if (focused?.classList.contains('thumb')) {
        this.besideThumb(focused, arrows[event.key]);
      } else {
        return;
      }
    } else if (event.key === '[' || event.key === ']') this.nextHead(event.key === ']' ? 1 : -1);
    else if (event.key === '{' || event.key === '}') this.nextLayer(event.key === '}' ? 1 : -1);
    else if (event.key === ',' || event.key === '.') this.goTo(state.step + (event.key === '.' ? 1 : -1));
    else if (event.key === '/') {
      if (state.view === 'overview') this.set({ view: 'text' });
      this.finder.focus();
      this.finder.select();
    } else if (event.key === '?') this.dialog.showModal();
    else if (event.key === '+' || event.key === '=') this.map.zoomBy(1.4);
    else if (event.key === '-') this.map.zoomBy(1 / 1.4);
    else if (event.key === '0') this.fit();
    else if (event.key === ' ' && !focused && data.steps.length > 1) this.play();
    else if (views[Number(event.key) - 1]) this.set({ view: views[Number(event.key) - 1] });
    else return;
    event.preventDefault();
  }

  // Moves the focus among thumbnails by where they stand.
  besideThumb(from, [down, right]) {
    const thumbs = [...this.overview.grid.querySelectorAll('.thumb')];
    if (right) {
      thumbs[thumbs.indexOf(from) + right]?.focus();
      return;
    }
    const here = from.getBoundingClientRect();
    const others = thumbs
      .map((thumb) => ({ thumb, box: thumb.getBoundingClientRect() }))
      .filter(({ box }) => (box.top - here.top) * down > 4)
      .sort((a, b) => Math.abs(a.box.top - here.top) - Math.abs(b.box.top - here.top) || Math.abs(a.box.left - here.left) - Math.abs(b.box.left - here.left));
    others[0]?.thumb.focus();
  }

  // ---- export ----

  export(kind) {
    const { state, ink } = this;
    const made = {
      overview: () => this.overview.exported(Scene),
      head: () => this.exportedMaps(),
      text: () => this.text.exported(),
      arcs: () => this.arcs.exported(),
      walk: () => this.walk.exported(),
    };
    const scene = made[state.view]();
    const name = `attend-${state.view}-${state.layer}.${state.head === MEAN ? 'mean' : state.head}.${kind}`;
    if (kind === 'svg') {
      save(new Blob([scene.svg(ink.page)], { type: 'image/svg+xml' }), name);
      return;
    }
    const canvas = element('canvas', { width: scene.width * 2, height: scene.height * 2 });
    const context = canvas.getContext('2d');
    context.scale(2, 2);
    context.fillStyle = ink.page;
    context.fillRect(0, 0, scene.width, scene.height);
    scene.draw(context);
    canvas.toBlob((blob) => save(blob, name));
  }

  exportedMaps() {
    const parts = [this.map, ...(this.besideOf() ? [this.other] : [])];
    const scenes = parts.map((part) => part.exported());
    const whole = new Scene(scenes.reduce((sum, scene) => sum + scene.width, 0), scenes[0].height + 30);
    let x = 0;
    scenes.forEach((scene, i) => {
      whole.text(`${this.data.model.name}: ${this.titles[i].textContent}`, x + 10, 20, { fill: this.ink.text, size: 14, bold: true });
      whole.shapes.push(...moved(scene.shapes, x, 30));
      x += scene.width;
    });
    return whole;
  }
}

// Shapes, moved. Paths of a heatmap are straight: M x y, then H or V.
function moved(shapes, dx, dy) {
  return shapes.map((shape) => {
    if (shape.kind !== 'path') return { ...shape, x: shape.x + dx, y: shape.y + dy };
    const d = shape.d.replace(/^M(\S+) (\S+)([HV])(\S+)$/, (_, x, y, way, to) => `M${+x + dx} ${+y + dy}${way}${+to + (way === 'H' ? dx : dy)}`);
    return { ...shape, d };
  });
}

function round(value) {
  return Math.round(value * 1000) / 1000;
}

// The threshold's slider: 0, then 0.001 to 1 in equal ratios.
function fromSlider(at) {
  return at === 0 ? 0 : Number((10 ** ((at - 100) / 33)).toPrecision(2));
}
function toSlider(threshold) {
  return threshold <= 0 ? 0 : Math.round(100 + 33 * Math.log10(threshold));
}

window.attend = new App(JSON.parse(document.getElementById('data').textContent));
