// What people see and do.

const SHOWN = 5;  // bars of an answer
const PAUSE = 150;  // milliseconds between two frames of the camera
const SLOW = 2000;  // milliseconds of a frame, from which on the camera is not followed live
const THUMBNAIL = 272;  // pixels: twice the width on the page

const at = id => document.getElementById(id);

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

/** A name with its own direction of writing, and places where a long one may break. */
function isolated(name) {
  const parts = (name || "(no name)").split(/(?<=[_.,/-])/);
  return element("bdi", "name", ...parts.flatMap(part => [part, document.createElement("wbr")]));
}

/** "62 %", and never 100 or 0 where it is not. */
function percent(share) {
  const digits = share >= 0.0995 && share < 0.995 ? 0 : 1, rounded = (100 * share).toFixed(digits);
  if (share < 1 && Number(rounded) === 100) return "> 99.9 %";
  return share > 0 && Number(rounded) === 0 ? "< 0.1 %" : `${rounded} %`;
}

function say(sentence, care = false) {
  at("status").textContent = sentence;
  at("status").classList.toggle("care", care);
}

/** The label, or that it is unknown, and the bars of the most probable classes. */
function answerElement(answer) {
  const shares = about.classes.map(name => [name, answer.probabilities[name]]).sort((one, other) => other[1] - one[1]);
  const box = element("div", answer.unknown ? "answer strange" : "answer");
  box.append(element("h3", "", answer.unknown ? "Unknown" : isolated(answer.label)));
  if (answer.unknown) box.append(element("p", "quiet", "Unlike all training photos. The closest class is ", isolated(answer.label), "."));
  const bars = element("ul", "bars");
  for (const [name, share] of shares.slice(0, SHOWN)) {
    const bar = element("i", ""), track = element("span", "track", bar);
    bar.style.width = `${100 * share}%`;
    track.setAttribute("aria-hidden", "true");
    bars.append(element("li", "", isolated(name), element("span", "share", percent(share)), track));
  }
  box.append(bars);
  return box;
}

async function thumbnail(photo, label) {
  const bitmap = await createImageBitmap(photo);
  const scale = Math.min(1, THUMBNAIL / Math.min(bitmap.width, bitmap.height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

/** Classify one photo and put a card of it first. */
async function add(photo, title) {
  const card = element("li", "card");
  try {
    const answer = await classify(photo), box = answerElement(answer);
    box.append(element("p", "file", title));
    card.classList.toggle("strange", answer.unknown);
    card.append(await thumbnail(photo, `photo ${title}`), box);
  } catch (error) {
    card.classList.add("without");
    card.append(element("div", "answer", element("h3", "care", "No answer"), element("p", "", error.message), element("p", "file", title)));
  }
  at("results").prepend(card);
  at("answers").hidden = false;
  return card;
}

async function addAll(files) {
  const photos = [...files];
  let failed = 0;
  for (const [number, photo] of photos.entries()) {
    if (photos.length > 1) say(`Photo ${number + 1} of ${photos.length} is being classified.`);
    const card = await add(photo, photo.name || "pasted photo");
    failed += card.classList.contains("without");
    if (photos.length === 1) say(`${photo.name || "The photo"}: ${card.querySelector("h3").textContent}.`, failed > 0);
    await new Promise(done => setTimeout(done));  // the page is drawn in between
  }
  const classified = photos.length - failed;
  const first = classified === 1 ? "1 photo was classified" : `${classified} photos were classified`;
  if (photos.length > 1) say(`${first}${failed ? `, ${failed} could not be` : ""}.`, failed > 0);
}

let queue = Promise.resolve();
function take(files) {
  if (files.length) queue = queue.then(() => addAll(files));
}

// --- camera

let stream = null;

function whyNoCamera(error) {
  return {
    NotAllowedError: "The browser does not let this page use the camera. Allow it in the page's settings, then try again.",
    NotFoundError: "No camera was found.",
    NotReadableError: "The camera is in use by another program.",
  }[error.name] ?? `The camera cannot be used: ${error.message}`;
}

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    say("Browsers give the camera to pages from https or localhost only; some give it to a file on disk too, this one does not.", true);
    return;
  }
  at("start").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    stream.getVideoTracks()[0].addEventListener("ended", () => { stopCamera(); say("The camera was switched off.", true); });
    at("video").srcObject = stream;
    at("camera").hidden = false;
    await at("video").play();
    say("The camera is on.");
    at("keep").focus();
    follow(stream);
  } catch (error) {
    stopCamera();
    say(whyNoCamera(error), true);
  }
}

/** Classify what the camera sees, again and again, while this stream is on. */
async function follow(started) {
  while (stream === started) {
    const begin = performance.now();
    try {
      const answer = await classify(at("video"));
      if (stream !== started) return;
      at("live").replaceChildren(answerElement(answer));
    } catch (error) {
      say(error.message, true);
      return;
    }
    if (performance.now() - begin > SLOW) {
      at("live").replaceChildren(element("p", "quiet", "This device is too slow to follow the camera: keep a frame to classify it."));
      return;
    }
    await new Promise(done => setTimeout(done, PAUSE));
  }
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  at("video").srcObject = null;
  at("camera").hidden = true;
  at("live").replaceChildren();
  at("start").disabled = false;
}

async function keepFrame() {
  const canvas = document.createElement("canvas"), video = at("video");
  Object.assign(canvas, {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext("2d").drawImage(video, 0, 0);
  const card = await add(canvas, `camera, ${new Date().toLocaleTimeString()}`);
  say(`Frame: ${card.querySelector("h3").textContent}.`);
}

// --- what starts it all

at("files").addEventListener("change", () => { take([...at("files").files]); at("files").value = ""; });
at("start").addEventListener("click", startCamera);
at("stop").addEventListener("click", () => { stopCamera(); say("The camera is off."); at("start").focus(); });
at("keep").addEventListener("click", () => { queue = queue.then(keepFrame); });
at("clear").addEventListener("click", () => {
  at("results").replaceChildren();
  at("answers").hidden = true;
  say("All answers were removed.");
  at("files").focus();
});
document.addEventListener("paste", event => take([...event.clipboardData.files]));
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  at("add").classList.toggle("over", kind === "dragover");
  if (kind !== "drop") return;
  take([...event.dataTransfer.files]);
  if (!event.dataTransfer.files.length) say("That was no file. Save the photo first, then drop its file here.", true);
});

ready.then(({exact}) => {
  at("files").disabled = at("start").disabled = false;
  if (exact) say("Ready.");
  else say("Ready. But this browser changes the pixels that a page reads, to protect from tracking, so answers may differ a little. Allow this page to read canvases.", true);
}, error => say(`The model cannot be opened: ${error.message}`, true));

// For other scripts of this page, and for tests: see docs/export.md of Headstart.
window.headstart = {classify, classes: about.classes, ready: ready.then(() => undefined)};
