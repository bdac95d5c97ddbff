// Photos can be dropped anywhere on the column of a class: as if they had been chosen with its button.
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    const column = event.target.closest?.(".hs-drop");
    if (!column || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    column.classList.toggle("hs-over", kind === "dragover");
    const input = column.querySelector("input[type=file]");
    if (kind !== "drop" || !input || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

// A key for each class, where photos get their labels: as if its button were pressed.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = document.getElementById(`key-${event.key.toLowerCase()}`);
  if (button && button.offsetParent !== null) button.click();
});
// Gradio takes a photo by the type that the browser knows of its name, and refuses others, such as HEIC; fit reads them.
const asImages = (files) => {
  const taken = new DataTransfer();
  for (const file of files) {
    taken.items.add(file.type.startsWith("image/") ? file : new File([file], file.name, { type: "image/unknown" }));
  }
  return taken.files;
};
document.addEventListener("change", ({ target }) => {
  if (target.type === "file" && target.accept === "image/*") target.files = asImages(target.files);
}, true);
document.addEventListener("drop", (event) => {
  const input = event.target.closest("button, .upload-container")?.querySelector("input[type=file][accept='image/*']");
  if (!input || ![...event.dataTransfer.files].some((file) => !file.type.startsWith("image/"))) return;
  event.preventDefault();
  event.stopPropagation();
  input.files = asImages(event.dataTransfer.files);
  input.dispatchEvent(new Event("change", { bubbles: true }));
}, true);
