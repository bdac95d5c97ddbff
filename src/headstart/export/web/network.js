// The model: its parts unpacked from this page, its pixels from a photo, and its answer.

const about = JSON.parse(document.getElementById("about").textContent);
const ready = open();
let last = ready;  // the runtime does one photo at a time

/** The bytes that a block of this page holds as base64 of gzip; the block is dropped. */
async function unpacked(id) {
  const block = document.getElementById(id), letters = atob(block.textContent.trim());
  block.remove();
  const packed = new Uint8Array(letters.length);
  for (let k = 0; k < packed.length; k++) packed[k] = letters.charCodeAt(k);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function open() {
  if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined")
    throw new Error("This browser is too old for this page. Any browser of 2023 or newer opens it.");
  const wasm = await unpacked("runtime");
  Object.assign(ort.env.wasm, {wasmBinary: wasm.buffer, numThreads: 1, proxy: false});
  const session = await ort.InferenceSession.create(await unpacked("model"), {executionProviders: ["wasm"]});
  return {session, exact: keepsPixels()};
}

/** Whether a canvas gives the pixels that were drawn: some browsers change a few, against tracking. */
function keepsPixels() {
  const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
  const context = canvas.getContext("2d", {willReadFrequently: true}), drawn = context.createImageData(64, 64);
  drawn.data.forEach((_, k, data) => { data[k] = k % 4 === 3 ? 255 : k * 37 % 256; });
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 64, 64).data;
  return drawn.data.every((value, k) => value === read[k]);
}

/** What the network sees of a photo (pixels × pixels × 3). */
async function pixelsOf(photo) {
  if (!(photo instanceof Blob)) return squareOf(sourceOf(photo), about, 1);  // a frame of the camera
  const bytes = new Uint8Array(await photo.arrayBuffer()), {file, orientation} = unturned(photo, bytes);
  if (isDeep(bytes)) throw new Error("It has 16 bits a colour, of which a browser drops 8. Save it with 8 bits.");
  const options = {colorSpaceConversion: "none", premultiplyAlpha: "none"};
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error("This browser cannot decode it: it is damaged, or of a kind that browsers do not read. Save it as JPEG or PNG.");
  }
  try {
    return squareOf(sourceOf(bitmap), about, orientation);
  } finally {
    bitmap.close();
  }
}

/** A source for `squareOf` of a bitmap or a frame of a video; transparent pixels become white. */
function sourceOf(image) {
  const width = image.videoWidth ?? image.width, height = image.videoHeight ?? image.height;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  function rows(top, count) {
    if (canvas.height !== count) canvas.height = count;
    context.imageSmoothingEnabled = false;
    context.fillStyle = "white";
    context.fillRect(0, 0, width, count);
    context.drawImage(image, 0, top, width, count, 0, 0, width, count);
    return context.getImageData(0, 0, width, count).data;
  }
  return {width, height, rows};
}

/** The answer for a photo (a Blob) or a frame; one after the other. */
function classify(photo) {
  const answer = last.catch(() => null).then(() => answerOf(photo));
  last = answer;
  return answer;
}

async function answerOf(photo) {
  const {session} = await ready, size = about.pixels;
  const pixels = new ort.Tensor("uint8", await pixelsOf(photo), [1, size, size, 3]);
  const {probabilities, label, unknown, unknown_score: score} = await session.run({images: pixels});
  return {
    label: about.classes[Number(label.data[0])],
    probabilities: Object.fromEntries(about.classes.map((name, k) => [name, probabilities.data[k]])),
    unknown: unknown !== undefined && unknown.data[0] !== 0,
    score: score === undefined ? null : score.data[0],
  };
}
