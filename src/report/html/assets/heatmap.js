// One head as a heatmap: zoom and pan, tokens on both sides, the row and column of a cell.
import { TILE, levelsOf, restOf } from './code.js';
import { colourAt, inkOn, shareOf } from './colour.js';
import { GlPainter, CanvasPainter } from './painter.js';
import { Scene, clipped, widthOf } from './scene.js';
import { element } from './tokens.js';

const LABEL = 12;
const LONGEST = 116;

export class Heatmap {
  // `of()` answers the head to show: { maps, layer, head }; the camera is shared between heatmaps.
  constructor(app, of, title) {
    Object.assign(this, { app, of, title, pending: 0 });
    this.cells = element('canvas', { 'aria-hidden': 'true' });
    this.over = element('canvas', { 'aria-hidden': 'true' });
    this.frame = element(
      'div',
      {
        className: 'heatmap',
        tabIndex: 0,
        role: 'application',
        'aria-label': 'Attention map: rows are queries, columns are keys. Arrow keys move the cell, plus and minus zoom.',
      },
      this.cells,
      this.over,
    );
    this.painter = GlPainter.on(this.cells, app.anyWebGl) ?? new CanvasPainter(this.cells);
    this.frame.dataset.painter = this.painter instanceof GlPainter ? 'webgl' : 'canvas';
    this.listen();
    new ResizeObserver(() => this.app.redraw()).observe(this.frame);
  }

  // Where the cells are, in CSS pixels.
  plot() {
    const { width, height } = this.size ?? { width: 600, height: 400 };
    const widest = (this.widest ??= Math.min(
      LONGEST,
      Math.max(...this.app.data.tokens.slice(0, 4000).map((token) => widthOf(token.label, LABEL))),
    ));
    const left = Math.ceil(widest) + 40;
    const zoom = this.app.camera?.zoom ?? 0;
    const flat = zoom >= widest + 10;
    const top = flat ? 30 : Math.max(44, Math.ceil(widest) + 14);
    return { left, top, width: Math.max(40, width - left - 8), height: Math.max(40, height - top - 8), flat };
  }

  fit() {
    const { width, height } = this.plot();
    const zoom = Math.min(width / this.app.data.size, height / this.app.data.size, 96);
    return { x: 0, y: 0, zoom, fitted: true };
  }

  camera() {
    if (!this.app.camera || this.app.camera.fitted) this.app.camera = this.fit();
    return this.app.camera;
  }

  zoomBy(factor, at) {
    const camera = this.camera();
    const plot = this.plot();
    const [px, py] = at ?? [plot.width / 2, plot.height / 2];
    const least = this.fit().zoom;
    const zoom = Math.min(120, Math.max(least, camera.zoom * factor));
    if (zoom <= least * 1.0001) {
      this.app.camera = this.fit();
    } else {
      this.app.camera = {
        x: camera.x + px / camera.zoom - px / zoom,
        y: camera.y + py / camera.zoom - py / zoom,
        zoom,
      };
    }
    this.hold();
  }

  panBy(dx, dy) {
    const { x, y, zoom } = this.camera();
    this.app.camera = { x: x - dx / zoom, y: y - dy / zoom, zoom };
    this.hold();
  }

  // Keeps the map in sight.
  hold() {
    const camera = this.app.camera;
    const { width, height } = this.plot();
    const most = (extent) => Math.max(0, this.app.data.size - extent / camera.zoom);
    camera.x = Math.min(most(width), Math.max(0, camera.x));
    camera.y = Math.min(most(height), Math.max(0, camera.y));
    this.app.redraw();
  }

  // Moves the camera so that a cell is in sight.
  reveal(query, key) {
    const camera = this.camera();
    if (camera.fitted) return;
    const { width, height } = this.plot();
    const into = (at, from, extent) => {
      const span = extent / camera.zoom;
      if (at < from) return at;
      return at + 1 > from + span ? at + 1 - span : from;
    };
    camera.x = into(key, camera.x, width);
    camera.y = into(query, camera.y, height);
    this.hold();
  }

  // The cell under a pointer.
  under(event) {
    const box = this.frame.getBoundingClientRect();
    const { left, top } = this.plot();
    const { x, y, zoom } = this.camera();
    const key = Math.floor(x + (event.clientX - box.left - left) / zoom);
    const query = Math.floor(y + (event.clientY - box.top - top) / zoom);
    const { size, first_query: first } = this.app.data;
    const inside = event.clientX - box.left >= left && event.clientY - box.top >= top;
    return inside && key >= 0 && query >= first && key < size && query < size ? { query, key } : null;
  }

  listen() {
    const { frame, app } = this;
    let down = null;
    frame.addEventListener('pointerdown', (event) => {
      down = { x: event.clientX, y: event.clientY, moved: false };
      frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener('pointermove', (event) => {
      if (down) {
        const [dx, dy] = [event.clientX - down.x, event.clientY - down.y];
        if (down.moved || Math.hypot(dx, dy) > 3) {
          down = { x: event.clientX, y: event.clientY, moved: true };
          frame.classList.add('dragged');
          this.panBy(dx, dy);
        }
      } else {
        app.hover(this.under(event));
      }
    });
    frame.addEventListener('pointerup', (event) => {
      const cell = this.under(event);
      if (down && !down.moved && cell) app.select(cell.query, cell.key);
      down = null;
      frame.classList.remove('dragged');
    });
    frame.addEventListener('pointerleave', () => app.hover(null));
    frame.addEventListener('dblclick', () => {
      app.camera = null;
      app.redraw();
    });
    frame.addEventListener(
      'wheel',
      (event) => {
        event.preventDefault();
        const box = frame.getBoundingClientRect();
        const { left, top } = this.plot();
        const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
        this.zoomBy(Math.exp(-step * 0.0022), [event.clientX - box.left - left, event.clientY - box.top - top]);
      },
      { passive: false },
    );
  }

  draw() {
    const box = this.frame.getBoundingClientRect();
    if (box.width < 2) return;
    this.size = { width: box.width, height: box.height };
    const ratio = Math.min(2, devicePixelRatio || 1);
    const camera = this.camera();
    const plot = this.plot();
    const place = (canvas, left, top, width, height) => {
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== w) canvas.width = w;
      if (canvas.height !== h) canvas.height = h;
      Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    };
    place(this.cells, plot.left, plot.top, plot.width, plot.height);
    place(this.over, 0, 0, box.width, box.height);
    this.paint(this.painter, camera, plot, ratio);
    const context = this.over.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    this.scene(camera, plot, false).draw(context);
  }

  paint(painter, camera, plot, ratio) {
    const { app } = this;
    const { maps, layer, head } = this.of();
    const { data, source, state } = app;
    const variant = data.variants[maps];
    const pixels = camera.zoom * ratio;
    painter.begin({
      table: app.table,
      paper: app.paper,
      causal: variant.causal,
      window: source.head(maps, layer, head)?.window ?? 1e9,
      size: data.size,
      shown: app.shownQueries(),
      channel: state.channel,
    }, [-camera.x * pixels, -camera.y * pixels, data.size * pixels, data.size * pixels]);
    this.complete = true;
    if (!source.holds(maps, layer, head)) return;
    const levels = levelsOf(data.size);
    const level = this.level(pixels);
    const tiles = (level) => {
      const side = TILE * 2 ** level;
      const end = Math.ceil(data.size / side);
      const range = (from, extent) => [Math.floor(from / side), Math.min(end, Math.floor((from + extent / camera.zoom) / side) + 1)];
      const [[row0, row1], [column0, column1]] = [range(camera.y, plot.height), range(camera.x, plot.width)];
      for (let row = row0; row < row1; row++) {
        for (let column = column0; column < column1; column++) {
          // What the mask hides is paper already.
          if (variant.causal && column > row) continue;
          const promise = source.tile(maps, layer, head, level, row, column, state.hide);
          if (promise.value) {
            painter.tile(promise.value, { level, row, column }, ...placed(row, column, side));
          } else {
            this.complete = false;
            if (!promise.watched) {
              promise.watched = true;
              promise.then(
                (value) => {
                  promise.value = value;
                  app.redraw();
                },
                (error) => app.fail(error),
              );
            }
          }
        }
      }
    };
    const placed = (row, column, side) => [
      (column * side - camera.x) * pixels,
      (row * side - camera.y) * pixels,
      side * pixels,
    ];
    // What is already known of the whole map stands in until the tiles are there.
    if (level < levels - 1) tiles(levels - 1);
    tiles(level);
  }

  // The pyramid's level at which a cell has a pixel or more.
  level(pixels) {
    return Math.min(levelsOf(this.app.data.size) - 1, Math.max(0, Math.ceil(Math.log2(1 / pixels) - 1e-6)));
  }

  // Keys that are hidden, and rows that were not recorded, are paper and no zeros.
  blank(scene, { x, y, zoom }, plot, right) {
    const { data, source, paper, state } = this.app;
    const end = Math.min(right, plot.left + (state.hide - x) * zoom);
    if (state.hide && end > plot.left) {
      scene.rect(plot.left, plot.top, end - plot.left, Math.min(plot.height, (data.size - y) * zoom), { fill: `rgb(${paper.join(' ')})` });
    }
    if (source.recorded(data.first_query, data.size) && source.before[data.size] === data.size) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const block = 2 ** this.level(zoom * ratio);
    const bottom = Math.min(data.size, y + plot.height / zoom);
    // On whole pixels, so that nothing shines through at an edge.
    const top = (query) => Math.max(plot.top, plot.top + Math.round((query - y) * zoom * ratio) / ratio);
    let from = null;
    for (let query = Math.floor(y / block) * block; ; query += block) {
      const empty = query < bottom && !source.recorded(query, query + block);
      if (empty) from ??= query;
      else if (from !== null) {
        const until = Math.min(plot.top + plot.height, top(Math.min(query, data.size)));
        scene.rect(Math.max(plot.left, plot.left - x * zoom), top(from), right - plot.left, until - top(from), { fill: `rgb(${paper.join(' ')})` });
        from = null;
      }
      if (query >= bottom) return;
    }
  }

  // Everything but the cells.
  scene(camera, plot, exported) {
    const { app } = this;
    const { data, state, ink } = app;
    const { maps, layer, head } = this.of();
    const scene = new Scene(this.size.width, this.size.height);
    const { x, y, zoom } = camera;
    const left = (key) => plot.left + (key - x) * zoom;
    const top = (query) => plot.top + (query - y) * zoom;
    const right = Math.min(plot.left + plot.width, left(data.size));
    const bottom = Math.min(plot.top + plot.height, top(data.size));
    if (exported) scene.picture(this.cells, plot.left, plot.top, plot.width, plot.height);
    if (!app.source.holds(maps, layer, head)) {
      const picture = app.pictureCanvas(maps, layer, head);
      if (picture && camera.fitted) scene.picture(picture, plot.left, plot.top, data.size * zoom, data.size * zoom);
    }
    this.blank(scene, camera, plot, right);
    const cell = app.hovered ?? state;
    // Lines around the row and the column.
    if (cell.query !== null && cell.query !== undefined) {
      const [rowTop, rowBottom] = [Math.max(plot.top, top(cell.query)), Math.min(bottom, top(cell.query + 1))];
      if (rowBottom > rowTop - 1) {
        for (const at of [rowTop, rowBottom]) scene.path(`M${plot.left} ${at}H${right}`, { stroke: ink.mark, line: 1, opacity: 0.85 });
      }
      const [columnLeft, columnRight] = [Math.max(plot.left, left(cell.key)), Math.min(right, left(cell.key + 1))];
      if (columnRight > columnLeft - 1) {
        for (const at of [columnLeft, columnRight]) scene.path(`M${at} ${plot.top}V${bottom}`, { stroke: ink.mark, line: 1, opacity: 0.85 });
      }
      if (rowBottom > rowTop && columnRight > columnLeft) {
        scene.rect(columnLeft, rowTop, columnRight - columnLeft, rowBottom - rowTop, { stroke: ink.mark, line: 2.5 });
      }
    }
    if (zoom >= 44 && app.source.holds(maps, layer, head)) this.numbers(scene, camera, plot);
    scene.rect(plot.left - 0.5, plot.top - 0.5, right - plot.left + 1, bottom - plot.top + 1, { stroke: ink.line, line: 1 });
    // Labels, as many as have room; those of the cell always.
    const every = Math.max(1, Math.ceil((LABEL + 2) / zoom));
    const stride = every <= 1 ? 1 : [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].find((n) => n >= every) ?? 5000;
    const label = (position) => (stride >= 50 ? '' : data.tokens[position].label);
    const room = plot.left - 40;
    for (let query = Math.max(0, Math.floor(y)); query < Math.min(data.size, y + plot.height / zoom); query++) {
      const chosen = query === cell.query;
      const at = top(query + 0.5) + LABEL * 0.36;
      if (at < plot.top + 4 || at > bottom + 4) continue;
      const near = Math.abs(query - cell.query) * zoom < LABEL + 2;
      if (!chosen && (query % stride || near)) continue;
      const fill = chosen ? ink.accent : ink.text;
      scene.text(clipped(chosen ? data.tokens[query].label : label(query), room, LABEL), plot.left - 34, at, { fill, size: LABEL, align: 'end', bold: chosen });
      scene.text(String(query), plot.left - 5, at, { fill: chosen ? ink.accent : ink.soft, size: 10, align: 'end' });
    }
    for (let key = Math.max(0, Math.floor(x)); key < Math.min(data.size, x + plot.width / zoom); key++) {
      const chosen = key === cell.key;
      const at = left(key + 0.5);
      if (at < plot.left || at > right) continue;
      const near = Math.abs(key - cell.key) * zoom < LABEL + 2;
      if (!chosen && (key % stride || near)) continue;
      const fill = chosen ? ink.accent : ink.text;
      const text = chosen ? data.tokens[key].label : stride >= 50 ? String(key) : label(key);
      if (plot.flat) scene.text(clipped(text, zoom - 4, LABEL), at, plot.top - 8, { fill, size: LABEL, align: 'middle', bold: chosen });
      else scene.text(clipped(text, plot.top - 12, LABEL), at + LABEL * 0.36, plot.top - 6, { fill, size: LABEL, turn: -90, bold: chosen });
    }
    return scene;
  }

  // Numbers in the cells, where there is room for them.
  numbers(scene, { x, y, zoom }, plot) {
    const { app } = this;
    const { data, state } = app;
    const of = this.of();
    const last = Math.min(data.size, app.shownQueries(), y + plot.height / zoom);
    for (let query = Math.max(data.first_query, Math.floor(y)); query < last; query++) {
      const row = app.rowNow(query, of);
      if (!row) continue;
      const rest = restOf(row, state.hide);
      const [from, to] = app.source.seen(of.maps, of.layer, of.head, query);
      for (let key = Math.max(from, state.hide, Math.floor(x)); key < Math.min(to, x + plot.width / zoom); key++) {
        const weight = row[key] * rest;
        const [at, down] = [plot.left + (key + 0.5 - x) * zoom, plot.top + (query + 0.5 - y) * zoom];
        if (at < plot.left + 8 || down < plot.top + 8) continue;
        const below = state.threshold > 0 && weight < state.threshold;
        const colour = below ? app.paper : colourAt(state.colour, shareOf(weight, state.scale));
        scene.text(weight.toFixed(2), at, down + 4, { fill: inkOn(colour), size: zoom > 60 ? 12 : 11, align: 'middle' });
      }
    }
  }

  // For export: the cells as they are on the screen, and all around them.
  exported() {
    this.draw();
    return this.scene(this.camera(), this.plot(), true);
  }
}
