// Tokens as a person reads them, and small helpers that build elements. All text goes in as text.

// The number of a layer's mean over its heads, which is shown as if it were one more head.
export const MEAN = -1;

export function headName(layer, head) {
  return head === MEAN ? `layer ${layer}, mean of its heads` : `layer ${layer}, head ${head}`;
}

export function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== 'list' && !key.includes('-') && key !== 'role') made[key] = value;
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

// Characters that would be invisible or would turn the text around, as escapes.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;

function escaped(text) {
  return text.replace(HIDDEN, (c) => {
    // A joiner between two parts of an emoji is at work, not hidden.
    if (c === '\u200d') return c;
    return c === '\n' ? '⏎' : c === '\t' ? '⇥' : `\\u${c.codePointAt(0).toString(16)}`;
  });
}

// What a token adds to the running text; a partial character as its bytes.
export function running(token) {
  return token.text === '' ? token.label : escaped(token.text);
}

export function endsLine(token) {
  return token.text.endsWith('\n');
}

export function quoted(token) {
  return `“${token.label}”`;
}

export function number(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  return value < 0.0001 ? value.toExponential(2) : value.toFixed(4);
}

export function short(value, unit) {
  if (value === null || value === undefined) return '–';
  return unit === 'share' ? value.toFixed(2) : unit === 'bits' ? `${value.toFixed(1)} bits` : value.toFixed(1);
}

// Bytes of base64.
export function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text.trim());
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}
