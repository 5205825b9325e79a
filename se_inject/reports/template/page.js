const search = document.querySelector("#search");
const blocks = [...document.querySelectorAll(".block")].map((row) => [row, row.textContent.toLowerCase()]);
const stages = [...document.querySelectorAll(".stage")];
let folded = null; // the stages that were closed when a search began

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const [row, text] of blocks) row.hidden = !words.every((word) => text.includes(word));
  if (words.length && folded === null) folded = stages.filter((stage) => !stage.open);
  for (const stage of stages) {
    stage.hidden = !stage.querySelector(".block:not([hidden])");
    if (words.length) stage.open = true;
  }
  if (!words.length && folded !== null) {
    for (const stage of folded) stage.open = false;
    folded = null;
  }
  const shown = blocks.filter(([row]) => !row.hidden).length;
  document.querySelector("#found").textContent = words.length ? `${shown} of ${blocks.length}` : "";
}

function setAll(open) {
  for (const stage of stages) stage.open = open;
}

search.addEventListener("input", filter);
document.querySelector("#unfold").addEventListener("click", () => setAll(true));
document.querySelector("#fold").addEventListener("click", () => setAll(false));
filter(); // a reload may keep what was typed
