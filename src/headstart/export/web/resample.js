// Pixels as Pillow resizes them (libImaging/Resample.c, 8 bits), to the last bit.
// A source is {width, height, rows(top, count)}, where rows gives the RGBA values of whole rows.

const PRECISION = 22;  // bits after the point of a coefficient
const HALF = 1 << (PRECISION - 1);
const BAND = 64;  // rows that are read at a time

const FILTERS = {
  bilinear: {support: 1, at: x => Math.max(0, 1 - Math.abs(x))},
  bicubic: {support: 2, at: cubic},
};

function cubic(value) {
  const x = Math.abs(value), a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** For each output pixel the first input pixel that counts, and the coefficients from there on. */
function coefficients(length, from, to, size, filter) {
  const start = Math.fround(from), scale = Math.fround(Math.fround(to) - start) / size;
  const wide = Math.max(scale, 1), support = filter.support * wide, found = [];
  for (let place = 0; place < size; place++) {
    const centre = start + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(length, Math.trunc(centre + support + 0.5));
    const weights = new Float64Array(end - first);
    let sum = 0;
    for (let x = 0; x < weights.length; x++) sum += weights[x] = filter.at((x + first - centre + 0.5) * (1 / wide));
    const whole = Int32Array.from(weights, weight => {
      const share = (sum === 0 ? weight : weight / sum) * (1 << PRECISION);
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    found.push({first, weights: whole, end});
  }
  return found;
}

/** As `coefficients`, computed in the part of the image that a square box and its margin cover, as Headstart cuts it. */
function coefficientsOf(length, from, to, size, filter) {
  const margin = 3 * Math.max((to - from) / size, 1);
  const start = Math.max(0, Math.floor(from - margin)), stop = Math.min(length, Math.ceil(to + margin));
  const found = coefficients(stop - start, from - start, to - start, size, filter);
  return found.map(({first, weights, end}) => ({first: first + start, weights, end: end + start}));
}

/** The square box (left, top, right, bottom) of a source, scaled to size × size; RGB values. */
function resample(source, box, size, kind, downFirst) {
  const across = coefficientsOf(source.width, box[0], box[2], size, FILTERS[kind]);
  const down = coefficientsOf(source.height, box[1], box[3], size, FILTERS[kind]);
  const result = new Uint8ClampedArray(size * size * 3);
  if (downFirst) {
    const flat = heightFirst(source, down);
    for (let y = 0; y < size; y++) narrowRow(flat, y * source.width * 4, across, result, y * size * 3);
  } else {
    widthFirst(source, across, down, result);
  }
  return new Uint8Array(result.buffer);
}

function widthFirst(source, across, down, result) {
  const size = down.length, top = down[0].first, bottom = down[size - 1].end;
  const narrow = new Uint8ClampedArray((bottom - top) * size * 3);
  for (let row = top; row < bottom; row += BAND) {
    const count = Math.min(BAND, bottom - row), pixels = source.rows(row, count);
    for (let y = 0; y < count; y++)
      narrowRow(pixels, y * source.width * 4, across, narrow, (row - top + y) * size * 3);
  }
  for (let y = 0, out = 0; y < size; y++) {
    const {first, weights} = down[y];
    for (let x = 0; x < size * 3; x++, out++) {
      let sum = HALF;
      for (let k = 0, at = (first - top) * size * 3 + x; k < weights.length; k++, at += size * 3)
        sum += narrow[at] * weights[k];
      result[out] = sum >> PRECISION;
    }
  }
}

/** All columns of a source, at the height of the result; RGBA values. */
function heightFirst(source, down) {
  const length = source.width * 4, sums = new Int32Array(down.length * length).fill(HALF);
  const top = down[0].first, bottom = down[down.length - 1].end;
  for (let row = top, from = 0; row < bottom; row += BAND) {
    const count = Math.min(BAND, bottom - row), pixels = source.rows(row, count);
    for (let y = 0; y < count; y++) {
      while (down[from].end <= row + y) from++;
      for (let out = from; out < down.length && down[out].first <= row + y; out++) {
        const weight = down[out].weights[row + y - down[out].first];
        for (let x = 0, at = out * length; x < length; x++, at++) sums[at] += pixels[y * length + x] * weight;
      }
    }
  }
  return Uint8ClampedArray.from(sums, sum => sum >> PRECISION);
}

function narrowRow(pixels, start, across, narrow, out) {
  for (const {first, weights} of across) {
    let red = HALF, green = HALF, blue = HALF;
    for (let k = 0, at = start + first * 4; k < weights.length; k++, at += 4) {
      red += pixels[at] * weights[k];
      green += pixels[at + 1] * weights[k];
      blue += pixels[at + 2] * weights[k];
    }
    narrow[out++] = red >> PRECISION;
    narrow[out++] = green >> PRECISION;
    narrow[out++] = blue >> PRECISION;
  }
}

/** The centred square of a source that the network sees, upright: RGB values (pixels × pixels × 3).
 *  The first pass is across as people see the photo: down where it lies on its side, by its EXIF orientation. */
function squareOf(source, about, orientation) {
  const {width, height} = source, side = Math.min(width, height) * about.crop;
  const left = (width - side) / 2, top = (height - side) / 2;
  const square = resample(source, [left, top, left + side, top + side], about.pixels, about.resample, orientation >= 5);
  return turned(square, about.pixels, orientation);
}

/** A square (size × size × 3) after the turn that an EXIF orientation from 1 to 8 asks for. */
function turned(square, size, orientation) {
  if (orientation === 1) return square;
  const last = size - 1, result = new Uint8Array(square.length);
  const from = {
    2: (x, y) => [last - x, y], 3: (x, y) => [last - x, last - y], 4: (x, y) => [x, last - y], 5: (x, y) => [y, x],
    6: (x, y) => [y, last - x], 7: (x, y) => [last - y, last - x], 8: (x, y) => [last - y, x],
  }[orientation];
  for (let y = 0, out = 0; y < size; y++) for (let x = 0; x < size; x++) {
    const [column, row] = from(x, y);
    for (let channel = 0; channel < 3; channel++) result[out++] = square[(row * size + column) * 3 + channel];
  }
  return result;
}
