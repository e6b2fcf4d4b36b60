// Paints tiles of codes on a canvas: WebGL 2 where there is one, else Canvas 2D. Both colour by the
// same table of 256 entries; the mask is drawn as paper.
import { TILE } from './code.js';

const VERTEX = `#version 300 es
uniform vec4 place;   // x, y, width, height in clip space
out vec2 at;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  at = corner;
  gl_Position = vec4(place.xy + corner * place.zw, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D tile;
uniform sampler2D table;
uniform vec3 origin;  // first query, first key, positions a cell
uniform vec4 mask;    // causal, window, positions, shown queries
uniform vec3 paper;
uniform int channel;
in vec2 at;
out vec4 colour;
void main() {
  ivec2 cell = clamp(ivec2(at * ${TILE}.0), ivec2(0), ivec2(${TILE - 1}));
  float key = origin.y + float(cell.x) * origin.z;
  float query = origin.x + float(cell.y) * origin.z;
  float last = query + origin.z - 1.0;
  if (key >= mask.z || query >= mask.z) discard;
  bool hidden = query >= mask.w || (mask.x > 0.5 && (key > last || key + origin.z - 1.0 + mask.y <= query));
  vec2 codes = texelFetch(tile, cell, 0).rg;
  float code = channel == 0 ? codes.r : codes.g;
  vec3 shown = texelFetch(table, ivec2(int(code * 255.0 + 0.5), 0), 0).rgb;
  colour = vec4(hidden ? paper : shown, 1.0);
}`;

// Asked of a canvas of its own: one that has had a WebGL context gets no other.
function drawsInSoftware() {
  const gl = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true });
  if (!gl) return true;
  const names = gl.getExtension('WEBGL_debug_renderer_info');
  const renderer = String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer);
}

export class GlPainter {
  // `null` where there is no WebGL 2, or (unless `slowToo`) only one that the processor draws.
  static on(canvas, slowToo) {
    if (!slowToo && drawsInSoftware()) return null;
    const gl = canvas.getContext('webgl2', { antialias: false, preserveDrawingBuffer: true });
    return gl ? new GlPainter(canvas, gl) : null;
  }
  constructor(canvas, gl) {
    Object.assign(this, { canvas, gl, textures: new Map() });
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.at = (name) => gl.getUniformLocation(program, name);
    this.places = Object.fromEntries(
      ['place', 'tile', 'table', 'origin', 'mask', 'paper', 'channel'].map((name) => [name, this.at(name)]),
    );
    gl.uniform1i(this.places.tile, 0);
    gl.uniform1i(this.places.table, 1);
    gl.bindVertexArray(gl.createVertexArray());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.table = gl.createTexture();
  }
  texture(unit, texture) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    return texture;
  }
  near() {
    const { gl } = this;
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  }
  // Starts a picture: paper where the map is, nothing around it.
  begin(look, [x, y, width, height]) {
    const { gl, canvas, places } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const [left, right] = [Math.max(0, Math.round(x)), Math.min(canvas.width, Math.round(x + width))];
    const [top, bottom] = [Math.max(0, Math.round(y)), Math.min(canvas.height, Math.round(y + height))];
    // The last blocks can reach beyond the map: what follows is cut at its edge.
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(left, canvas.height - bottom, Math.max(0, right - left), Math.max(0, bottom - top));
    gl.clearColor(...look.paper.map((c) => c / 255), 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    this.texture(1, this.table);
    if (this.painted !== look.table) {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, look.table);
      this.near();
      this.painted = look.table;
    }
    gl.uniform3f(places.paper, ...look.paper.map((c) => c / 255));
    gl.uniform4f(places.mask, look.causal ? 1 : 0, look.window, look.size, look.shown);
    gl.uniform1i(places.channel, look.channel === 'mean' ? 1 : 0);
  }
  // A tile at x, y, in device pixels.
  tile(codes, place, x, y, side) {
    const { gl, canvas, places } = this;
    let texture = this.textures.get(codes);
    if (texture) {
      this.texture(0, texture);
    } else {
      texture = this.texture(0, gl.createTexture());
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG8, TILE, TILE, 0, gl.RG, gl.UNSIGNED_BYTE, codes);
      this.near();
      this.textures.set(codes, texture);
      if (this.textures.size > 200) {
        const [oldest, old] = this.textures.entries().next().value;
        gl.deleteTexture(old);
        this.textures.delete(oldest);
      }
    }
    const block = 2 ** place.level;
    gl.uniform3f(places.origin, place.row * TILE * block, place.column * TILE * block, block);
    const [width, height] = [canvas.width / 2, canvas.height / 2];
    gl.uniform4f(places.place, x / width - 1, 1 - y / height, side / width, -side / height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}

export class CanvasPainter {
  constructor(canvas) {
    this.context = canvas.getContext('2d');
    this.images = new Map();
  }
  begin(look, [x, y, width, height]) {
    const { context } = this;
    if (this.look) context.restore();
    context.save();
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.imageSmoothingEnabled = false;
    context.fillStyle = `rgb(${look.paper.join(' ')})`;
    context.beginPath();
    context.rect(Math.round(x), Math.round(y), Math.round(x + width) - Math.round(x), Math.round(y + height) - Math.round(y));
    context.fill();
    // The last blocks can reach beyond the map.
    context.clip();
    const same = ['table', 'channel', 'shown', 'causal', 'window', 'size'];
    if (!this.look || same.some((name) => this.look[name] !== look[name])) this.images.clear();
    this.look = look;
  }
  tile(codes, place, x, y, side) {
    let image = this.images.get(codes);
    if (!image) {
      image = this.image(codes, place);
      this.images.set(codes, image);
      if (this.images.size > 200) this.images.delete(this.images.keys().next().value);
    }
    this.context.drawImage(image, x, y, side, side);
  }
  image(codes, place) {
    const { table, paper, causal, window, size, shown, channel } = this.look;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = TILE;
    const context = canvas.getContext('2d');
    const image = context.createImageData(TILE, TILE);
    const block = 2 ** place.level;
    const pixels = new Uint32Array(image.data.buffer);
    const colours = new Uint32Array(table.buffer);
    const blank = new Uint32Array(new Uint8Array([...paper, 255]).buffer)[0];
    const offset = channel === 'mean' ? 1 : 0;
    for (let line = 0; line < TILE; line++) {
      const query = (place.row * TILE + line) * block;
      if (query >= size) break;
      for (let cell = 0; cell < TILE; cell++) {
        const key = (place.column * TILE + cell) * block;
        if (key >= size) break;
        const hidden = query >= shown || (causal && (key > query + block - 1 || key + block - 1 + window <= query));
        const at = line * TILE + cell;
        pixels[at] = hidden ? blank : colours[codes[2 * at + offset]];
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
