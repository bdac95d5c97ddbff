// What the bytes of a photo's file say of it: its kind, its depth, and how the camera was held.

const TURN = 0x0112;  // the EXIF tag of the orientation

/** "jpeg", "png", "webp" or "": those whose orientation is read here, and turned after resizing, as Pillow's are. */
function kindOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "jpeg";
  if (text(bytes, 0, 4) === "\x89PNG") return "png";
  return text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP" ? "webp" : "";
}

/** Whether a PNG has 16 bits a value, of which a browser drops 8. */
function isDeep(bytes) {
  return kindOf(bytes) === "png" && bytes[24] === 16;
}

/** The EXIF orientation of a file, from 1 to 8; 1 where it has none or is damaged. */
function orientationOf(bytes) {
  try {
    const block = {jpeg: exifOfJpeg, png: exifOfPng, webp: exifOfWebp}[kindOf(bytes)]?.(bytes);
    const value = block ? tagOf(block) : 1;
    return value >= 1 && value <= 8 ? value : 1;
  } catch (error) {
    if (error instanceof RangeError) return 1;  // it ends too early
    throw error;
  }
}

function exifOfJpeg(bytes) {
  const view = viewOf(bytes);
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) return null;
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }  // filling
    if (marker === 0xda || marker === 0xd9) return null;  // the pixels begin, or the end
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) { at += 2; continue; }  // without a length
    const length = view.getUint16(at + 2);
    if (marker === 0xe1 && text(bytes, at + 4, 6) === "Exif\0\0") return bytes.subarray(at + 10, at + 2 + length);
    at += 2 + length;
  }
  return null;
}

function exifOfPng(bytes) {
  const view = viewOf(bytes);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    if (text(bytes, at + 4, 4) === "eXIf") return bytes.subarray(at + 8, at + 8 + length);
    at += 12 + length;
  }
  return null;
}

function exifOfWebp(bytes) {
  const view = viewOf(bytes);
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = view.getUint32(at + 4, true);
    if (text(bytes, at, 4) === "EXIF") {
      const begin = text(bytes, at + 8, 6) === "Exif\0\0" ? 14 : 8;
      return bytes.subarray(at + begin, at + 8 + length);
    }
    at += 8 + length + length % 2;
  }
  return null;
}

/** The orientation in a TIFF header with its first directory. */
function tagOf(block) {
  const view = viewOf(block), order = text(block, 0, 2);
  if (order !== "II" && order !== "MM") return 1;
  const little = order === "II", start = view.getUint32(4, little), count = view.getUint16(start, little);
  for (let entry = 0, at = start + 2; entry < count; entry++, at += 12)
    if (view.getUint16(at, little) === TURN) return view.getUint16(at + 8, little);
  return 1;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function text(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}
