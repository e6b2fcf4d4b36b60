// Colour maps, and the table from codes to colours that every painter uses.
import { weightOf } from './code.js';

// At 0, 1/16, ... 1. Cividis: Nuñez et al. 2018, alike for every colour vision.
const COLOURS = {
  cividis: '00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838',
  viridis: '440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725',
  grey: '101010 1f1f1f 2e2e2e 3d3d3d 4c4c4c 5b5b5b 6a6a6a 797979 888888 979797 a6a6a6 b5b5b5 c4c4c4 d3d3d3 e2e2e2 f1f1f1 ffffff',
};

export const COLOUR_NAMES = Object.keys(COLOURS);

const STOPS = Object.fromEntries(
  Object.entries(COLOURS).map(([name, hex]) => [
    name,
    hex.split(' ').map((stop) => [0, 2, 4].map((at) => parseInt(stop.slice(at, at + 2), 16))),
  ]),
);

// A share of the scale, 0 to 1, as red, green, blue.
export function colourAt(name, share) {
  const stops = STOPS[name];
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return [0, 1, 2].map((i) => Math.round(stops[low][i] + (stops[low + 1][i] - stops[low][i]) * (at - low)));
}

// Ten octaves, down to about 0.001, are what an eye can use of the logarithmic scale.
const SHOWN_OCTAVES = 10;

// Where a weight stands on the scale, 0 to 1.
export function shareOf(weight, scale) {
  if (scale === 'linear') return weight;
  return weight <= 0 ? 0 : Math.max(0, 1 + Math.log2(weight) / SHOWN_OCTAVES);
}

// The weight at a share of the scale.
export function weightAt(share, scale) {
  return scale === 'linear' ? share : 2 ** ((share - 1) * SHOWN_OCTAVES);
}

export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

// Ink that is legible on a colour (WCAG's relative luminance).
export function inkOn([red, green, blue]) {
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  return luminance > 0.179 ? '#000' : '#fff';
}

function dark() {
  return matchMedia('(prefers-color-scheme: dark)').matches;
}

// Where nothing is: behind the mask, or below the threshold.
export function paperColour() {
  return dark() ? [44, 46, 51] : [226, 228, 232];
}

// Behind text, a share is a highlighter: none of it is the page's own colour.
export function shadeAt(share) {
  const [none, all] = dark() ? [[22, 24, 28], [255, 176, 66]] : [[255, 255, 255], [245, 146, 0]];
  return none.map((c, i) => Math.round(c + (all[i] - c) * Math.min(1, share)));
}

// RGBA for each code.
export function tableOf({ colour, scale, threshold }) {
  const table = new Uint8Array(256 * 4);
  for (let code = 0; code < 256; code++) {
    const weight = weightOf(code);
    const below = threshold > 0 && weight < threshold;
    const rgb = below ? paperColour() : colourAt(colour, shareOf(weight, scale));
    table.set([...rgb, 255], code * 4);
  }
  return table;
}
