// What is drawn around the cells (labels, frames, arcs) as a list of shapes, so that the screen, an
// exported PNG and an exported SVG show the same.

const FONT = '"Segoe UI", "Noto Sans", "DejaVu Sans", system-ui, sans-serif';

export class Scene {
  constructor(width, height) {
    Object.assign(this, { width, height, shapes: [] });
  }
  rect(x, y, width, height, { fill, stroke, line = 1 } = {}) {
    this.shapes.push({ kind: 'rect', x, y, width, height, fill, stroke, line });
  }
  // `turn`: degrees. `bold`, `size` (pixels), `align`: start, middle or end.
  text(text, x, y, { fill, size = 12, align = 'start', turn = 0, bold = false } = {}) {
    this.shapes.push({ kind: 'text', text, x, y, fill, size, align, turn, bold });
  }
  // A path of SVG.
  path(d, { stroke, line = 1, opacity = 1, fill } = {}) {
    this.shapes.push({ kind: 'path', d, stroke, line, opacity, fill });
  }
  // Cells, already painted.
  picture(canvas, x, y, width, height) {
    this.shapes.push({ kind: 'picture', canvas, x, y, width, height });
  }

  draw(context) {
    for (const shape of this.shapes) {
      context.save();
      if (shape.kind === 'rect') {
        if (shape.fill) {
          context.fillStyle = shape.fill;
          context.fillRect(shape.x, shape.y, shape.width, shape.height);
        }
        if (shape.stroke) {
          context.strokeStyle = shape.stroke;
          context.lineWidth = shape.line;
          context.strokeRect(shape.x, shape.y, shape.width, shape.height);
        }
      } else if (shape.kind === 'text') {
        context.translate(shape.x, shape.y);
        context.rotate((shape.turn * Math.PI) / 180);
        context.font = `${shape.bold ? '600 ' : ''}${shape.size}px ${FONT}`;
        context.fillStyle = shape.fill;
        context.textAlign = shape.align === 'middle' ? 'center' : shape.align;
        context.textBaseline = 'alphabetic';
        context.direction = 'ltr';
        context.fillText(shape.text, 0, 0);
      } else if (shape.kind === 'path') {
        const path = new Path2D(shape.d);
        context.globalAlpha = shape.opacity;
        if (shape.fill) {
          context.fillStyle = shape.fill;
          context.fill(path);
        }
        if (shape.stroke) {
          context.strokeStyle = shape.stroke;
          context.lineWidth = shape.line;
          context.stroke(path);
        }
      } else {
        context.imageSmoothingEnabled = false;
        context.drawImage(shape.canvas, shape.x, shape.y, shape.width, shape.height);
      }
      context.restore();
    }
  }

  svg(background) {
    const out = [
      `<svg xmlns="http://www.w3.org/2000/svg" width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}">`,
      `<rect width="100%" height="100%" fill="${background}"/>`,
    ];
    const n = (value) => Math.round(value * 100) / 100;
    for (const s of this.shapes) {
      if (s.kind === 'rect') {
        out.push(
          `<rect x="${n(s.x)}" y="${n(s.y)}" width="${n(s.width)}" height="${n(s.height)}" fill="${s.fill ?? 'none'}"${s.stroke ? ` stroke="${s.stroke}" stroke-width="${s.line}"` : ''}/>`,
        );
      } else if (s.kind === 'text') {
        const turn = s.turn ? ` transform="rotate(${s.turn} ${n(s.x)} ${n(s.y)})"` : '';
        out.push(
          `<text x="${n(s.x)}" y="${n(s.y)}" font-family="${markup(FONT)}" font-size="${s.size}"${s.bold ? ' font-weight="600"' : ''} fill="${s.fill}" text-anchor="${s.align}"${turn}>${markup(s.text)}</text>`,
        );
      } else if (s.kind === 'path') {
        out.push(
          `<path d="${s.d}" fill="${s.fill ?? 'none'}" stroke="${s.stroke ?? 'none'}" stroke-width="${n(s.line)}" opacity="${n(s.opacity)}"/>`,
        );
      } else {
        out.push(
          `<image x="${n(s.x)}" y="${n(s.y)}" width="${n(s.width)}" height="${n(s.height)}" style="image-rendering:pixelated" href="${s.canvas.toDataURL('image/png')}"/>`,
        );
      }
    }
    return `${out.join('\n')}\n</svg>\n`;
  }
}

function markup(text) {
  return text.replace(/[&<>"\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, (c) => (c < ' ' || c > '\ufffd' ? '\ufffd' : `&#${c.charCodeAt(0)};`));
}

// Hands a file to the person.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Widths of texts as the canvas will draw them.
const measuring = document.createElement('canvas').getContext('2d');
export function widthOf(text, size, bold = false) {
  measuring.font = `${bold ? '600 ' : ''}${size}px ${FONT}`;
  return measuring.measureText(text).width;
}

export function clipped(text, width, size) {
  if (widthOf(text, size) <= width) return text;
  const characters = [...text];
  while (characters.length > 1 && widthOf(`${characters.join('')}…`, size) > width) characters.pop();
  return `${characters.join('')}…`;
}
