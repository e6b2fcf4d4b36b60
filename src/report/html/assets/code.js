// Weights as bytes, for pictures: the same logarithmic code over [2^-16, 1] that the server uses.

const OCTAVES = 16;
const CODE_STEPS = 254;

export const TILE = 256;

export function codeOf(weight) {
  if (!(weight >= 2 ** -OCTAVES)) return 0;
  return Math.min(255, 1 + Math.round((Math.log2(weight) + OCTAVES) * (CODE_STEPS / OCTAVES)));
}

export function weightOf(code) {
  return code === 0 ? 0 : 2 ** ((code - 1) * (OCTAVES / CODE_STEPS) - OCTAVES);
}

export function levelsOf(size) {
  let levels = 1;
  while (TILE << (levels - 1) < size) levels++;
  return levels;
}

// One tile, [256, 256, 2] bytes: maximum and mean of blocks of 2^level by 2^level weights, from
// rows that `row(query)` lends. As the server makes them.
export function tileOf(size, seen, row, level, tileRow, tileColumn, hide) {
  const out = new Uint8Array(TILE * TILE * 2);
  const block = 2 ** level;
  const firstKey = tileColumn * TILE * block;
  const endKey = Math.min(size, firstKey + TILE * block);
  const maximum = new Float32Array(TILE);
  const sum = new Float64Array(TILE);
  const count = new Uint32Array(TILE);
  for (let line = 0; line < TILE; line++) {
    const first = (tileRow * TILE + line) * block;
    if (first >= size) break;
    maximum.fill(0);
    sum.fill(0);
    count.fill(0);
    for (let query = first; query < Math.min(size, first + block); query++) {
      const weights = row(query);
      if (!weights) continue;
      const [seenFrom, seenTo] = seen(query);
      const scale = restOf(weights, hide);
      const to = Math.min(endKey, seenTo);
      for (let key = Math.max(firstKey, seenFrom); key < to; key++) {
        const cell = (key - firstKey) >> level;
        const weight = key < hide ? 0 : weights[key] * scale;
        if (weight > maximum[cell]) maximum[cell] = weight;
        sum[cell] += weight;
        count[cell]++;
      }
    }
    for (let cell = 0; cell < TILE; cell++) {
      const at = (line * TILE + cell) * 2;
      out[at] = codeOf(maximum[cell]);
      out[at + 1] = codeOf(sum[cell] / Math.max(1, count[cell]));
    }
  }
  return out;
}

// A small picture, [side, side, 2] bytes, from rows that `row(query)` lends. As the server makes them.
export function pictureOf(size, side, cell, seen, row, hide) {
  const maximum = new Float32Array(side * side);
  const sum = new Float64Array(side * side);
  const count = new Uint32Array(side * side);
  for (let query = 0; query < size; query++) {
    const weights = row(query);
    if (!weights) continue;
    const rest = restOf(weights, hide);
    const line = Math.floor(query / cell) * side;
    const [from, to] = seen(query);
    for (let key = from; key < to; key++) {
      const at = line + Math.floor(key / cell);
      const weight = key < hide ? 0 : weights[key] * rest;
      if (weight > maximum[at]) maximum[at] = weight;
      sum[at] += weight;
      count[at]++;
    }
  }
  const out = new Uint8Array(side * side * 2);
  for (let at = 0; at < side * side; at++) {
    out[2 * at] = codeOf(maximum[at]);
    out[2 * at + 1] = codeOf(sum[at] / Math.max(1, count[at]));
  }
  return out;
}

// What a row is multiplied with once its first keys are hidden, so that the rest sums to 1.
export function restOf(weights, hide) {
  if (!hide) return 1;
  let hidden = 0;
  for (let key = 0; key < Math.min(hide, weights.length); key++) hidden += weights[key];
  return 1 - hidden > 1e-6 ? 1 / (1 - hidden) : 0;
}
