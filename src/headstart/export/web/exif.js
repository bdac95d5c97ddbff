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

/** A photo as it lies in its file, which every browser decodes alike, and the EXIF orientation from 1 to 8 that it had.
 *  Browsers turn some kinds of files by themselves, and cannot be told not to. */
function unturned(photo, bytes) {
  const kind = kindOf(bytes), found = kind && tagOf(bytes, {jpeg: exifOfJpeg, png: exifOfPng, webp: exifOfWebp}[kind]);
  if (!found) return {orientation: 1, file: photo};
  if (kind === "png")  // its blocks have a checksum, so the whole block is left out
    return {...found, file: new Blob([bytes.subarray(0, found.start), bytes.subarray(found.end)])};
  const changed = bytes.slice();
  viewOf(changed).setUint16(found.at, 1, found.little);
  return {...found, file: new Blob([changed])};
}

/** The orientation in a file's EXIF block, where it stands, and from where to where the block is; null where there is none
 *  or the block is damaged. */
function tagOf(bytes, exifOf) {
  try {
    const block = exifOf(bytes), view = viewOf(bytes), begin = block?.begin, order = block && text(bytes, begin, 2);
    if (order !== "II" && order !== "MM") return null;
    const little = order === "II", start = begin + view.getUint32(begin + 4, little);
    for (let entry = 0, at = start + 2; entry < view.getUint16(start, little); entry++, at += 12) {
      const orientation = view.getUint16(at + 8, little);
      if (view.getUint16(at, little) === TURN && at + 12 <= block.end)
        return orientation >= 1 && orientation <= 8 ? {...block, orientation, at: at + 8, little} : null;
    }
    return null;
  } catch (error) {
    if (error instanceof RangeError) return null;  // it ends too early
    throw error;
  }
}

// Each gives the start and the end of the block, and where the TIFF header in it begins.

function exifOfJpeg(bytes) {
  const view = viewOf(bytes);
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) return null;
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }  // filling
    if (marker === 0xda || marker === 0xd9) return null;  // the pixels begin, or the end
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) { at += 2; continue; }  // without a length
    const end = at + 2 + view.getUint16(at + 2);
    if (marker === 0xe1 && text(bytes, at + 4, 6) === "Exif\0\0") return {start: at, begin: at + 10, end};
    at = end;
  }
  return null;
}

function exifOfPng(bytes) {
  const view = viewOf(bytes);
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 12 + view.getUint32(at);
    if (text(bytes, at + 4, 4) === "eXIf") return {start: at, begin: at + 8, end};
    at = end;
  }
  return null;
}

function exifOfWebp(bytes) {
  const view = viewOf(bytes);
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = view.getUint32(at + 4, true), end = at + 8 + length + length % 2;
    if (text(bytes, at, 4) === "EXIF")
      return {start: at, begin: at + (text(bytes, at + 8, 6) === "Exif\0\0" ? 14 : 8), end};
    at = end;
  }
  return null;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function text(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}
