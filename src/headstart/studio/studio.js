// A key for each class, where photos get their labels: as if its button were pressed.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const button = document.getElementById(`key-${event.key.toLowerCase()}`);
  if (button && button.offsetParent !== null) button.click();
});
