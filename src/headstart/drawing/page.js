const svg = document.querySelector("svg"), find = document.querySelector("input");
const count = document.querySelector("output"), said = document.querySelector("pre");
const whole = svg.getAttribute("viewBox").split(" ").map(Number);
const boxes = [...document.querySelectorAll(".box")].map(box => ({
  box, text: box.querySelector("title").textContent,
  names: [...box.querySelectorAll("[data-name]")].map(each => each.dataset.name)}));
for (const {box} of boxes) box.querySelector("title").remove();  // the panel says it instead
let view = [...whole], grip = null, found = [], at = -1;

const show = () => svg.setAttribute("viewBox", view.join(" "));
const scale = () => 1 / svg.getScreenCTM().a;
function zoom(by, x, y) {
  view = [x - (x - view[0]) * by, y - (y - view[1]) * by, view[2] * by, view[3] * by];
  show();
}
function go(box) {
  const place = box.getBBox(), to = svg.getScreenCTM().inverse().multiply(box.getScreenCTM());
  const middle = new DOMPoint(place.x + place.width / 2, place.y + place.height / 2).matrixTransform(to);
  const size = [svg.clientWidth, svg.clientHeight];
  view = [middle.x - size[0] / 2, middle.y - size[1] / 2, ...size];
  show();
}
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  zoom(Math.exp(event.deltaY * 0.0015), point.x, point.y);
}, {passive: false});
svg.addEventListener("pointerdown", event => {
  grip = [event.clientX, event.clientY, view[0], view[1], scale()];
  svg.setPointerCapture(event.pointerId);
});
svg.addEventListener("pointermove", event => {
  if (!grip) return;
  view[0] = grip[2] - (event.clientX - grip[0]) * grip[4];
  view[1] = grip[3] - (event.clientY - grip[1]) * grip[4];
  show();
});
for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => grip = null);
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  found = wanted ? boxes.filter(({text}) => text.toLowerCase().includes(wanted)) : [];
  at = -1;
  for (const each of boxes) {
    each.box.classList.toggle("found", found.includes(each));
    each.box.classList.toggle("dim", wanted !== "" && !found.includes(each));
  }
  count.textContent = wanted ? `${found.length} of ${boxes.length}` : "";
});
find.addEventListener("keydown", event => {
  if (event.key === "Enter" && found.length) go(found[at = (at + 1) % found.length].box);
});
document.querySelector("button").addEventListener("click", () => { view = [...whole]; show(); });
for (const {box, text, names} of boxes) for (const [kind, on] of [["pointerenter", true], ["pointerleave", false]])
  box.addEventListener(kind, () => {
    said.textContent = on ? text : "";
    box.classList.toggle("here", on);
    for (const each of document.querySelectorAll("[data-from]"))
      each.classList.toggle("here", on && (names.includes(each.dataset.from) || names.includes(each.dataset.to)));
  });
