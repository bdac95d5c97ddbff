// Whether a photo is unlike the training photos, as headstart/learn/unknown.py has it.

const NEAREST = 5;

/** What was measured on the training photos, from JSON and its packed arrays; null where nothing was. */
function typicalOf(given, packed) {
  if (!given) return null;
  const bytes = new DataView(packed.buffer, packed.byteOffset), width = given.width;
  let at = 0;
  const floats = count => Float32Array.from({length: count}, () => bytes.getFloat32((at += 4) - 4, true));
  const typical = {...given, centre: floats(width), sure: floats(given.sure), near: floats(given.near)};
  typical.kept = new Float32Array(given.kept * width);
  const halves = Float32Array.from({length: 65536}, (_, bits) => halfOf(bits));
  for (let k = 0; k < typical.kept.length; k++, at += 2) typical.kept[k] = halves[bytes.getUint16(at, true)];
  return typical;
}

/** The value of the 16 bits of a float16. */
function halfOf(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, rest = bits & 1023;
  return sign * (exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest / 1024 * 2 ** -14);
}

/** The sum of the logarithms of both ranks: of the largest probability, and of the mean cosine to the nearest. */
function scoreOf(typical, features, largest) {
  const {centre, kept, width} = typical, from = Float32Array.from(features, (value, d) => value - centre[d]);
  const length = Math.max(Math.hypot(...from), 2 ** -126), cosines = new Float32Array(kept.length / width);
  for (let photo = 0, at = 0; photo < cosines.length; photo++) {
    let sum = 0;
    for (let d = 0; d < width; d++, at++) sum += from[d] * kept[at];
    cosines[photo] = sum / length;
  }
  const nearest = cosines.sort().slice(-NEAREST);
  const near = nearest.reduce((sum, each) => sum + each, 0) / nearest.length;
  return logRank(typical.sure, largest) + logRank(typical.near, near);
}

function logRank(known, value) {
  const wanted = Math.fround(value);
  let low = 0, high = known.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (known[middle] <= wanted) low = middle + 1; else high = middle;
  }
  return Math.log((low + 1) / (known.length + 1));
}
