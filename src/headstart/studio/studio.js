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
  const button = document.getElementById(`key-${event.key}`);
  if (button && button.offsetParent !== null) button.click();
});
