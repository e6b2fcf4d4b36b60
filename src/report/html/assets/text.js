// The text itself: shaded by what one token attends to, or by what attends to it; and as arcs.
import { css, inkOn, shadeAt, shareOf } from './colour.js';
import { Scene, clipped, widthOf } from './scene.js';
import { element, endsLine, number, quoted, running } from './tokens.js';

export const MOST_ARCS = 64;

export class TextView {
  constructor(app) {
    this.app = app;
    this.spans = [];
    this.lead = element('p', { className: 'meaning' });
    this.list = element('div', {
      className: 'running',
      role: 'listbox',
      tabIndex: 0,
      'aria-label': 'The text, a token an option; arrow keys choose one',
    });
    this.root = element('section', { className: 'text', 'aria-label': 'Text' }, this.lead, this.list);
    app.data.tokens.forEach((token, position) => {
      const span = element(
        'span',
        { role: 'option', id: `token-${position}`, className: token.generated ? 'token generated' : 'token', dir: 'auto', 'aria-label': running(token).trim() === '' ? token.label : null },
        running(token),
      );
      if (token.text === '') span.classList.add('bytes');
      span.dataset.position = position;
      this.spans.push(span);
      this.list.append(span);
      if (endsLine(token)) this.list.append(element('br', {}));
    });
    const at = (event) => event.target.closest?.('[data-position]')?.dataset.position;
    this.list.addEventListener('pointerover', (event) => {
      const position = at(event);
      this.hovered = position === undefined ? null : Number(position);
      this.shade();
    });
    this.list.addEventListener('pointerleave', () => {
      this.hovered = null;
      this.shade();
    });
    this.list.addEventListener('click', (event) => {
      const position = at(event);
      if (position !== undefined) this.choose(Number(position));
    });
  }

  // The token whose attention is shown.
  chosen() {
    const { state } = this.app;
    return state.direction === 'from' ? state.query : state.key;
  }

  choose(position) {
    const { app } = this;
    const { state, data } = app;
    position = Math.min(data.size - 1, Math.max(0, position));
    if (state.direction === 'from') app.select(Math.max(data.first_query, position), Math.min(state.key, position));
    else app.select(Math.max(state.query, position), position);
  }

  move(by) {
    this.choose(this.chosen() + by);
    this.spans[this.chosen()].scrollIntoView({ block: 'nearest' });
  }

  show() {
    const { state } = this.app;
    this.list.setAttribute('aria-activedescendant', `token-${this.chosen()}`);
    for (const span of this.list.querySelectorAll('[aria-selected="true"]')) span.setAttribute('aria-selected', 'false');
    this.spans[this.chosen()]?.setAttribute('aria-selected', 'true');
    if (state.view === 'text') this.shade();
  }

  async shade() {
    const { app } = this;
    const { data, state } = app;
    const position = this.hovered ?? this.chosen();
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const from = state.direction === 'from';
    let weights;
    try {
      weights = from ? await app.row(position) : await app.column(position);
    } catch (error) {
      app.fail(error);
      return;
    }
    if (turn !== this.turn) return;
    const shown = app.shownQueries();
    this.spans.forEach((span, at) => {
      const weight = weights[at];
      const visible = app.visible(from ? position : at, from ? at : position) && weight >= state.threshold && (from || at < shown);
      const colour = shadeAt(shareOf(weight, state.scale));
      span.style.backgroundColor = visible ? css(colour) : 'transparent';
      span.style.color = visible ? inkOn(colour) : '';
      span.classList.toggle('chosen', at === position);
      span.classList.toggle('later', at >= shown);
    });
    const token = data.tokens[position];
    if (from && !app.source.recorded(position)) {
      this.lead.textContent = `This recording left out what ${quoted(token)} (${position}) attends to.`;
      return;
    }
    const best = [...weights.keys()].filter((at) => at < shown || from).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    const list = best.filter((at) => weights[at] > 0).map((at) => `${quoted(data.tokens[at])} ${number(weights[at])}`);
    this.lead.textContent = from
      ? `${quoted(token)} (${position}) attends most to ${list.join(', ') || 'nothing that is shown'}.`
      : `${quoted(token)} (${position}) gets most attention from ${list.join(', ') || 'no token that is shown'}.`;
  }

  // Lines of shaded tokens.
  exported() {
    const { ink } = this.app;
    const box = this.list.getBoundingClientRect();
    const scene = new Scene(Math.ceil(box.width), Math.ceil(this.list.scrollHeight) + 40);
    scene.text(this.lead.textContent, 8, 22, { fill: ink.text, size: 13 });
    for (const span of this.spans) {
      for (const at of span.getClientRects()) {
        const [x, y] = [at.left - box.left, at.top - box.top + this.list.scrollTop + 34];
        if (span.style.backgroundColor !== 'transparent') scene.rect(x, y, at.width, at.height, { fill: span.style.backgroundColor });
        scene.text(span.textContent, x + 1, y + at.height * 0.75, { fill: span.style.color || ink.text, size: 16 });
      }
    }
    return scene;
  }
}

const SIZE = 15;

export class Arcs {
  constructor(app) {
    this.app = app;
    this.canvas = element('canvas', { 'aria-hidden': 'true' });
    this.row = element('div', { className: 'arc-tokens', role: 'group', 'aria-label': 'Tokens' });
    this.lead = element('p', { className: 'meaning' });
    this.scroll = element('div', { className: 'arc-scroll', tabIndex: 0, role: 'group', 'aria-label': 'Arcs, to be scrolled' }, element('div', { className: 'arc-inner' }, this.canvas, this.row));
    this.root = element('section', { className: 'arcs', 'aria-label': 'Arcs' }, this.lead, this.scroll);
    if (app.data.size > MOST_ARCS) return;
    const texts = app.data.tokens.map((token) => clipped(token.label, 120, SIZE));
    const widths = texts.map((text) => Math.max(18, widthOf(text, SIZE, true) + 8));
    // A short text has room to be wide.
    const space = Math.min(56, Math.max(8, (880 - widths.reduce((sum, width) => sum + width, 0)) / widths.length));
    let x = 24;
    this.middles = texts.map((text, position) => {
      const width = widths[position];
      const button = element('button', { type: 'button', className: 'arc-token', dir: 'auto', onclick: () => app.select(Math.max(app.data.first_query, position), Math.min(app.state.key, position)) }, text);
      Object.assign(button.style, { left: `${x}px`, width: `${width}px` });
      this.row.append(button);
      const middle = x + width / 2;
      x += width + space;
      return middle;
    });
    this.width = x + 14;
  }

  async show() {
    const { app } = this;
    const { data, state } = app;
    if (data.size > MOST_ARCS) {
      this.lead.textContent = `Arcs are for texts of up to ${MOST_ARCS} tokens; this one has ${data.size}. The text view shades any length.`;
      return;
    }
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let rows;
    try {
      rows = await Promise.all(data.tokens.map((_, query) => app.row(query)));
    } catch (error) {
      app.fail(error);
      return;
    }
    if (turn !== this.turn) return;
    this.rows = rows;
    const recorded = app.source.recorded(state.query);
    this.lead.textContent = recorded ? `Arcs over the text lead from ${quoted(data.tokens[state.query])} to what it attends to, and under it from every other token; the thicker, the more. Choose a token.` : `This recording left out what ${quoted(data.tokens[state.query])} attends to. Choose another token.`;
    [...this.row.children].forEach((button, position) => {
      button.setAttribute('aria-pressed', String(position === state.query));
    });
    const ratio = Math.min(2, devicePixelRatio || 1);
    const scene = this.scene();
    Object.assign(this.canvas, { width: scene.width * ratio, height: scene.height * ratio });
    Object.assign(this.canvas.style, { width: `${scene.width}px`, height: `${scene.height}px` });
    this.row.style.top = `${this.base}px`;
    const context = this.canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    scene.draw(context);
  }

  scene() {
    const { app } = this;
    const { state, ink } = app;
    const longest = this.middles.at(-1) - this.middles[0];
    const reach = Math.min(230, Math.max(70, longest / 2.4));
    const scene = new Scene(this.width, reach * 2 + 60);
    this.base = reach + 16;
    const arc = (query, key, side) => {
      const [a, b] = [this.middles[query], this.middles[key]];
      const base = side < 0 ? this.base - 2 : this.base + 30;
      if (query === key) return `M${a - 5} ${base}C${a - 14} ${base + side * 26} ${a + 14} ${base + side * 26} ${a + 5} ${base}`;
      const height = side * Math.min(reach, 24 + Math.abs(a - b) / 1.9);
      return `M${a} ${base}C${a} ${base + height} ${b} ${base + height} ${b} ${base}`;
    };
    this.rows.forEach((row, query) => {
      if (query === state.query || query >= app.shownQueries()) return;
      row.forEach((weight, key) => {
        if (weight >= Math.max(0.04, state.threshold)) scene.path(arc(query, key, 1), { stroke: ink.soft, line: 0.6 + 4 * weight, opacity: 0.15 + 0.6 * weight });
      });
    });
    this.rows[state.query].forEach((weight, key) => {
      if (weight >= Math.max(0.01, state.threshold)) scene.path(arc(state.query, key, -1), { stroke: ink.mark, line: 1 + 8 * weight, opacity: 0.25 + 0.75 * weight });
    });
    return scene;
  }

  exported() {
    const scene = this.scene();
    this.app.data.tokens.forEach((token, position) => {
      const chosen = position === this.app.state.query;
      scene.text(clipped(token.label, 120, SIZE), this.middles[position], this.base + 20, { fill: chosen ? this.app.ink.mark : this.app.ink.text, size: SIZE, align: 'middle', bold: chosen });
    });
    return scene;
  }
}
